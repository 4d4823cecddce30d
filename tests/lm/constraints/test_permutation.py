"""Orderings: every answer is a permutation of a known number of tokens."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.constraints import byte_level
from helpers.scripted_decoder import scripted_model
from helpers.tiny_decoder import tiny_config, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st

from gatrec_jax.errors import InputError
from gatrec_jax.lm.constraints.choices import (
  advance,
  allowed_tokens,
  finished,
  min_tokens,
  token_trie,
)
from gatrec_jax.lm.constraints.permutation import first_state, make_ordering, order_of, stack
from gatrec_jax.lm.decoder.model import forward
from gatrec_jax.lm.inference.generate import generate
from gatrec_jax.lm.inference.sampling import Sampling
from gatrec_jax.lm.tokens.token_bytes import make_spelling, spell

V = 24
END = 23


@functools.cache
def tiny():
  """A random model of `V` tokens."""
  return tiny_model(context=64, layers=tiny_config().layers[:1])


ORDER = functools.partial(make_ordering, vocabulary=V, eos=[2])
# Stacked below the others, so that all have the same shape.
WIDEST = ORDER([[3 + n // 4, 3 + n % 4, 3, 3, END] for n in range(7)], [[7, 7]] * 7)


masks, move, ended = jax.jit(allowed_tokens), jax.jit(advance), jax.jit(finished)


@jax.jit
def step(ordering, state, noise):
  """Draws an allowed token in each row. Returns: it, how many are allowed, done, next state."""
  allowed = allowed_tokens(ordering, state, jnp.ones(len(noise), jnp.int32))
  token = jnp.argmax(jnp.where(allowed, noise, -1.0), axis=1)
  return token, allowed.sum(axis=1), finished(ordering, state), advance(ordering, state, token)


def walks(ordering, seed, count=7):
  """Random answers to an ordering of one row."""
  whole = stack([ordering] * count + [WIDEST])
  state, random = first_state(whole, count), np.random.default_rng(seed)
  tokens = [[] for _ in range(count)]
  while True:
    drawn, allowed, done, state = step(whole, state, random.random((count, V)))
    if done.all():
      assert not np.asarray(allowed).any()
      return tokens
    assert (np.asarray(allowed) > 0).tolist() == (~np.asarray(done)).tolist()
    for row in np.flatnonzero(~np.asarray(done)):
      tokens[row].append(int(drawn[row]))


def test_allowed_tokens_by_hand():
  # Texts 5 6 E, 5 7 E and 8 E, in lines that begin with 10, 11 and 12.
  texts = [[5, 6, END], [5, 7, END], [8, END]]
  ordering = stack([ORDER(texts, [[10], [11], [12]])])
  state = first_state(ordering, 1)
  wanted = [
    (10, [10]),
    (5, [5, 8]),
    (7, [6, 7]),
    (END, [END]),
    # The second text is used, so only 6 can follow 5.
    (11, [11]),
    (5, [5, 8]),
    (6, [6]),
    (END, [END]),
    (12, [12]),
    (8, [8]),
    (END, [END]),
  ]
  for token, allowed in wanted:
    mask = masks(ordering, state, np.array([99]))
    assert np.flatnonzero(np.asarray(mask)[0]).tolist() == allowed
    assert not ended(ordering, state)[0]
    state = move(ordering, state, np.array([token]))
  assert ended(ordering, state)[0]
  assert not np.asarray(masks(ordering, state, np.array([99]))).any()
  # A finished row keeps its state.
  again = move(ordering, state, np.array([5]))
  jax.tree.map(np.testing.assert_array_equal, state, again)


def test_nothing_is_allowed_after_a_forbidden_token():
  ordering = stack([ORDER([[5, 6, END], [5, 7, END], [8, END]], [[10], [11], [12]])])
  state = move(ordering, first_state(ordering, 1), np.array([7]))
  assert not np.asarray(masks(ordering, state, np.array([99]))).any()
  assert not ended(ordering, state)[0]


token_texts = st.lists(
  st.lists(st.integers(3, 6), min_size=0, max_size=4).map(tuple),
  min_size=1,
  max_size=7,
  unique=True,
)


@settings(max_examples=25, deadline=None)
@given(token_texts, st.integers(0, 2**31), st.integers(0, 2))
def test_every_walk_is_a_permutation(texts, seed, numbers):
  texts = [[*text, END] for text in texts]
  leads = [[7 + line] * numbers for line in range(len(texts))]
  ordering = ORDER(texts, leads)
  for tokens in walks(ordering, seed):
    order = order_of(ordering, tokens)
    assert sorted(order) == list(range(len(texts)))
    lines = [(*lead, *texts[place]) for lead, place in zip(leads, order, strict=True)]
    assert tokens == [token for line in lines for token in line]
    assert len(tokens) == min_tokens(ordering)


def test_all_orders_are_possible():
  texts = [[3, END], [3, 4, END], [5, END]]
  ordering = ORDER(texts)
  answers = [tokens for seed in range(10) for tokens in walks(ordering, seed)]
  seen = {tuple(order_of(ordering, tokens)) for tokens in answers}
  assert seen == set(itertools.permutations(range(3)))


def test_orderings_of_several_sizes_share_a_batch():
  parts = [
    ORDER([[3, END], [4, 5, END]], [[10], [11]]),
    ORDER([[6, END]]),
    ORDER([[3, 4, 5, 6, END], [4, END], [5, END]], [[7, 8], [8], []]),
  ]
  model = tiny()
  draw = Sampling(temperature=5.0)
  for batch_size in (1, 8):
    answers = generate(
      model,
      [[1, 3], [1], [1, 4, 5]] * 2,
      constraint=parts * 2,
      sampling=draw,
      max_tokens=20,
      batch_size=batch_size,
    )
    for answer, part in zip(answers, parts * 2, strict=True):
      assert sorted(order_of(part, answer.tokens)) == list(range(len(part.lengths[0])))
      assert len(answer.tokens) == min_tokens(part) and answer.finish == "complete"
    if batch_size == 1:
      single = [answer.tokens for answer in answers]
  assert single == [answer.tokens for answer in answers]


def test_greedy_decoding_takes_the_most_likely_allowed_token():
  model = tiny()
  texts = [[5, 6, END], [5, 7, END], [8, END], [9, 5, END]]
  ordering = ORDER(texts, [[10 + line] for line in range(4)])
  (answer,) = generate(model, [[1, 4, 6]], constraint=ordering, max_tokens=30)
  # The same with forward passes, and the allowed tokens derived from the remaining texts.
  left, tokens = dict(enumerate(texts)), []
  for line in range(4):
    tokens.append(10 + line)
    done = []
    while list(done) not in left.values():
      follow = {t[len(done)] for t in left.values() if t[: len(done)] == done}
      ids = [1, 4, 6, *tokens, *done]
      row = np.zeros((1, 32), np.int32)
      row[0, : len(ids)] = ids
      logits = np.asarray(forward(model.params, row, config=model.config))[0, len(ids) - 1]
      done.append(max(follow, key=lambda token: logits[token]))
    tokens += done
    left = {place: text for place, text in left.items() if text != done}
  assert list(answer.tokens) == tokens


def test_lines_get_their_numbers():
  tokenizer = byte_level()
  lines = {text: spell_in(tokenizer, text) for text in (": Heat\n", ": Alien\n", ": Up\n")}
  numbers = [spell_in(tokenizer, str(line)) for line in (1, 2, 3)]
  start = spell_in(tokenizer, "?")
  wanted = [": Up\n", ": Heat\n", ": Alien\n"]
  # Only the first number needs a script; the constraint forces the others.
  model = scripted_model(tokenizer, [*start, *numbers[0]], context=64, eos=(1,), bos=0)
  ordering = make_ordering(
    list(lines.values()), numbers, vocabulary=model.config.vocabulary, eos=model.eos
  )
  (answer,) = generate(model, [start], constraint=ordering, max_tokens=40)
  order = order_of(ordering, answer.tokens)
  titles = [list(lines)[place] for place in order]
  assert answer.text == "".join(f"{n}{title}" for n, title in enumerate(titles, 1))
  assert sorted(titles) == sorted(wanted)


def spell_in(tokenizer, text):
  return spell(make_spelling(tokenizer, vocabulary=len(tokenizer), eos=(2,)), text)


def test_a_budget_suffices_or_is_rejected():
  model = tiny()
  ordering = ORDER([[3, END], [4, 5, END]], [[6], [7]])
  assert min_tokens(ordering) == 7
  (answer,) = generate(model, [[1]], constraint=ordering, max_tokens=7)
  assert len(answer.tokens) == 7
  with pytest.raises(InputError, match="needs at least 7 tokens, but 6 are allowed"):
    generate(model, [[1]], constraint=ordering, max_tokens=6)
  with pytest.raises(InputError, match="needs at least 7 tokens, but 2 are allowed"):
    generate(model, [[1] * 62], constraint=ordering, max_tokens=20)


def test_bad_orderings():
  for texts, leads, message in (
    ([], [], "at least one text"),
    ([[3], []], [], "text 2 of an ordering is empty"),
    ([[3, 4], [3]], [], "text 2 of an ordering is a prefix of text 1"),
    ([[3, 4], [5], [3, 4]], [], "is a prefix of text"),
    ([[3]], [[1], [2]], "got 2 beginnings of lines for 1 texts"),
    ([[V]], [], f"contains the invalid token {V}"),
    ([[3]], [[2]], "contains the invalid token 2"),
  ):
    with pytest.raises(InputError, match=message):
      ORDER(texts, leads)
  model = tiny()
  ordering = ORDER([[3]])
  trie = token_trie([[3]], vocabulary=V, eos=model.eos)
  with pytest.raises(InputError, match="prompt 2: its constraint is not of the same kind"):
    generate(model, [[1], [1]], constraint=[ordering, trie])
  with pytest.raises(InputError, match=r"made with EOS tokens \[3\]"):
    generate(model, [[1]], constraint=make_ordering([[4]], vocabulary=V, eos=[3]))
  with pytest.raises(InputError, match="made for 25 tokens"):
    generate(model, [[1]], constraint=make_ordering([[3]], vocabulary=25, eos=[2]))
