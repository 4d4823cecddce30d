"""Weight-only int8 quantization: 8-bit weights and one float32 scale per output channel.

Embedding and output head are not quantized: rounding them changes the logits the most (on
stories260K it alone lowers top-1 agreement from 99.3 to 98.9 %).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from gatrec_jax.lm.decoder.config import DecoderConfig
from gatrec_jax.lm.decoder.weights import weight_rules
from gatrec_jax.sharding.placement import to_device

LARGEST = 127


def quantize_array(array: np.ndarray | jax.Array) -> tuple[np.ndarray, np.ndarray]:
  """Quantizes a matrix to int8, row by row.

  Args: array: [out, in] float.
  Returns: [out, in] int8 values and [out] float32 scales, with array ≈ values · scale. A scale is
    the row's largest magnitude / 127, and 0 for a row of zeros.
  """
  wide = np.asarray(array).astype(np.float32)
  scales = np.abs(wide).max(axis=1) / LARGEST
  divisors = np.where(scales > 0, scales, 1.0)[:, None]
  rounded = np.clip(np.rint(wide / divisors), -LARGEST, LARGEST)
  return rounded.astype(np.int8), scales.astype(np.float32)


def quantized_paths(config: DecoderConfig) -> frozenset[str]:
  """Paths of the parameters to quantize: the kernels of attention and MLP."""
  return frozenset(
    rule.target
    for rule in weight_rules(config)
    if rule.target.endswith("/kernel") and rule.target.startswith("layer_")
  )


def quantize_params(params: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the parameters with the kernels of attention and MLP in int8 (see `Projection`)."""
  return {
    name: _quantized(tree) if name.startswith("layer_") else tree for name, tree in params.items()
  }


def _quantized(tree: Mapping[str, Any]) -> dict[str, Any]:
  out: dict[str, Any] = {}
  for name, value in tree.items():
    if isinstance(value, Mapping):
      out[name] = _quantized(value)
    elif name == "kernel":
      values, scales = quantize_array(value)
      out |= to_device({"kernel_int8": values, "kernel_scale": scales})
    else:
      out[name] = value
  return out
