"""Token tries and unions on the device: masks solved by hand, frequencies, budgets."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import constraints as helpers
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from gatrec_jax.errors import InputError
from gatrec_jax.lm.constraints.automaton import SINK, Builder, tokens_needed
from gatrec_jax.lm.constraints.choices import (
  START,
  State,
  accepting,
  accepts,
  advance,
  allowed_tokens,
  choices,
  finished,
  min_tokens,
  start_state,
  token_trie,
  union,
)
from gatrec_jax.lm.tokens.token_bytes import token_bytes, write

EOS = 9
# One is a prefix of two others; one branch is long.
SEQUENCES = ((1, 2), (1, 2, 3), (1, 2, 4), (1, 5), (6,), (7, 8, 1, 1))
masks = jax.jit(allowed_tokens)
move = jax.jit(advance)


def trie(sequences=SEQUENCES, vocabulary=10, eos=(EOS,)):
  return token_trie(sequences, vocabulary=vocabulary, eos=eos)


def allowed_after(automaton, prefix, remaining, start=START):
  state = start_state(np.int32([start]))
  for token in prefix:
    state = move(automaton, state, np.int32([token]))
  return set(np.flatnonzero(masks(automaton, state, np.int32([remaining]))[0]).tolist())


def reference(sequences, prefix, remaining, eos):
  """The allowed tokens by definition."""
  prefix = tuple(prefix)
  longer = [row for row in sequences if row[: len(prefix)] == prefix and len(row) > len(prefix)]
  allowed = {row[len(prefix)] for row in longer if len(row) - len(prefix) <= remaining}
  return allowed | (set(eos) if prefix in sequences and longer and remaining > 0 else set())


def test_masks_solved_by_hand():
  automaton = trie()
  assert allowed_after(automaton, [], 9) == {1, 6, 7}
  assert allowed_after(automaton, [1], 9) == {2, 5}
  assert allowed_after(automaton, [1, 2], 9) == {3, 4, EOS}
  assert allowed_after(automaton, [7, 8], 9) == {1}
  assert allowed_after(automaton, [1, 5], 9) == set()
  assert min_tokens(automaton) == 1
  assert min_tokens(trie([(1, 2, 3), (1, 2, 4, 5)])) == 3


def test_budget_solved_by_hand():
  automaton = trie()
  assert allowed_after(automaton, [], 0) == set()
  assert allowed_after(automaton, [], 1) == {6}
  assert allowed_after(automaton, [], 2) == {1, 6}
  assert allowed_after(automaton, [], 3) == {1, 6}
  assert allowed_after(automaton, [], 4) == {1, 6, 7}
  assert allowed_after(automaton, [1, 2], 1) == {3, 4, EOS}


def test_ends_and_the_sink():
  automaton = trie()
  state = start_state(np.full(4, START, np.int32))
  for tokens in ([1, 1, 6, 7], [2, 2, 3, 0], [EOS, 3, 3, 8]):
    state = move(automaton, state, np.int32(tokens))
  assert finished(automaton, state).tolist() == [True, True, True, True]
  assert accepting(automaton, state).tolist() == [True, True, True, False]
  assert state.node[3] == SINK
  assert not masks(automaton, state, np.full(4, 9)).any()
  again = move(automaton, state, np.int32([1, 2, 3, 4]))
  assert again.node.tolist() == state.node.tolist()


@pytest.mark.parametrize("token", [EOS, 0, -1, 10, 10_000])
def test_tokens_that_are_not_allowed_end_the_row(token):
  state = move(trie(), start_state(np.int32([START])), np.int32([token]))
  assert state.node.tolist() == [SINK]
  assert finished(trie(), state).all() and not accepting(trie(), state).any()
  wide = trie([(token,) for token in range(1, 60)], vocabulary=61, eos=[60])
  assert wide.next_dense.shape[0] == 1
  outside = np.int32([token if token < 0 else 0 if token == EOS else token + 61])
  assert move(wide, start_state(np.int32([START])), outside).node.tolist() == [SINK]


@given(
  sequences=st.sets(
    st.lists(st.integers(0, 60), min_size=1, max_size=4).map(tuple), min_size=1, max_size=8
  ),
  wide=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_masks_equal_the_definition(sequences, wide):
  if wide:
    sequences = sequences | {(token, 5) for token in range(0, 60)}
  automaton = trie(list(sequences), vocabulary=64, eos=[62, 63])
  assert automaton.next_dense.shape[0] == wide
  prefixes = sorted({row[:cut] for row in sequences for cut in range(len(row))})
  prefixes = (prefixes + [()] * 128)[:128]
  state = start_state(np.full(128, START, np.int32))
  for place in range(4):
    tokens = np.int32([row[place] if place < len(row) else 0 for row in prefixes])
    going = np.array([place < len(row) for row in prefixes])
    moved = move(automaton, state, tokens)
    state = jax.tree.map(lambda new, old, going=going: jnp.where(going, new, old), moved, state)
  for remaining in range(4):
    found = np.asarray(masks(automaton, state, np.full(128, remaining)))
    for prefix, row in zip(prefixes, found, strict=True):
      expected = reference(sequences, prefix, remaining, (62, 63))
      assert set(np.flatnonzero(row).tolist()) == expected
  for row in sequences:
    assert accepts(automaton, row)
    assert accepts(automaton, (*row[:-1], 61)) is False
    assert accepts(automaton, row[:-1]) == (row[:-1] in sequences)


def probabilities(sequences, logits, eos):
  """The probability of each sequence if every step is renormalized over what is allowed."""
  found = {}
  for row in sequences:
    chance, last, prefix = 1.0, 0, ()
    ends = reference(sequences, row, 9, (eos,))
    for token in (*row, eos) if ends else row:
      allowed = sorted(reference(sequences, prefix, 9, (eos,)))
      weights = np.exp(logits[last, allowed])
      chance *= weights[allowed.index(token)] / weights.sum()
      prefix, last = (*prefix, token), token
    found[row] = chance
  return found


def test_sampled_frequencies_are_those_of_the_renormalized_softmax():
  automaton = trie()
  logits = np.random.default_rng(3).normal(size=(10, 10))
  expected = probabilities(SEQUENCES, logits, EOS)
  assert sum(expected.values()) == pytest.approx(1.0)
  count = 10_000
  rows, state = helpers.runs(
    automaton, START, np.full(count, 9), logits=jax.device_put(np.float32(logits)), seed=1
  )
  assert finished(automaton, state).all() and accepting(automaton, state).all()
  seen = collections.Counter(tuple(token for token in row if token != EOS) for row in rows)
  assert set(seen) == set(SEQUENCES)
  statistic = sum((seen[row] - count * p) ** 2 / (count * p) for row, p in expected.items())
  assert statistic < chi2.ppf(0.999, len(expected) - 1)
  # Equal frequencies would be far off, so the test is meaningful.
  even = count / len(expected)
  assert sum((seen[row] - even) ** 2 / even for row in expected) > 500


def test_every_budget_ends_with_a_complete_text_and_every_leaf_is_reached():
  rng = np.random.default_rng(0)
  sequences = {tuple(rng.integers(0, 40, rng.integers(2, 8)).tolist()) for _ in range(200)}
  automaton = trie(sorted(sequences), vocabulary=42, eos=[41])
  least = min_tokens(automaton)
  assert least == min(map(len, sequences)) == 2
  budget = least + np.arange(8_000) % 8
  rows, state = helpers.runs(automaton, START, budget, seed=5)
  assert accepting(automaton, state).all()
  plain = [tuple(token for token in row if token != 41) for row in rows]
  assert all(len(row) <= limit for row, limit in zip(rows, budget, strict=True))
  assert set(plain) == sequences


def test_too_small_a_budget_allows_nothing_and_does_not_hang():
  automaton = trie([(1, 2, 3)])
  rows, state = helpers.runs(automaton, START, np.full(4, 2))
  assert not accepting(automaton, state).any()
  assert not masks(automaton, start_state(np.full(4, START, np.int32)), np.full(4, 2)).any()
  assert all(len(row) <= 2 for row in rows)


def test_vmap_over_single_rows_is_the_batch():
  wide = trie([(token, 1) for token in range(10, 60)], vocabulary=64)
  both, starts = union([wide, trie(vocabulary=64)])
  state = start_state(starts)
  remaining = np.int32([4, 1])

  def one(node, used, left):
    return allowed_tokens(both, State(node[None], used[None]), left[None])[0]

  rows = jax.jit(jax.vmap(one))(*state, remaining)
  np.testing.assert_array_equal(rows, masks(both, state, remaining))


def test_union_gives_each_row_its_own_automaton():
  parts = [
    trie([(token, 1) for token in range(2, 60)], vocabulary=61, eos=[60]),
    trie([(1, 2), (1,)], vocabulary=61, eos=[60]),
    trie([(token, 3) for token in range(4, 60)], vocabulary=61, eos=[60]),
  ]
  parts.append(parts[0])
  both, starts = union(parts)
  assert starts[0] == starts[3] and len(set(starts.tolist())) == 3
  assert both.next_dense.shape[0] == 2
  state = start_state(starts)
  alone = [start_state(np.int32([START])) for _ in parts]
  for tokens in ([5, 1, 7, 59], [1, 60, 3, 2]):
    found = masks(both, state, np.full(4, 5))
    for row, part in enumerate(parts):
      own = masks(part, alone[row], np.int32([5]))[0]
      np.testing.assert_array_equal(found[row], own)
      alone[row] = move(part, alone[row], np.int32(tokens[row : row + 1]))
    state = move(both, state, np.int32(tokens))
  assert accepting(both, state).tolist() == [True, True, True, False]
  assert [min_tokens(both, int(start)) for start in starts] == [2, 1, 2, 2]
  assert accepts(both, [4, 3], int(starts[2])) and not accepts(both, [4, 3], int(starts[0]))


def test_one_automaton_for_all_rows_is_not_copied():
  automaton = trie()
  both, starts = union([automaton] * 3)
  assert both is automaton and starts.tolist() == [START] * 3


def test_union_of_different_vocabularies_is_rejected():
  with pytest.raises(InputError, match=r"V=10 eos=\[9\] and V=11 eos=\[9\]"):
    union([trie(), trie(vocabulary=11)])
  with pytest.raises(InputError, match=r"eos=\[8\]"):
    union([trie([(1,)]), trie([(1,)], eos=[8])])
  with pytest.raises(InputError, match="at least one automaton"):
    union([])


def test_automata_of_similar_size_share_a_program():
  compiled = jax.jit(lambda *arguments: allowed_tokens(*arguments))
  for size in (3, 5, 20):
    automaton = trie([(token, 1) for token in range(size)], vocabulary=32, eos=[31])
    compiled(automaton, start_state(np.int32([START])), np.int32([3]))
  assert compiled._cache_size() == 1


def test_ten_thousand_titles_stay_small():
  rng = np.random.default_rng(1)
  rows = {
    tuple(row[: 2 + at % 7])
    for at, row in enumerate(rng.zipf(1.3, (10_000, 8)).tolist())
    if max(row) < 150_000
  }
  automaton = token_trie(sorted(rows), vocabulary=150_000, eos=[0])
  size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(automaton))
  assert size < 8e6
  mask = masks(automaton, start_state(np.int32([START])), np.int32([9]))[0]
  assert set(np.flatnonzero(mask).tolist()) == {row[0] for row in rows}


@pytest.mark.parametrize(
  ("sequences", "options", "message"),
  [
    ([], {}, "at least one token sequence"),
    ([(1,), ()], {}, "token sequence 1 is empty"),
    ([(1, 2), (3,), (1, 2)], {}, r"token sequences 0 and 2 are the same: \[1, 2\]"),
    ([(1, 10)], {}, r"token sequence 0: token 10 is not in 0\.\.9"),
    ([(-1,)], {}, r"token -1 is not in"),
    ([(1, EOS)], {}, "token sequence 0 contains the EOS token 9; leave it out"),
    ([(1,)], {"eos": [10]}, r"EOS token 10 is not in 0\.\.9"),
    ([(1,), (1, 2)], {"eos": []}, "an EOS token is needed to tell them apart"),
  ],
)
def test_invalid_tries_are_reported(sequences, options, message):
  with pytest.raises(InputError, match=message):
    trie(sequences, **options)


def test_too_many_states_are_rejected(monkeypatch):
  monkeypatch.setattr("gatrec_jax.lm.constraints.automaton.MAX_STATES", 8)
  with pytest.raises(InputError, match="needs more than 8 states"):
    trie([tuple(range(9))], vocabulary=20, eos=[])


@pytest.mark.parametrize(
  ("make", "eos"), [(helpers.byte_level, 1), (helpers.sentence_piece, 2)], ids=["bytes", "pieces"]
)
def test_choices_are_written_exactly(make, eos):
  tokenizer = make()
  strings = ["drama", " drama", "dramas", "黒澤明", "Ame\u0301lie", "Am\u00e9lie", "</s>", "a\nb"]
  automaton = choices(tokenizer, strings, vocabulary=len(tokenizer) + 9, eos=[eos])
  rows, state = helpers.runs(automaton, START, np.full(400, 40), spread=1.0)
  table = token_bytes(tokenizer)
  assert accepting(automaton, state).all()
  assert {write(table, row) for row in rows} == set(strings)
  assert all(accepts(automaton, row) for row in rows)


@pytest.mark.parametrize(
  ("strings", "message"),
  [
    ([], "no choices given"),
    (["a", ""], "choice 2 is empty"),
    (["a", "b", "a"], "choices 1 and 3 have the same tokens: 'a'"),
  ],
)
def test_invalid_choices_are_reported(strings, message):
  with pytest.raises(InputError, match=message):
    choices(helpers.byte_level(), strings, vocabulary=500, eos=[1])


def test_choices_outside_the_vocabulary_of_the_model_are_rejected():
  with pytest.raises(InputError, match="'drama': the vocabulary .* cannot write it beyond byte 0"):
    choices(helpers.byte_level(), ["drama"], vocabulary=20, eos=[1])


def test_tokens_needed_solved_by_hand():
  # Tokens: one character; three at once; the first and the second byte of a character of two.
  moves = np.full((8, 4), -1, np.int32)
  moves[0, :3] = [8, 24, 8 + 1]
  moves[1, 3] = 0
  needed = tokens_needed(moves, 4, 5).reshape(-1, 8)
  far = 1 << 28
  assert needed[:, 0].tolist() == [2, 1, 1, 1, 0, 0, far]
  assert needed[1:, 1].tolist() == [2, 2, 2, 1, 1, far]
  assert (needed[:, 2:] == far).all()


def test_equal_states_are_merged():
  builder = Builder(vocabulary=10, eos=[EOS])
  start = builder.trie([((1, 3, 4), 1), ((2, 3, 4), 1)])
  assert builder.edges[start][1] == builder.edges[start][2]
  assert builder.merge(start, start) == start
