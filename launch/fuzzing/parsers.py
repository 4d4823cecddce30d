"""Every parser that `launch.fuzz` knows, by name."""

from __future__ import annotations

from launch.fuzzing import of_models, of_runs, of_tables
from launch.fuzzing.execute import Parser

PARSERS: tuple[Parser, ...] = (*of_tables.PARSERS, *of_runs.PARSERS, *of_models.PARSERS)
