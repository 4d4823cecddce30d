"""Converts examples for fine-tuning to arrays: packed rows, one example per row, or label rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gatrec_jax.errors import InputError
from gatrec_jax.lm.finetune.examples import CompletionExample, LabelExample

TOO_LONG = ("error", "truncate")


class TokenRows(NamedTuple):
  """Completion examples in rows of equal length.

  Attributes:
    tokens: [R, T] int32.
    segments: [R, T] int32, 1, 2, … for the examples of a row, 0 for padding.
    positions: [R, T] int32, from 0 within each segment; 0 for padding.
    where: [R, T] bool, whether a token is a target: tokens of completions, except the first token
      of a segment, which nothing predicts.
  """

  tokens: np.ndarray
  segments: np.ndarray
  positions: np.ndarray
  where: np.ndarray


class LabelRows(NamedTuple):
  """Label examples, one per row.

  Attributes:
    tokens: [R, T] int32 prompts, padded on the right.
    lengths: [R] int32, at least 1.
    labels: [R, L] int32 token ids, padded with 0.
    relevance: [R, L] float32, padded with 0.
    where: [R, L] bool, False at padding. A row without any label does not count.
  """

  tokens: np.ndarray
  lengths: np.ndarray
  labels: np.ndarray
  relevance: np.ndarray
  where: np.ndarray


def pack(
  examples: Sequence[CompletionExample], *, row_tokens: int, pad: int, too_long: str = "error"
) -> tuple[TokenRows, int]:
  """Packs whole examples into rows: the longest first, each into the first row with room.

  Examples of equal length keep their order, so the same examples always give the same rows.

  Args:
    examples: at least one, each with at least one target.
    row_tokens: T.
    pad: token id of the padding.
    too_long: `error`, or `truncate` to shorten prompts on the left.
  Returns:
    The rows, and how many examples were shortened.
  Raises:
    InputError: an example has no target or is too long.
  """
  prompts, truncated = _fitted(examples, row_tokens, too_long)
  lengths = np.array([len(p) + len(e.completion) for p, e in zip(prompts, examples, strict=True)])
  rows = first_fit([int(n) for n in lengths], row_tokens)
  return _filled(rows, prompts, examples, row_tokens, pad), truncated


def one_per_row(
  examples: Sequence[CompletionExample], *, row_tokens: int, pad: int, too_long: str = "error"
) -> tuple[TokenRows, int]:
  """Same as `pack`, but with one example per row, in the given order."""
  prompts, truncated = _fitted(examples, row_tokens, too_long)
  rows = [[index] for index in range(len(examples))]
  return _filled(rows, prompts, examples, row_tokens, pad), truncated


def label_rows(
  examples: Sequence[LabelExample], *, row_tokens: int, pad: int, too_long: str = "error"
) -> tuple[LabelRows, int]:
  """Converts label examples to arrays; L is the largest number of labels.

  Args:
    examples: at least one.
    row_tokens: T.
    pad: token id of the padding.
    too_long: `error`, or `truncate` to shorten prompts on the left.
  Returns:
    The rows, and how many examples were shortened.
  Raises:
    InputError: an example is too long or empty, or its labels and relevance do not match.
  """
  for index, example in enumerate(examples):
    if len(example.labels) != len(example.relevance) or len(example.labels) < 2:
      raise InputError(
        f"example {index}: {len(example.labels)} labels and {len(example.relevance)} relevance "
        "values; it needs two labels or more and one value for each"
      )
    if not np.all(np.isfinite(example.relevance)) or len(set(example.labels)) < len(example.labels):
      raise InputError(f"example {index}: labels must be distinct and relevance finite")
    if not len(example.prompt):
      raise InputError(f"example {index}: the prompt is empty, so no token predicts the label")
  prompts, truncated = _shortened(
    [example.prompt for example in examples], [0] * len(examples), row_tokens, too_long
  )
  count, width = len(examples), max(len(example.labels) for example in examples)
  rows = LabelRows(
    tokens=np.full((count, row_tokens), pad, np.int32),
    lengths=np.array([len(prompt) for prompt in prompts], np.int32),
    labels=np.zeros((count, width), np.int32),
    relevance=np.zeros((count, width), np.float32),
    where=np.zeros((count, width), bool),
  )
  for row, (prompt, example) in enumerate(zip(prompts, examples, strict=True)):
    rows.tokens[row, : len(prompt)] = prompt
    rows.labels[row, : len(example.labels)] = example.labels
    rows.relevance[row, : len(example.labels)] = example.relevance
    rows.where[row, : len(example.labels)] = True
  return rows, truncated


def first_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
  """First-fit-decreasing bin packing in O(N log N).

  Args:
    lengths: each at most `capacity`.
    capacity: of a bin.
  Returns:
    For each bin, indices into `lengths`.
  """
  order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
  leaves = 1 << max(len(lengths) - 1, 0).bit_length()
  # A binary heap with the most room below each node; its leaves are the bins.
  room = [capacity] * (2 * leaves)
  bins: list[list[int]] = []
  for index in order:
    node = 1
    while node < leaves:
      node = 2 * node if room[2 * node] >= lengths[index] else 2 * node + 1
    number = node - leaves
    if number == len(bins):
      bins.append([])
    bins[number].append(index)
    room[node] -= lengths[index]
    while node > 1:
      node //= 2
      room[node] = max(room[2 * node], room[2 * node + 1])
  return bins


def _fitted(
  examples: Sequence[CompletionExample], row_tokens: int, too_long: str
) -> tuple[list[Sequence[int]], int]:
  """Returns the prompts, shortened to fit into a row, and how many were shortened."""
  for index, example in enumerate(examples):
    if len(example.completion) < (1 if len(example.prompt) else 2):
      raise InputError(
        f"example {index}: nothing to learn, as its completion has no predicted token"
      )
  return _shortened(
    [example.prompt for example in examples],
    [len(example.completion) for example in examples],
    row_tokens,
    too_long,
  )


def _shortened(
  prompts: Sequence[Sequence[int]], others: Sequence[int], row_tokens: int, too_long: str
) -> tuple[list[Sequence[int]], int]:
  """Shortens prompts on the left to the room that `others` tokens leave. Raises as `pack`."""
  if too_long not in TOO_LONG:
    raise InputError(f"must be one of {', '.join(TOO_LONG)}", field="too_long", value=too_long)
  fitted, truncated = [], 0
  for index, (prompt, other) in enumerate(zip(prompts, others, strict=True)):
    room = row_tokens - other
    if len(prompt) > room:
      if too_long == "error":
        raise InputError(
          f"example {index}: {len(prompt) + other} tokens, more than `max_tokens={row_tokens}`; "
          "raise `max_tokens`, shorten the example or set `too_long=truncate`"
        )
      if room < 1:
        raise InputError(
          f"example {index}: its completion alone has {other} tokens, which leaves no room for a "
          f"prompt in `max_tokens={row_tokens}`; raise `max_tokens` or shorten the example"
        )
      prompt, truncated = prompt[len(prompt) - room :], truncated + 1
    fitted.append(prompt)
  return fitted, truncated


def _filled(
  rows: Sequence[Sequence[int]],
  prompts: Sequence[Sequence[int]],
  examples: Sequence[CompletionExample],
  row_tokens: int,
  pad: int,
) -> TokenRows:
  """Fills each row with the examples of the given indices, one after another."""
  shape = (len(rows), row_tokens)
  out = TokenRows(
    tokens=np.full(shape, pad, np.int32),
    segments=np.zeros(shape, np.int32),
    positions=np.zeros(shape, np.int32),
    where=np.zeros(shape, bool),
  )
  for row, indices in enumerate(rows):
    start = 0
    for segment, index in enumerate(indices, start=1):
      prompt, completion = prompts[index], examples[index].completion
      stop = start + len(prompt) + len(completion)
      out.tokens[row, start:stop] = [*prompt, *completion]
      out.segments[row, start:stop] = segment
      out.positions[row, start:stop] = np.arange(stop - start)
      out.where[row, start + max(len(prompt), 1) : stop] = True
      start = stop
  return out
