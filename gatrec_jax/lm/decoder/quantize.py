"""Weight-only int8: each output channel of a projection keeps 8 bits and one float32 scale.

Embedding and output head stay as they are: they are read by rows, and rounding them moves logits
the most (on stories260K it alone takes top-1 agreement from 99.3 to 98.9 %).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.lm.decoder.config import DecoderConfig
from gatrec_jax.lm.decoder.weights import weight_rules

LARGEST = 127


def quantize_array(array: np.ndarray | jax.Array) -> tuple[np.ndarray, np.ndarray]:
  """Rounds each row to multiples of its largest magnitude / 127.

  Args: array: [out, in] float.
  Returns: int8 [out, in] and float32 [out] scales; values ≈ int8 · scale. A row of zeros has
    scale 0.
  """
  wide = np.asarray(array).astype(np.float32)
  scales = np.abs(wide).max(axis=1) / LARGEST
  divisors = np.where(scales > 0, scales, 1.0)[:, None]
  rounded = np.clip(np.rint(wide / divisors), -LARGEST, LARGEST)
  return rounded.astype(np.int8), scales.astype(np.float32)


def quantized_paths(config: DecoderConfig) -> frozenset[str]:
  """Paths of the parameters that become int8: the kernels of attention and MLP."""
  return frozenset(
    rule.target
    for rule in weight_rules(config)
    if rule.target.endswith("/kernel") and rule.target.startswith("layer_")
  )


def quantize_params(params: Mapping[str, Any]) -> dict[str, Any]:
  """The tree with the kernels of attention and MLP in int8 (`decoder_blocks.Projection`)."""
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
      out |= {"kernel_int8": jnp.asarray(values), "kernel_scale": jnp.asarray(scales)}
    else:
      out[name] = value
  return out
