"""Integers and scales of quantized matrices, as they are packed."""

import gguf
import numpy as np
import pytest
from helpers.gguf_files import quantized_bytes

from gatrec_jax.lm.folders.gguf_blocks import (
  _READERS,
  has_blocks,
  packed,
  values_of,
  words_bytes,
  words_of,
)

ROWS, COLUMNS = 5, 512


def unpacked(words):
  """[rows, blocks, 32]: the integers of `Words`, one by one."""
  each = 32 // words.bits
  places = [
    (words.words[:, place // each] >> (words.bits * (place % each))) & (2**words.bits - 1)
    for place in range(32)
  ]
  return np.stack(places, axis=-1).swapaxes(0, 1)


def test_integers_lie_in_words_from_the_lowest_bits():
  four = packed(np.arange(32, dtype=np.uint8)[None] % 16, 4)
  np.testing.assert_array_equal(four, [[0x76543210, 0xFEDCBA98 - 2**32] * 2])
  eight = packed(np.arange(32, dtype=np.uint8)[None], 8)
  np.testing.assert_array_equal(eight[0, :2], [0x03020100, 0x07060504])


def test_a_block_of_q4_1_by_hand():
  # Scale 0.5, minimum -1, then bytes whose low halves are weights 0 to 15, high ones 16 to 31.
  head = np.array([0.5, -1.0], np.float16).view(np.uint8)
  low, high = np.arange(16, dtype=np.uint8), 15 - np.arange(16, dtype=np.uint8)
  data = np.concatenate([head, low | (high << 4)])
  words = words_of(data, (1, 32), "Q4_1")
  np.testing.assert_array_equal(unpacked(words)[0, 0], [*low, *high])
  assert (words.bits, words.offset) == (4, 0) and words.multipliers is None
  assert words.scale.tolist() == [[0.5]] and words.minimum.tolist() == [[1.0]]
  expected = 0.5 * np.array([*low, *high]) - 1.0
  np.testing.assert_array_equal(values_of(data, (1, 32), "Q4_1")[0], expected)


@pytest.mark.parametrize("kind", _READERS)
def test_words_hold_what_the_package_dequantizes(kind):
  data = quantized_bytes(kind, ROWS, COLUMNS)
  shape = (ROWS, COLUMNS)
  words = words_of(data.ravel(), shape, kind)
  blocks = COLUMNS // 32
  supers = len(words.scale)
  scale = np.repeat(words.scale, blocks // supers, axis=0)[:, None]
  if words.multipliers is not None:
    scale = scale * words.multipliers.reshape(blocks, -1, ROWS)
  integers = np.moveaxis(unpacked(words), 0, -1).reshape(blocks, scale.shape[1], -1, ROWS)
  values = (integers.astype(np.float32) - words.offset) * scale[:, :, None]
  values = values.reshape(blocks, 32, ROWS)
  if words.minimum is not None:
    minimum = np.repeat(words.minimum, blocks // supers, axis=0)
    if words.minimum_multipliers is not None:
      minimum = minimum * words.minimum_multipliers
    values = values - minimum[:, None]
  expected = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[kind])
  np.testing.assert_array_equal(values.reshape(COLUMNS, ROWS).T, expected)
  arrays = [words.words, words.scale, words.multipliers, words.minimum, words.minimum_multipliers]
  size = sum(one.nbytes for one in arrays if one is not None)
  assert words_bytes(data.ravel(), shape, kind) == size


def test_rows_are_reordered_with_their_scales():
  words = words_of(quantized_bytes("Q6_K", ROWS, COLUMNS).ravel(), (ROWS, COLUMNS), "Q6_K")
  order = np.array([3, 0, 4, 1, 2])
  changed = words.reordered(order)
  np.testing.assert_array_equal(unpacked(changed), unpacked(words)[order])
  np.testing.assert_array_equal(changed.scale, words.scale[:, order])
  np.testing.assert_array_equal(changed.multipliers, words.multipliers[:, order])
  assert changed.minimum is None


def test_what_has_blocks():
  assert has_blocks((4, 64), "Q4_0") and has_blocks((4, 256), "Q6_K")
  assert not has_blocks((64,), "Q4_0") and not has_blocks((4, 64), "F16")
  assert not has_blocks((4, 256), "IQ2_XS") and not has_blocks((0, 256), "Q4_K")
