"""Weight-only int8: each output channel of a matrix keeps 8 bits and one float32 scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.lm.decoder_config import DecoderConfig
from gatrec_jax.lm.decoder_weights import weight_rules

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
  return np.rint(wide / divisors).astype(np.int8), scales.astype(np.float32)


def dequantize_array(values: jax.Array, scales: jax.Array) -> jax.Array:
  """The float32 matrix that int8 values [out, in] and scales [out] stand for."""
  return values.astype(jnp.float32) * scales[:, None]


def quantized_paths(config: DecoderConfig) -> frozenset[str]:
  """Paths of the parameters that become int8: every matrix, norms and biases not."""
  return frozenset(
    rule.target
    for rule in weight_rules(config)
    if rule.target.endswith(("/kernel", "/embedding"))
  )


def quantize_params(params: Mapping[str, Any]) -> dict[str, Any]:
  """The tree with every matrix in int8. Names change: see `decoder.Projection`."""
  out: dict[str, Any] = {}
  for name, value in params.items():
    if isinstance(value, Mapping):
      out[name] = quantize_params(value)
    elif name in ("kernel", "embedding"):
      values, scales = quantize_array(value)
      out |= {"kernel_int8": jnp.asarray(values), "kernel_scale": jnp.asarray(scales)}
    else:
      out[name] = value
  return out
