"""The suite `embed` of launch.benchmark: sentence vectors of the published item profiles."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gatrec_jax.errors import InputError
from gatrec_jax.lm.encoder import encode, load_encoder
from gatrec_jax.lm.hardware import device_rates
from gatrec_jax.lm.source import resolve_encoder
from launch.benchmark_measure import (
  Counts,
  Figure,
  Json,
  Say,
  peer_device,
  peer_process,
  suite_results,
)

MAX_TOKENS = 256
