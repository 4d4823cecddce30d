"""The lexical encoder: deterministic, plausible, and usable with few texts."""

import os
import subprocess
import sys

import numpy as np
import pytest

from gatrec_jax.errors import InputError
from gatrec_jax.profiles.lexical import encode_lexical, fit_lexical, load_lexical, save_lexical

TOPICS = {
  "space": "rocket orbit astronaut moon station gravity planet launch crew signal".split(),
  "crime": "detective murder witness police trial gang heist alibi verdict clue".split(),
  "love": "wedding romance kiss heartbreak bride letter summer dance reunion bouquet".split(),
}


def corpus(count=60, seed=0):
  random = np.random.default_rng(seed)
  topics = [list(TOPICS)[i % 3] for i in range(count)]
  return [" ".join(random.choice(TOPICS[topic], 12)) for topic in topics], topics


def test_same_topic_is_nearer():
  texts, topics = corpus()
  vectors = encode_lexical(fit_lexical(texts, dim=8), texts)
  assert vectors.dtype == np.float32
  np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
  cosines = vectors @ vectors.T
  same = np.array(topics)[:, None] == np.array(topics)[None, :]
  assert cosines[same].mean() > 0.5 > cosines[~same].mean() + 0.3


def test_unseen_and_unknown_texts():
  texts, _ = corpus()
  encoder = fit_lexical(texts, dim=8)
  vectors = encode_lexical(encoder, ["The astronaut and the rocket", "zzz", "", texts[0]])
  assert not vectors[1].any() and not vectors[2].any()
  np.testing.assert_array_equal(vectors[3], encode_lexical(encoder, texts)[0])
  assert vectors[0] @ vectors[3] > 0.5  # texts[0] is about space


def test_equal_to_the_byte_in_another_process():
  """Even with another hash seed, which changes the order of Python's sets."""
  program = (
    "import sys; sys.path.insert(0, sys.argv[1]); import test_lexical as t\n"
    "print(t.fit_lexical(t.corpus()[0], dim=8).content_hash)\n"
  )
  command = [sys.executable, "-c", program, str(__import__("pathlib").Path(__file__).parent)]
  hashes = {
    subprocess.run(
      command,
      check=True,
      capture_output=True,
      text=True,
      env=os.environ | {"PYTHONHASHSEED": seed},
      timeout=60,
    ).stdout
    for seed in ("1", "2")
  }
  assert hashes == {fit_lexical(corpus()[0], dim=8).content_hash + "\n"}


@pytest.mark.parametrize(
  "texts", [["one film"], ["a film", "a film"], ["alpha", "beta", "gamma"], ["the", "film", ""]]
)
def test_few_texts_shrink_the_dimension(texts):
  encoder = fit_lexical(texts, dim=128)
  vectors = encode_lexical(encoder, texts)
  assert 1 <= encoder.dimension <= len(texts)
  assert vectors.shape == (len(texts), encoder.dimension)
  assert np.isfinite(vectors).all()


def test_both_solvers_agree():
  texts, _ = corpus()
  few = fit_lexical(texts, dim=6)  # ARPACK
  many = fit_lexical(texts, dim=60)  # dense
  np.testing.assert_allclose(few.components, many.components[:, :6], atol=1e-8)


def test_terms_and_weights_by_hand():
  """A stop word parts a pair; terms in one text alone, "car red" and "blue bus", do not count."""
  texts = ["red car", "Red car, red", "blue bus", "blue of bus"]
  encoder = fit_lexical(texts)
  assert encoder.vocabulary == {"blue": 0, "bus": 1, "car": 2, "red": 3, "red car": 4}
  np.testing.assert_allclose(encoder.weights, np.log(5 / 3) + 1)
  vectors = encode_lexical(encoder, [*texts, "blue car", "unknown"])
  twice = 1 + np.log(2)
  both = (2 + twice) / np.sqrt(3 * (2 + twice**2))
  np.testing.assert_allclose((vectors @ vectors.T)[0, :4], [1, both, 0, 0], atol=1e-6)
  np.testing.assert_allclose(vectors[2], vectors[3], atol=1e-6)
  assert vectors[4] @ vectors[0] > 0.1 and vectors[4] @ vectors[2] > 0.1
  assert not vectors[5].any()


def test_the_most_frequent_terms_are_kept():
  texts = ["red car", "red car", "red bus", "blue"]
  assert list(fit_lexical(texts, max_share=1, max_terms=2).vocabulary) == ["car", "red"]


def test_fewer_kinds_of_texts_than_directions():
  texts = corpus(3)[0] * 20
  encoder = fit_lexical(texts, dim=8)  # ARPACK, which meets an invariant subspace
  assert encoder.dimension == 3
  np.testing.assert_allclose(encoder.components.T @ encoder.components, np.eye(3), atol=1e-9)


def test_no_words_at_all():
  with pytest.raises(InputError, match="contain no words"):
    fit_lexical(["", "the of and", "…"])
  with pytest.raises(InputError, match="contain no words"):
    fit_lexical([])


def test_saved_and_loaded(tmp_path):
  texts, _ = corpus()
  encoder = fit_lexical(texts, dim=8)
  save_lexical(encoder, tmp_path)
  loaded = load_lexical(tmp_path)
  assert loaded.content_hash == encoder.content_hash
  np.testing.assert_array_equal(encode_lexical(loaded, texts), encode_lexical(encoder, texts))
  assert sorted(p.name for p in tmp_path.iterdir()) == ["lexical.npz", "vocabulary.json"]
  (tmp_path / "lexical.npz").write_bytes(b"damaged")
  with pytest.raises(InputError, match="no readable lexical encoder"):
    load_lexical(tmp_path)
