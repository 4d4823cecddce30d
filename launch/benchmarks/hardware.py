"""The peak memory bandwidth and arithmetic rate of a device, from data sheets or measured."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Peak(NamedTuple):
  """Bytes/s of a device's memory and dense FLOP/s by dtype; None if no data sheet says."""

  bandwidth: float
  bfloat16: float
  float32: float | None


# device_kind as jax names it -> peak, from the vendors' data sheets (dense, not sparse; float32
# without TF32, which this library does not use). The first pattern that matches counts.
PEAKS: tuple[tuple[str, Peak], ...] = (
  (r"\bh200 nvl\b", Peak(4.8e12, 835e12, 60e12)),
  (r"\bh200\b", Peak(4.8e12, 989e12, 67e12)),
  (r"\bh100 nvl\b", Peak(3.9e12, 835e12, 60e12)),
  (r"\bh100 pcie\b", Peak(2.0e12, 756e12, 51e12)),
  (r"\bh100\b", Peak(3.35e12, 989e12, 67e12)),
  (r"\ba100-sxm4-80gb\b", Peak(2.039e12, 312e12, 19.5e12)),
  (r"\ba100 80gb pcie\b", Peak(1.935e12, 312e12, 19.5e12)),
  (r"\ba100\b", Peak(1.555e12, 312e12, 19.5e12)),
  (r"\bl4\b", Peak(0.3e12, 121e12, 30.3e12)),
  (r"\btpu v4$", Peak(1.228e12, 275e12, None)),
  (r"\btpu v5 ?(lite|e)\b", Peak(0.819e12, 197e12, None)),
  (r"\btpu v5p?$", Peak(2.765e12, 459e12, None)),
  (r"\btpu v6 ?(lite|e)\b", Peak(1.638e12, 918e12, None)),
)
PROBE_BYTES = 1 << 29  # far above any cache
PROBE_RUNS = 5


@dataclasses.dataclass(frozen=True)
class Rates:
  """Peak rates of one device.

  Attributes:
    device: its kind. dtype: of the arithmetic.
    bandwidth: bytes/s of memory. flops: FLOP/s of matrix products in `dtype`.
    bandwidth_source, flops_source: data sheet, or how it was measured.
  """

  device: str
  dtype: str
  bandwidth: float
  bandwidth_source: str
  flops: float
  flops_source: str


def known_peak(device_kind: str) -> Peak | None:
  """The data sheet's figures, or None for a device that is not in the table."""
  for pattern, peak in PEAKS:
    if re.search(pattern, device_kind.lower()):
      return peak
  return None


def device_rates(dtype: str) -> Rates:
  """The rates of the default device; measured, in a few seconds, if they are not in the table."""
  kind = jax.devices()[0].device_kind
  peak = known_peak(kind)
  bandwidth, bandwidth_source = (peak.bandwidth, "data sheet") if peak else _bandwidth()
  flops = getattr(peak, dtype) if peak else None
  if flops is not None:
    return Rates(kind, dtype, bandwidth, bandwidth_source, flops, "data sheet")
  return Rates(kind, dtype, bandwidth, bandwidth_source, _matmul_rate(dtype), "measured (matmul)")


def _bandwidth() -> tuple[float, str]:
  """The faster of a copy and a matrix–vector product, the access pattern of decoding."""
  columns = 8192
  held = [jnp.ones((PROBE_BYTES // columns // 4, columns), jnp.float32)]
  vector = jnp.ones((columns,), jnp.float32)
  product = jax.jit(lambda matrix, vector: matrix @ vector)
  read = PROBE_BYTES / _fastest(lambda: product(held[0], vector))
  # In place, since a copy into fresh memory mostly measures its allocation.
  scale = jax.jit(lambda array: array * 0.5, donate_argnums=0)

  def step() -> jax.Array:
    held[0] = scale(held[0])
    return held[0]

  copied = 2 * PROBE_BYTES / _fastest(step)
  return max((copied, "measured (copy)"), (read, "measured (matrix–vector)"))


def _matmul_rate(dtype: str) -> float:
  size = 2048 if jax.default_backend() == "cpu" else 8192
  matrix = jnp.ones((size, size), dtype)
  precision = jax.lax.Precision.HIGHEST if dtype == "float32" else None
  product = jax.jit(lambda matrix: jnp.matmul(matrix, matrix, precision=precision))
  return 2 * size**3 / _fastest(lambda: product(matrix))


def _fastest(run: Callable[[], jax.Array]) -> float:
  """Seconds of the fastest of several runs, after one that is not counted."""
  jax.block_until_ready(run())
  seconds = []
  for _ in range(PROBE_RUNS):
    begun = time.perf_counter()
    jax.block_until_ready(run())
    seconds.append(time.perf_counter() - begun)
  return min(seconds)
