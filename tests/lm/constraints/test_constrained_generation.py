"""Thousands of constrained answers of a model with random weights, through `generate`."""

import collections
import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.constraints import byte_level
from helpers.tiny_decoder import tiny_config, tiny_model
from scipy import stats

from gatrec_jax.lm.constraints.choices import choices, token_trie
from gatrec_jax.lm.constraints.json_schema import json_schema
from gatrec_jax.lm.decoder.model import forward
from gatrec_jax.lm.inference.generate import generate
from gatrec_jax.lm.inference.sampling import Sampling

DRAW = Sampling(temperature=1.0)
TITLES = [
  " Heat",
  " Heat 2",
  " Alien",
  " Aliens",
  " Amélie",
  " 東京物語",
  " The Thing",
  " The Third Man",
  " Yes",
  " No, or the Vain Glory",
  ' "Quoted"',
  " Se7en",
]
SCHEMA = {
  "type": "object",
  "properties": {
    "genre": {"enum": ["drama", "comedy", "crime thriller"]},
    "score": {"type": "integer", "minimum": 0, "maximum": 100},
    "tags": {
      "type": "array",
      "items": {"type": "string", "maxLength": 6},
      "minItems": 0,
      "maxItems": 2,
    },
    "seen": {"type": "boolean"},
  },
}


@pytest.fixture(scope="module")
def model():
  tokenizer = byte_level()
  fields = {"vocabulary": len(tokenizer) + 4, "context": 96, "bos": 0, "eos": (1,)}
  drawn = tiny_model(layers=tiny_config().layers[:1], **fields)
  return dataclasses.replace(drawn, tokenizer=tokenizer)


def answers(model, constraint, count, *, max_tokens, sampling=DRAW):
  return generate(
    model,
    [[0, 5, 7]] * count,
    max_tokens=max_tokens,
    sampling=sampling,
    constraint=constraint,
    batch_size=1024,
  )


def test_all_answers_are_in_the_list_and_every_title_occurs(model):
  bound = {"vocabulary": model.config.vocabulary, "eos": model.eos}
  automaton = choices(model.tokenizer, TITLES, **bound)
  # Hot enough that the rarest title is drawn too.
  found = answers(model, automaton, 2048, max_tokens=32, sampling=Sampling(temperature=8.0))
  counts = collections.Counter(answer.text for answer in found)
  assert set(counts) == set(TITLES)
  assert {answer.finish for answer in found} == {"complete"}


def test_all_records_fit_the_schema(model):
  bound = {"vocabulary": model.config.vocabulary, "eos": model.eos}
  automaton = json_schema(model.tokenizer, SCHEMA, **bound)
  scores, genres, tags = set(), set(), set()
  for answer in answers(model, automaton, 1024, max_tokens=80, sampling=Sampling(temperature=4.0)):
    record = json.loads(answer.text)
    assert list(record) == list(SCHEMA["properties"]), answer.text
    assert record["genre"] in SCHEMA["properties"]["genre"]["enum"]
    assert type(record["score"]) is int and 0 <= record["score"] <= 100
    assert len(record["tags"]) <= 2 and type(record["seen"]) is bool
    assert all(isinstance(tag, str) and 1 <= len(tag) <= 6 for tag in record["tags"])
    assert answer.finish == "complete"
    scores.add(record["score"])
    genres.add(record["genre"])
    tags.add(len(record["tags"]))
  assert len(genres) == 3 and tags == {0, 1, 2} and {0, 100} <= scores and len(scores) > 75


def test_frequencies_on_a_small_trie_are_the_probabilities_of_the_model(model):
  leaves = [(9,), (9, 30), (9, 31, 32), (9, 31, 33), (40, 41), (40, 42), (43,)]
  eos = model.eos[0]
  automaton = token_trie(leaves, vocabulary=model.config.vocabulary, eos=model.eos)
  wanted = np.array([probability(model, leaf, leaves, eos) for leaf in leaves])
  assert wanted.sum() == pytest.approx(1, abs=1e-5)
  count = 4096
  drawn = collections.Counter(a.tokens for a in answers(model, automaton, count, max_tokens=4))
  assert set(drawn) <= set(leaves)
  expected = wanted * count
  assert expected.min() > 5
  observed = np.array([drawn[leaf] for leaf in leaves])
  assert stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 1e-3


def probability(model, leaf, leaves, eos):
  """Probability of a leaf: the product of softmaxes over the allowed tokens, EOS included."""
  total, prompt = 1.0, [0, 5, 7]
  padded = jnp.zeros((1, 8), jnp.int32).at[0, : len(prompt) + len(leaf)].set([*prompt, *leaf])
  logits = np.asarray(forward(model.params, padded, config=model.config)[0], np.float64)
  for place in range(len(leaf) + 1):
    before = leaf[:place]
    follow = {other[place] for other in leaves if other[:place] == before and len(other) > place}
    if before in leaves:
      if not follow:
        break
      follow = follow | {eos}
    chosen = leaf[place] if place < len(leaf) else eos
    row = logits[len(prompt) + place - 1]
    total *= np.exp(row[chosen]) / sum(np.exp(row[token]) for token in follow)
  return float(total)


def test_each_prompt_can_have_its_own_constraint(model):
  bound = {"vocabulary": model.config.vocabulary, "eos": model.eos}
  each = [choices(model.tokenizer, [title, title + "!"], **bound) for title in TITLES]
  found = generate(
    model, [[0]] * len(each), max_tokens=32, sampling=DRAW, constraint=each, batch_size=16
  )
  for title, answer in zip(TITLES, found, strict=True):
    assert answer.text in (title, title + "!")
