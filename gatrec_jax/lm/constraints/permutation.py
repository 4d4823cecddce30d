"""Constrains answers to permutations: each of the given texts exactly once, in any order.

An automaton of all orders of K texts would have K! paths. Instead, each row stores which texts have
been used and which of the others still match the tokens of the current line: K bits each, static
shapes, O(V + K) work per token. The beginning of each line, such as its number, is forced.
`generate` accepts an `Ordering` like an `Automaton`; it calls the functions registered below.

No text may be a prefix of another, so that the tokens determine where a line ends; ending each text
with a character that none contains guarantees this. All orders have the same number of tokens, so a
budget either suffices from the start or not at all.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from gatrec_jax.errors import InputError
from gatrec_jax.lm.constraints.automaton import Automaton
from gatrec_jax.lm.constraints.choices import (
  State,
  advance,
  allowed_tokens,
  closing_tokens,
  finished,
  min_tokens,
)
from gatrec_jax.sharding.placement import to_device

NO_TOKEN = -1


@struct.dataclass
class Ordering:
  """The texts to put in order, for N rows: at most K texts of at most L tokens per row.

  Attributes:
    texts: [N, K, L] int32, padded with `NO_TOKEN`. lengths: [N, K] int32; 0 if a row has fewer than
      K texts.
    leads: [N, K, M] int32, the beginning of line k. lead_lengths: [N, K] int32.
    counts: [N] int32, number of texts of each row.
    vocabulary: V; static. eos: EOS tokens, which no text contains; static.
  """

  texts: jax.Array
  lengths: jax.Array
  leads: jax.Array
  lead_lengths: jax.Array
  counts: jax.Array
  vocabulary: int = struct.field(pytree_node=False)
  eos: tuple[int, ...] = struct.field(pytree_node=False)


class OrderState(NamedTuple):
  """State of B rows.

  Attributes:
    row: [B] int32, row of the `Ordering`. line: [B] int32, complete lines. place: [B] int32, tokens
      of the current line. used: [B, K] bool, texts already written. alive: [B, K] bool, texts that
      the current line can still become.
  """

  row: jax.Array
  line: jax.Array
  place: jax.Array
  used: jax.Array
  alive: jax.Array


# The constraints that `generate` accepts, and their states.
Constraint = Automaton | Ordering
Progress = State | OrderState


def make_ordering(
  texts: Sequence[Sequence[int]],
  leads: Sequence[Sequence[int]] = (),
  *,
  vocabulary: int,
  eos: Sequence[int],
) -> Ordering:
  """Makes a constraint that allows each of the given token sequences once, in any order.

  Args:
    texts: K lists of token ids, none a prefix of another.
    leads: K lists of token ids with which line 1, 2, … begins; () for none.
    vocabulary: V. eos: EOS tokens.
  Returns: an ordering of one row.
  Raises: InputError for no texts, empty or repeated ones, one that is a prefix of another, and
    invalid tokens.
  """
  if not texts:
    raise InputError("an ordering needs at least one text")
  leads = leads or [()] * len(texts)
  if len(leads) != len(texts):
    raise InputError(f"got {len(leads)} beginnings of lines for {len(texts)} texts")
  for place, text in enumerate(texts):
    if not len(text):
      raise InputError(f"text {place + 1} of an ordering is empty; each needs at least one token")
  for token in (token for part in (*texts, *leads) for token in part):
    if not 0 <= token < vocabulary or token in eos:
      raise InputError(f"a text of an ordering contains the invalid token {token}")
  ordered = sorted(range(len(texts)), key=lambda place: tuple(texts[place]))
  for one, other in zip(ordered, ordered[1:], strict=False):
    # In sorted order, a sequence comes right before one that it is a prefix of.
    if tuple(texts[other][: len(texts[one])]) == tuple(texts[one]):
      raise InputError(
        f"text {one + 1} of an ordering is a prefix of text {other + 1}; end each text with a "
        "character that none contains"
      )
  counts = np.array([len(texts)], np.int32)
  # NumPy arrays; `stack` puts those of all rows on the device at once.
  return Ordering(*_table(texts), *_table(leads), counts, vocabulary=vocabulary, eos=tuple(eos))


def stack(orderings: Sequence[Ordering]) -> Ordering:
  """Stacks the rows of several orderings, padded to a power of two for few shapes."""
  rows = 1 << (max(1, sum(len(one.counts) for one in orderings)) - 1).bit_length()
  widest = {
    name: np.max([getattr(one, name).shape[1:] for one in orderings], axis=0) for name in _FILLS
  }
  joined = {}
  for name, fill in _FILLS.items():
    parts = [np.asarray(getattr(one, name)) for one in orderings]
    whole = np.full((rows, *widest[name]), fill, np.int32)
    start = 0
    for part in parts:
      where = (slice(start, start + len(part)), *map(slice, part.shape[1:]))
      whole[where] = part
      start += len(part)
    joined[name] = to_device(whole)
  return Ordering(**joined, vocabulary=orderings[0].vocabulary, eos=orderings[0].eos)


@functools.partial(jax.jit, static_argnames="rows")
def first_state(ordering: Ordering, rows: int) -> OrderState:
  """Returns the state before the first token, for the first `rows` rows."""
  there = jnp.arange(ordering.lengths.shape[1]) < ordering.counts[:rows, None]
  zero = jnp.zeros(rows, jnp.int32)
  return OrderState(jnp.arange(rows, dtype=jnp.int32), zero, zero, ~there, there)


def order_of(ordering: Ordering, tokens: Sequence[int]) -> list[int]:
  """Reads the order of the texts from a complete answer to a one-row ordering, on the host."""
  lengths, lead_lengths = np.asarray(ordering.lengths)[0], np.asarray(ordering.lead_lengths)[0]
  known = {
    tuple(text[:length].tolist()): place
    for place, (text, length) in enumerate(zip(np.asarray(ordering.texts)[0], lengths, strict=True))
  }
  order, start, tokens = [], 0, tuple(tokens)
  sizes = sorted(set(lengths.tolist()))
  for lead in lead_lengths.tolist():
    start += lead
    size = next(size for size in sizes if tokens[start : start + size] in known)
    order.append(known[tokens[start : start + size]])
    start += size
  return order


@allowed_tokens.register
def _allowed(ordering: Ordering, state: OrderState, remaining: jax.Array) -> jax.Array:
  """`allowed_tokens` of an ordering. The budget was checked before the start."""
  del remaining
  forced, in_lead, following = _next(ordering, state)
  tokens = jnp.where(in_lead[:, None], forced[:, None], following)
  going = ~finished(ordering, state)[:, None] & (tokens >= 0)
  tokens = jnp.where(going, tokens, ordering.vocabulary)
  rows = jnp.arange(tokens.shape[0])[:, None]
  mask = jnp.zeros((tokens.shape[0], ordering.vocabulary), bool)
  return mask.at[rows, tokens].set(True, mode="drop")


@advance.register
def _advance(ordering: Ordering, state: OrderState, tokens: jax.Array) -> OrderState:
  """`advance` of an ordering; after a forbidden token a row has no allowed tokens."""
  forced, in_lead, following = _next(ordering, state)
  agree = jnp.where(in_lead[:, None], (forced == tokens)[:, None], following == tokens[:, None])
  alive = state.alive & agree
  place = state.place + 1
  lead = _of_line(ordering.lead_lengths, state)
  whole = alive & (place[:, None] == lead[:, None] + ordering.lengths[state.row])
  over = whole.any(axis=1)
  used = state.used | whole
  moved = OrderState(
    state.row,
    state.line + over,
    jnp.where(over, 0, place),
    used,
    jnp.where(over[:, None], ~used, alive),
  )
  done = finished(ordering, state)

  def keep(old: jax.Array, new: jax.Array) -> jax.Array:
    return jnp.where(done.reshape(-1, *[1] * (new.ndim - 1)), old, new)

  return jax.tree.map(keep, state, moved)


@closing_tokens.register
def _closing(ordering: Ordering, state: OrderState) -> None:
  """`closing_tokens` of an ordering, which has no free text."""
  del ordering, state


@finished.register
def _finished(ordering: Ordering, state: OrderState) -> jax.Array:
  """`finished` of an ordering: whether all texts are written, [B] bool."""
  return state.line >= ordering.counts[state.row]


@min_tokens.register
def _min_tokens(ordering: Ordering) -> int:
  """`min_tokens` of an ordering: the number of tokens of all orders of its longest row."""
  each = np.asarray(ordering.lengths).sum(axis=1) + np.asarray(ordering.lead_lengths).sum(axis=1)
  return int(each.max())


_FILLS = {"texts": NO_TOKEN, "lengths": 0, "leads": NO_TOKEN, "lead_lengths": 0, "counts": 0}


def _table(rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
  """Pads rows to [1, K, L] int32 with lengths [1, K] int32; L is a power of two for few shapes."""
  longest = max(1, max(map(len, rows)))
  filled = np.full((1, len(rows), 1 << (longest - 1).bit_length()), NO_TOKEN, np.int32)
  for place, one in enumerate(rows):
    filled[0, place, : len(one)] = one
  return filled, np.array([list(map(len, rows))], np.int32)


def _of_line(values: jax.Array, state: OrderState) -> jax.Array:
  """Selects values [N, K, ...] at the current line of each row: [B, ...]."""
  return values[state.row, jnp.minimum(state.line, values.shape[1] - 1)]


def _next(ordering: Ordering, state: OrderState) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns the tokens that may follow.

  Returns: [B] int32, the forced token of the line's beginning; [B] bool, whether the row is in that
    beginning; [B, K] int32, the next token of each text that may still come, else `NO_TOKEN`.
  """
  lead = _of_line(ordering.lead_lengths, state)
  in_lead = state.place < lead
  leads = _of_line(ordering.leads, state)
  place = jnp.minimum(state.place, leads.shape[1] - 1)
  forced = jnp.take_along_axis(leads, place[:, None], axis=1)[:, 0]
  texts = ordering.texts[state.row]
  place = jnp.clip(state.place - lead, 0, texts.shape[2] - 1)
  following = jnp.take_along_axis(texts, place[:, None, None], axis=2)[..., 0]
  return forced, in_lead, jnp.where(state.alive, following, NO_TOKEN)
