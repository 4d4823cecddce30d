"""8-bit weights: errors of weights, of logits, and on the real stories model."""

import functools

import jax
import numpy as np
import pytest
from helpers.paths import DECODER_GOLDENS as GOLDENS
from helpers.paths import STORIES
from helpers.tiny_decoder import leaves_by_path
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from gatrec_jax.lm.decoder.model import forward
from gatrec_jax.lm.decoder.quantize import quantize_array, quantize_params, quantized_paths
from gatrec_jax.lm.folders.load import load_decoder, weight_bytes
from gatrec_jax.lm.inference.generate import generate
from gatrec_jax.lm.inference.sampling import Sampling

# One with tied embeddings, one with an output head and biases.
NAMES = ("gemma2", "llama_linear")


@functools.cache
def load(name, quantize="none", dtype="float32"):
  return load_decoder(GOLDENS / name, quantize=quantize, dtype=dtype)


# Magnitudes of real weights; scales of smaller ones would lose bits.
ENTRIES = st.floats(-1e6, 1e6, width=32).map(lambda x: 0.0 if abs(x) < 1e-30 else x)


@given(
  arrays_of.arrays(
    np.float32, arrays_of.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=ENTRIES
  )
)
@settings(max_examples=100, deadline=None)
def test_every_entry_is_within_half_a_scale(matrix):
  values, scales = quantize_array(matrix)
  assert values.dtype == np.int8 and scales.dtype == np.float32
  assert values.shape == matrix.shape and scales.shape == matrix.shape[:1]
  np.testing.assert_array_equal(scales, np.abs(matrix).max(axis=1) / np.float32(127))
  back = values.astype(np.float64) * scales[:, None]
  # Half a scale plus the rounding of the scale itself.
  assert (np.abs(back - matrix) <= scales[:, None] * (0.5 + 1e-4)).all()
  largest = np.abs(values.astype(int)).max(axis=1)
  assert (largest[scales > 0] == 127).all()


def test_rows_of_zeros_and_halves():
  values, scales = quantize_array(np.array([[0, 0, 0], [127, -127, 63.4], [0, 1, -0.25]]))
  np.testing.assert_array_equal(values, [[0, 0, 0], [127, -127, 63], [0, 127, -32]])
  np.testing.assert_allclose(scales, [0, 1, 1 / 127])
  assert (values[0] == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_loading_quantizes_like_quantize_params(name):
  plain, small = load(name), load(name, "int8")
  expected = leaves_by_path(quantize_params(plain.params))
  found = leaves_by_path(small.params)
  assert found.keys() == expected.keys()
  for path, leaf in found.items():
    assert leaf.dtype == expected[path].dtype, path
    np.testing.assert_array_equal(leaf, expected[path], err_msg=path)
  quantized = {path for path in found if path.endswith("kernel_int8")}
  assert len(quantized) == len(quantized_paths(plain.config))
  assert all(found[path].dtype == np.int8 for path in quantized)
  # Norms, biases, embedding and head remain in float32.
  left = {path for path in found.keys() - quantized if not path.startswith(("embed/", "head/"))}
  assert {path.rsplit("/", 1)[1] for path in left} <= {"kernel_scale", "scale", "bias"}
  assert small.parameters == plain.parameters
  for model, quantize in ((plain, "none"), (small, "int8")):
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(model.params))
    assert weight_bytes(model.config, dtype="float32", quantize=quantize) == size


def mean_divergence(exact, other):
  """Mean KL divergence in nats between rows of logits, and top-1 agreement."""
  exact, other = (np.asarray(jax.nn.log_softmax(rows, axis=-1)) for rows in (exact, other))
  divergence = (np.exp(exact) * (exact - other)).sum(axis=-1).mean()
  return float(divergence), float((exact.argmax(axis=-1) == other.argmax(axis=-1)).mean())


def rows_of_logits(model, tokens, lengths):
  logits = np.asarray(forward(model.params, tokens, config=model.config, lengths=lengths))
  return np.concatenate([row[:n] for row, n in zip(logits, lengths, strict=True)])


@pytest.mark.parametrize("dtype", ("float32", "bfloat16"))
@pytest.mark.parametrize("name", NAMES)
def test_logits_are_close(name, dtype):
  with np.load(GOLDENS / name / "golden.npz", allow_pickle=False) as golden:
    tokens, lengths, exact = golden["tokens"], golden["lengths"], golden["logits"]
  exact = np.concatenate([row[:n] for row, n in zip(exact, lengths, strict=True)])
  small = load(name, "int8", dtype)
  logits = rows_of_logits(small, tokens, lengths)
  assert logits.dtype == np.float32
  error = (logits - exact).std() / exact.std()
  assert 1e-4 < error < (0.03 if dtype == "float32" else 0.06)


def test_generation_equals_full_passes():
  small = load("llama_linear", "int8")
  (answer,) = generate(small, [[1, 5, 9]], max_tokens=8)
  row = np.array([[1, 5, 9, *answer.tokens]], np.int32)
  best = np.asarray(forward(small.params, row, config=small.config)).argmax(axis=-1)[0]
  assert tuple(best[2:-1].tolist()) == answer.tokens


def test_stories_stay_nearly_the_same():
  if not STORIES.is_dir():
    pytest.skip(f"{STORIES} is not here")
  model, small = load_decoder(STORIES), load_decoder(STORIES, quantize="int8")
  prompts = ["", "Tom had a dog", "Sara and Ben liked to", "It was late. The moon"]
  answers = generate(model, prompts, max_tokens=400, sampling=Sampling(temperature=0.8), seed=1)
  rows = []
  for prompt, answer in zip(prompts, answers, strict=True):
    ids = model.tokenizer.encode(prompt) if prompt else [model.bos]
    rows.append([*ids, *answer.tokens])
  lengths = np.array(list(map(len, rows)), np.int32)
  tokens = np.zeros((len(rows), lengths.max()), np.int32)
  for place, row in enumerate(rows):
    tokens[place, : len(row)] = row
  assert lengths.sum() > 1200
  divergence, agreement = mean_divergence(
    rows_of_logits(model, tokens, lengths), rows_of_logits(small, tokens, lengths)
  )
  print(f"{lengths.sum()} positions: KL {divergence:.2e} nats, top-1 agreement {agreement:.2%}")
  assert 0 < divergence <= 0.01
  assert agreement >= 0.99
