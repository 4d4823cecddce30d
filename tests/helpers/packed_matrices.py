"""Packed matrices with any contents."""

import numpy as np
from helpers.gguf_files import quantized_bytes

from gatrec_jax.lm.decoder.packed import packed_words
from gatrec_jax.lm.folders.gguf_blocks import values_of, words_of

OUT, IN = 72, 512


def matrix_of(kind, out=OUT):
  """A packed matrix of a type, and its values [out, in]."""
  data = quantized_bytes(kind, out, IN).ravel()
  words = words_of(data, (out, IN), kind)
  return packed_words(words), values_of(data, (out, IN), kind)


def inputs(*shape):
  return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def assert_close(found, expected):
  np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.abs(expected).max())
