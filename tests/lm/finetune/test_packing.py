"""Packed rows: every token once, no example split, correct masks, positions and counts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatrec_jax.errors import InputError
from gatrec_jax.lm.finetune import packing
from gatrec_jax.lm.finetune.examples import CompletionExample, LabelExample

EXAMPLES = st.lists(
  st.tuples(st.integers(0, 9), st.integers(1, 9)).filter(lambda pair: sum(pair) > 1),
  min_size=1,
  max_size=25,
)


def numbered(shapes):
  """Examples with the given (prompt, completion) lengths in which all tokens differ."""
  out, start = [], 1
  for prompt, completion in shapes:
    ids = list(range(start, start + prompt + completion))
    out.append(CompletionExample(ids[:prompt], ids[prompt:]))
    start += len(ids)
  return out


@given(shapes=EXAMPLES)
@settings(max_examples=60, deadline=None)
def test_every_token_occurs_once_and_examples_stay_whole(shapes):
  examples = numbered(shapes)
  rows, truncated = packing.pack(examples, row_tokens=20, pad=0)
  assert truncated == 0
  assert all(array.shape == rows.tokens.shape for array in rows)
  total = sum(map(sum, shapes))
  assert sorted(rows.tokens[rows.segments > 0].tolist()) == list(range(1, total + 1))
  assert not rows.tokens[rows.segments == 0].any()
  found = {}
  for tokens, segments, positions, where in zip(*rows, strict=True):
    used = segments[segments > 0]
    assert used.tolist() == sorted(used) and set(used) == set(range(1, used.max() + 1))
    assert not segments[len(used) :].any() and not where[len(used) :].any()
    for segment in range(1, used.max() + 1):
      inside = segments == segment
      assert positions[inside].tolist() == list(range(inside.sum()))
      found[int(tokens[inside][0])] = (tokens[inside].tolist(), tokens[where & inside].tolist())
  assert len(found) == len(examples)
  for example in examples:
    ids = [*example.prompt, *example.completion]
    targets = list(example.completion)[0 if example.prompt else 1 :]
    assert found[ids[0]] == (ids, targets)


@given(lengths=st.lists(st.integers(1, 12), max_size=40))
@settings(max_examples=60, deadline=None)
def test_first_fit_equals_its_definition(lengths):
  bins = []
  for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
    for contents in bins:
      if sum(lengths[i] for i in contents) + lengths[index] <= 12:
        contents.append(index)
        break
    else:
      bins.append([index])
  assert packing.first_fit(lengths, 12) == bins


def test_first_fit_by_hand():
  assert packing.first_fit([2, 5, 4, 7, 1, 3, 8], 10) == [[6, 0], [3, 5], [1, 2, 4]]


def test_one_per_row_keeps_the_order():
  examples = numbered([(2, 2), (0, 3), (1, 1)])
  rows, _ = packing.one_per_row(examples, row_tokens=5, pad=77)
  assert rows.tokens.tolist() == [[1, 2, 3, 4, 77], [5, 6, 7, 77, 77], [8, 9, 77, 77, 77]]
  assert rows.segments.tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0]]
  assert rows.where.tolist() == [
    [False, False, True, True, False],
    [False, True, True, False, False],
    [False, True, False, False, False],
  ]


def test_truncation_shortens_prompts_on_the_left_and_is_counted():
  examples = numbered([(6, 2), (2, 2), (5, 1)])
  with pytest.raises(InputError, match="example 0: 8 tokens, more than `max_tokens=5`"):
    packing.pack(examples, row_tokens=5, pad=0)
  rows, truncated = packing.one_per_row(examples, row_tokens=5, pad=0, too_long="truncate")
  assert truncated == 2
  assert rows.tokens[0].tolist() == [4, 5, 6, 7, 8]
  assert rows.where[0].tolist() == [False, False, False, True, True]
  assert rows.tokens[2].tolist() == [14, 15, 16, 17, 18]


@pytest.mark.parametrize(
  ("example", "message"),
  [
    (CompletionExample([1, 2], range(5)), "its completion alone has 5 tokens"),
    (CompletionExample([], range(6)), "its completion alone has 6 tokens"),
    (CompletionExample([1], []), "nothing to learn"),
    (CompletionExample([], [1]), "nothing to learn"),
  ],
)
def test_examples_without_targets_or_room_are_reported(example, message):
  with pytest.raises(InputError, match=f"example 1: .*{message}"):
    packing.pack([CompletionExample([1], [2]), example], row_tokens=5, pad=0, too_long="truncate")


def test_an_unknown_treatment_of_long_examples_is_reported():
  with pytest.raises(InputError, match="too_long=drop: must be one of error, truncate"):
    packing.pack(numbered([(1, 1)]), row_tokens=5, pad=0, too_long="drop")


def test_label_rows_by_hand():
  examples = [LabelExample([5, 6, 7], [1, 2], [0.0, 1.0]), LabelExample([8], [3, 1, 2], [2, 0, 1])]
  rows, truncated = packing.label_rows(examples, row_tokens=4, pad=9)
  assert truncated == 0
  assert rows.tokens.tolist() == [[5, 6, 7, 9], [8, 9, 9, 9]]
  assert rows.lengths.tolist() == [3, 1]
  assert rows.labels.tolist() == [[1, 2, 0], [3, 1, 2]]
  assert rows.relevance.tolist() == [[0, 1, 0], [2, 0, 1]]
  assert rows.where.tolist() == [[True, True, False], [True, True, True]]
  short, truncated = packing.label_rows(examples, row_tokens=2, pad=9, too_long="truncate")
  assert truncated == 1 and short.tokens.tolist() == [[6, 7], [8, 9]]


@pytest.mark.parametrize(
  ("example", "message"),
  [
    (LabelExample([1], [1, 2], [1.0]), "2 labels and 1 relevance values"),
    (LabelExample([1], [1], [1.0]), "needs two labels"),
    (LabelExample([1], [2, 2], [1.0, 0.0]), "must be distinct"),
    (LabelExample([1], [1, 2], [1.0, np.nan]), "relevance finite"),
    (LabelExample([], [1, 2], [1.0, 0.0]), "the prompt is empty"),
    (LabelExample([1] * 9, [1, 2], [1.0, 0.0]), "9 tokens, more than `max_tokens=4`"),
  ],
)
def test_invalid_label_examples_are_reported(example, message):
  with pytest.raises(InputError, match=f"example 0: .*{message}"):
    packing.label_rows([example], row_tokens=4, pad=0)
