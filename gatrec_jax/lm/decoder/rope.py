"""Rotary position embeddings (Su et al. 2021) and published context extensions of them."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

ROPE_KINDS = ("default", "linear", "llama3", "yarn")


@dataclasses.dataclass(frozen=True)
class Rope:
  """How positions rotate queries and keys.

  Attributes:
    kind: one of `ROPE_KINDS`.
    theta: base of the wavelengths.
    factor: by how much the context is extended.
    original_context: positions seen in pre-training (llama3, yarn).
    low_frequency, high_frequency: llama3: wavelengths above original_context / low_frequency are
      extended, those below original_context / high_frequency are kept.
    beta_fast, beta_slow, truncate: yarn: rotations within the original context between which the
      extension sets in, and whether these bounds are rounded to whole dimensions.
    attention_factor: multiplies cosines and sines (yarn).
  """

  kind: str = "default"
  theta: float = 10_000.0
  factor: float = 1.0
  original_context: int = 0
  low_frequency: float = 1.0
  high_frequency: float = 4.0
  beta_fast: float = 32.0
  beta_slow: float = 1.0
  truncate: bool = True
  attention_factor: float = 1.0


def inverse_frequencies(rope: Rope, size: int) -> np.ndarray:
  """Rotation angle per position for each pair of dimensions.

  Args: rope: the embedding's settings. size: d, the even number of dimensions of a head.
  Returns: [d / 2] float32.
  """
  exponent = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
  plain = (1.0 / np.float32(rope.theta) ** exponent).astype(np.float32)
  if rope.kind == "default":
    return plain
  if rope.kind == "linear":
    return plain / np.float32(rope.factor)
  if rope.kind == "llama3":
    return _llama3(rope, plain)
  if rope.kind == "yarn":
    return _yarn(rope, plain, size)
  raise ValueError(f"rope kind {rope.kind!r} is not one of {', '.join(ROPE_KINDS)}")


def _llama3(rope: Rope, plain: np.ndarray) -> np.ndarray:
  """Llama 3.1: extends long wavelengths, keeps short ones, interpolates in between."""
  wavelength = 2 * math.pi / plain
  turns = rope.original_context / wavelength
  span = rope.high_frequency - rope.low_frequency
  kept = np.clip((turns - rope.low_frequency) / span, 0.0, 1.0)
  return (kept * plain + (1 - kept) * plain / rope.factor).astype(np.float32)


def _yarn(rope: Rope, plain: np.ndarray, size: int) -> np.ndarray:
  """YaRN (Peng et al. 2023, eq. 23): interpolates by a linear ramp over dimensions."""

  def dimension(turns: float) -> float:
    ratio = rope.original_context / (turns * 2 * math.pi)
    return size * math.log(ratio) / (2 * math.log(rope.theta))

  low, high = dimension(rope.beta_fast), dimension(rope.beta_slow)
  if rope.truncate:
    low, high = math.floor(low), math.ceil(high)
  low, high = max(low, 0), min(high, size - 1)
  if low == high:
    high += 0.001
  ramp = np.clip((np.arange(size // 2, dtype=np.float32) - low) / (high - low), 0.0, 1.0)
  return (plain * (1 - ramp) + plain / rope.factor * ramp).astype(np.float32)


def yarn_attention_factor(factor: float, mscale: float = 0.0, mscale_all: float = 0.0) -> float:
  """Default attention factor of a yarn configuration (Peng et al. 2023, eq. 22)."""

  def scale(weight: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

  return scale(mscale) / scale(mscale_all) if mscale and mscale_all else scale(1.0)


def rotations(rope: Rope, positions: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
  """Cosines and sines of the rotation angles of every position.

  Args: rope: the embedding's settings. positions: [B, T] int. size: d of a head.
  Returns: two [B, T, 1, d / 2] float32 arrays.
  """
  angles = positions[..., None, None].astype(jnp.float32) * inverse_frequencies(rope, size)
  return jnp.cos(angles) * rope.attention_factor, jnp.sin(angles) * rope.attention_factor


def rotate(heads: jax.Array, rotation: tuple[jax.Array, jax.Array]) -> jax.Array:
  """Rotates the pairs (i, i + d / 2) of every head, the layout of Hugging Face weights.

  Args: heads: [B, T, H, d]. rotation: from `rotations`.
  Returns: the same shape and dtype.
  """
  cosine, sine = rotation
  first, second = jnp.split(heads.astype(jnp.float32), 2, axis=-1)
  turned = jnp.concatenate(
    [first * cosine - second * sine, second * cosine + first * sine], axis=-1
  )
  return turned.astype(heads.dtype)
