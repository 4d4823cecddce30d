"""The integers and scales behind the quantized matrices of GGUF files.

These types cut the rows of a matrix into blocks, whose weights are evenly spaced: an integer of 4
to 8 bits each, times a scale, less a minimum. In the K types, the scales of eight blocks of 32 are
products of a number of the eight with a small integer of each block or half of it. Layouts of bytes
as in llama.cpp's ggml-common.h; the values are those of the `gguf` package, bit for bit, at several
times its speed.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

# Weights of a block, and blocks that share a scale in the K types.
BLOCK, BLOCKS = 32, 8
# Weights that are unpacked at once, so that they stay in a core's cache.
_CHUNK = 1 << 18


@dataclasses.dataclass(frozen=True)
class Blocks:
  """The rows of a matrix [R, N] in blocks of 32: scale · (integer − offset) − minimum.

  Attributes:
    integers: [R, N / 32, 32] uint8, below 2^bits. bits: 4 or 8. offset: that is taken off.
    scale: [R, S] float32, of each block or of eight.
    multipliers: [R, N / 32] or [R, N / 16] int8, by which the scales of blocks or of their halves
      are multiplied; None where they are not.
    minimum: [R, S] float32; None for 0. minimum_multipliers: [R, N / 32] int8 or None.
  """

  integers: np.ndarray
  bits: int
  offset: int
  scale: np.ndarray
  multipliers: np.ndarray | None = None
  minimum: np.ndarray | None = None
  minimum_multipliers: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Words:
  """The same of a whole matrix [R, N], in 32-bit words, with the rows last.

  Attributes:
    words: [N / 32, bits, R] int32: the integers of a block, in order, from the lowest bits of each
      word.
    bits, offset: as in `Blocks`.
    scale, multipliers, minimum, minimum_multipliers: as there, transposed.
  """

  words: np.ndarray
  bits: int
  offset: int
  scale: np.ndarray
  multipliers: np.ndarray | None
  minimum: np.ndarray | None
  minimum_multipliers: np.ndarray | None

  def reordered(self, rows: np.ndarray) -> Words:
    """The matrix with its rows in another order. Args: rows: [R] int."""
    arrays = ("words", "scale", "multipliers", "minimum", "minimum_multipliers")
    found = {name: getattr(self, name) for name in arrays}
    return dataclasses.replace(
      self, **{name: one[..., rows] for name, one in found.items() if one is not None}
    )


def has_blocks(shape: tuple[int, ...], kind: str) -> bool:
  """Whether a tensor can be read here: a matrix of a type whose weights are evenly spaced."""
  return len(shape) == 2 and math.prod(shape) > 0 and kind in _READERS


def values_of(data: np.ndarray, shape: tuple[int, int], kind: str) -> np.ndarray:
  """The values [R, N] float32 of a matrix that `has_blocks`. Args: data: [bytes] uint8."""
  found = np.empty(shape, np.float32)

  def fill(within: slice, part: Blocks) -> None:
    values = found[within].reshape(*part.integers.shape)
    values[:] = part.integers
    if part.offset:
      values -= part.offset
    rows, blocks, _ = values.shape
    supers = part.scale.shape[1]
    scale = part.scale[:, :, None]
    if part.multipliers is not None:
      scale = scale * part.multipliers.reshape(rows, supers, -1)
    own = values.reshape(rows, *scale.shape[1:], -1)
    own *= scale[..., None]
    if part.minimum is not None:
      minimum = part.minimum[:, :, None]
      if part.minimum_multipliers is not None:
        minimum = minimum * part.minimum_multipliers.reshape(rows, supers, -1)
      own = values.reshape(rows, *minimum.shape[1:], -1)
      own -= minimum[..., None]

  _by_chunks(data, shape, kind, fill)
  return found


def words_of(data: np.ndarray, shape: tuple[int, int], kind: str) -> Words:
  """Repacks a matrix that `has_blocks`. Args: data: [bytes] uint8."""
  rows, columns = shape
  first = _READERS[kind](data.reshape(rows, -1)[:1])

  def room(one: np.ndarray | None) -> np.ndarray | None:
    return None if one is None else np.empty((*one.shape[1:], rows), one.dtype)

  whole = Words(
    np.empty((columns // BLOCK, first.bits, rows), np.int32),
    first.bits,
    first.offset,
    *map(room, (first.scale, first.multipliers, first.minimum, first.minimum_multipliers)),
  )

  def fill(within: slice, part: Blocks) -> None:
    whole.words[..., within] = np.moveaxis(packed(part.integers, part.bits), 0, -1)
    for name in ("scale", "multipliers", "minimum", "minimum_multipliers"):
      if (target := getattr(whole, name)) is not None:
        target[:, within] = getattr(part, name).T

  _by_chunks(data, shape, kind, fill)
  return whole


def _by_chunks(
  data: np.ndarray, shape: tuple[int, int], kind: str, fill: Callable[[slice, Blocks], None]
) -> None:
  """Reads some rows after the others, each chunk in one of as many threads as there are cores."""
  rows, columns = shape
  raw = data.reshape(rows, -1)
  step = max(1, _CHUNK // columns)

  def one(start: int) -> None:
    within = slice(start, min(start + step, rows))
    fill(within, _READERS[kind](raw[within]))

  with ThreadPoolExecutor(os.cpu_count()) as pool:
    list(pool.map(one, range(0, rows, step)))


def packed(integers: np.ndarray, bits: int) -> np.ndarray:
  """[…, 32] uint8 below 2^bits as […, bits] int32. Args: bits: 4 or 8."""
  if bits == 4:
    pairs = integers.view("<u2")
    integers = (pairs | (pairs >> 4)).astype(np.uint8)
  return np.ascontiguousarray(integers).view("<i4")


def _numbers(raw: np.ndarray) -> np.ndarray:
  """[R, B, 2] bytes, a float16 each, as [R, B] float32."""
  return np.ascontiguousarray(raw).view("<f2")[..., 0].astype(np.float32)


def _nibbles(raw: np.ndarray) -> np.ndarray:
  """[…, n] bytes as […, 2, n]: the low halves, then the high ones."""
  out = np.empty((*raw.shape[:-1], 2, raw.shape[-1]), np.uint8)
  np.bitwise_and(raw, 15, out=out[..., 0, :])
  np.right_shift(raw, 4, out=out[..., 1, :])
  return out


def _blocks(raw: np.ndarray, size: int) -> np.ndarray:
  """[R, bytes] as [R, B, size]."""
  return raw.reshape(len(raw), -1, size)


def _in_blocks(integers: np.ndarray) -> np.ndarray:
  return integers.reshape(len(integers), -1, BLOCK)


def _q4_0(raw: np.ndarray) -> Blocks:
  raw = _blocks(raw, 18)
  return Blocks(_in_blocks(_nibbles(raw[..., 2:])), 4, 8, _numbers(raw[..., :2]))


def _q4_1(raw: np.ndarray) -> Blocks:
  raw = _blocks(raw, 20)
  integers = _in_blocks(_nibbles(raw[..., 4:]))
  return Blocks(integers, 4, 0, _numbers(raw[..., :2]), minimum=-_numbers(raw[..., 2:4]))


def _fifth_bits(raw: np.ndarray) -> np.ndarray:
  """[R, B, 4] bytes, a bit for each weight, as [R, B, 32] of 0 or 16."""
  return np.unpackbits(raw, axis=-1, bitorder="little") << 4


def _q5_0(raw: np.ndarray) -> Blocks:
  raw = _blocks(raw, 22)
  integers = _in_blocks(_nibbles(raw[..., 6:])) | _fifth_bits(raw[..., 2:6])
  return Blocks(integers, 8, 16, _numbers(raw[..., :2]))


def _q5_1(raw: np.ndarray) -> Blocks:
  raw = _blocks(raw, 24)
  integers = _in_blocks(_nibbles(raw[..., 8:])) | _fifth_bits(raw[..., 4:8])
  return Blocks(integers, 8, 0, _numbers(raw[..., :2]), minimum=-_numbers(raw[..., 2:4]))


def _q8_0(raw: np.ndarray) -> Blocks:
  raw = _blocks(raw, 34)
  # Flipping the highest bit of a signed number adds 128 to it.
  return Blocks(raw[..., 2:] ^ np.uint8(128), 8, 128, _numbers(raw[..., :2]))


def _multipliers(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """[R, B, 12] bytes as two times [R, 8 B] int8, of scales and minima, 6 bits each."""
  low, middle, high = (raw[..., 4 * part : 4 * part + 4] for part in range(3))
  scale = np.concatenate([low & 63, (high & 15) | ((low >> 2) & 48)], axis=-1)
  minimum = np.concatenate([middle & 63, (high >> 4) | ((middle >> 2) & 48)], axis=-1)
  shape = (len(raw), -1)
  return scale.astype(np.int8).reshape(shape), minimum.astype(np.int8).reshape(shape)


def _q4_k(raw: np.ndarray) -> Blocks:
  raw = _blocks(raw, 144)
  integers = _nibbles(raw[..., 16:].reshape(*raw.shape[:2], 4, 32))
  return _k_blocks(raw, integers, bits=4)


def _q5_k(raw: np.ndarray) -> Blocks:
  raw = _blocks(raw, 176)
  integers = _nibbles(raw[..., 48:].reshape(*raw.shape[:2], 4, 32))
  high = raw[..., None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None] & 1
  return _k_blocks(raw, integers | (high << 4).reshape(integers.shape), bits=8)


def _k_blocks(raw: np.ndarray, integers: np.ndarray, *, bits: int) -> Blocks:
  multipliers, minima = _multipliers(raw[..., 4:16])
  scale, minimum = _numbers(raw[..., :2]), _numbers(raw[..., 2:4])
  return Blocks(_in_blocks(integers), bits, 0, scale, multipliers, minimum, minima)


def _q6_k(raw: np.ndarray) -> Blocks:
  raw = _blocks(raw, 210)
  # Of each half of the 256 weights: 64 bytes of low bits, 32 of high ones.
  low = _nibbles(raw[..., :128].reshape(*raw.shape[:2], 2, 64))
  pairs = raw[..., 128:192].reshape(*raw.shape[:2], 2, 1, 32)
  high = pairs >> np.arange(0, 8, 2, dtype=np.uint8)[:, None] & 3
  integers = low.reshape(high.shape) | (high << 4)
  multipliers = raw[..., 192:208].view(np.int8).reshape(len(raw), -1)
  return Blocks(_in_blocks(integers), 8, 32, _numbers(raw[..., 208:]), multipliers)


_READERS: dict[str, Callable[[np.ndarray], Blocks]] = {
  "Q4_0": _q4_0,
  "Q4_1": _q4_1,
  "Q5_0": _q5_0,
  "Q5_1": _q5_1,
  "Q8_0": _q8_0,
  "Q4_K": _q4_k,
  "Q5_K": _q5_k,
  "Q6_K": _q6_k,
}


def words_bytes(data: np.ndarray, shape: tuple[int, int], kind: str) -> int:
  """The size of the `Words` of a matrix, without making them. Arguments as in `words_of`."""
  rows, columns = shape
  one = _READERS[kind](data.reshape(rows, -1)[:1])
  arrays = (one.scale, one.multipliers, one.minimum, one.minimum_multipliers)
  extra = sum(array.nbytes for array in arrays if array is not None)
  return rows * (math.ceil(columns * one.bits / 8) + extra)
