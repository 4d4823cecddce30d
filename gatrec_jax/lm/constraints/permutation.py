"""Constrained decoding of orders: each of some texts exactly once, in any sequence.

An automaton of all orders of K texts has K! ways through it. Here a row remembers which texts are
used and which of the others still agree with the tokens of the present line: K bits each, static
shapes, O(V + K) work a token. What stands at the beginning of every line, such as its number, is
forced. `generate` takes an `Ordering` like an `Automaton`; the functions that are registered below
are what it calls.

No text may begin another, so that the tokens say when a line is over; lines that end with the same
character they hold nowhere else never do. All orders have the same number of tokens, so a budget
is enough from the start or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from gatrec_jax.errors import InputError
from gatrec_jax.lm.constraints.automaton import Automaton
from gatrec_jax.lm.constraints.choices import State, advance, allowed_tokens, finished, min_tokens

NO_TOKEN = -1


@struct.dataclass
class Ordering:
  """What may be put in order, for N rows of prompts; K texts at most, L tokens each.

  Attributes:
    texts: [N, K, L] int32, `NO_TOKEN` behind the end of each. lengths: [N, K] int32, 0 where a row
      has fewer than K.
    leads: [N, K, M] int32, what line k begins with. lead_lengths: [N, K] int32.
    counts: [N] int32, texts of each row.
    vocabulary: V, static. eos: tokens that end a row, static; none of them is in a text.
  """

  texts: jax.Array
  lengths: jax.Array
  leads: jax.Array
  lead_lengths: jax.Array
  counts: jax.Array
  vocabulary: int = struct.field(pytree_node=False)
  eos: tuple[int, ...] = struct.field(pytree_node=False)


class OrderState(NamedTuple):
  """Where each row is.

  Attributes:
    row: [B] int32, which of the N it is. line: [B] int32, lines that are written. place: [B]
    int32, tokens of the present one. used: [B, K] bool, texts that are written. alive: [B, K]
    bool, those that the present line may become.
  """

  row: jax.Array
  line: jax.Array
  place: jax.Array
  used: jax.Array
  alive: jax.Array


# What `generate` takes, and where a batch of rows is in it.
Constraint = Automaton | Ordering
Progress = State | OrderState


def make_ordering(
  texts: Sequence[Sequence[int]],
  leads: Sequence[Sequence[int]] = (),
  *,
  vocabulary: int,
  eos: Sequence[int],
) -> Ordering:
  """Each of these token sequences once.

  Args:
    texts: K lists of token ids, none of them the beginning of another.
    leads: what line 1, 2, … begins with, K lists of token ids; nothing if empty.
    vocabulary: V. eos: the tokens that end a row.
  Returns: an ordering of one row.
  Raises: InputError for none, empty or repeated texts, one that begins another, and tokens that
    cannot be.
  """
  if not texts:
    raise InputError("an order needs at least one text")
  leads = leads or [()] * len(texts)
  if len(leads) != len(texts):
    raise InputError(f"{len(leads)} beginnings of lines for {len(texts)} texts")
  for place, text in enumerate(texts):
    if not len(text):
      raise InputError(f"text {place + 1} of an order is empty; each needs at least one token")
  for token in (token for part in (*texts, *leads) for token in part):
    if not 0 <= token < vocabulary or token in eos:
      raise InputError(f"a text of an order holds the token {token}, which no text may hold")
  ordered = sorted(range(len(texts)), key=lambda place: tuple(texts[place]))
  for one, other in zip(ordered, ordered[1:], strict=False):
    # In sorted order a sequence stands right before one that it begins.
    if tuple(texts[other][: len(texts[one])]) == tuple(texts[one]):
      raise InputError(
        f"text {one + 1} of an order begins text {other + 1}; end each with what no text holds"
      )
  counts = np.array([len(texts)], np.int32)
  # On the host until `stack` makes one array of those of all rows.
  return Ordering(*_table(texts), *_table(leads), counts, vocabulary=vocabulary, eos=tuple(eos))


def stack(orderings: Sequence[Ordering]) -> Ordering:
  """The rows of several orderings as one, filled up to a power of two, so that shapes are few."""
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
    joined[name] = jnp.asarray(whole)
  return Ordering(**joined, vocabulary=orderings[0].vocabulary, eos=orderings[0].eos)


def first_state(ordering: Ordering, rows: int) -> OrderState:
  """Before the first token of the first `rows` rows."""
  there = jnp.arange(ordering.lengths.shape[1]) < ordering.counts[:rows, None]
  zero = jnp.zeros(rows, jnp.int32)
  return OrderState(jnp.arange(rows, dtype=jnp.int32), zero, zero, ~there, there)


def order_of(ordering: Ordering, tokens: Sequence[int]) -> list[int]:
  """The order that the tokens of a whole answer write, for an ordering of one row, on the host."""
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
  """[B, V] bool; see `constrain.allowed_tokens`. The budget was looked at before the start."""
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
  """See `constrain.advance`; a row that took a forbidden token can go nowhere from there."""
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

  def keep(old, new):
    return jnp.where(done.reshape(-1, *[1] * (new.ndim - 1)), old, new)

  return jax.tree.map(keep, state, moved)


@finished.register
def _finished(ordering: Ordering, state: OrderState) -> jax.Array:
  """[B] bool: all texts are written."""
  return state.line >= ordering.counts[state.row]


@min_tokens.register
def _min_tokens(ordering: Ordering) -> int:
  """The number of tokens of every order, of the row that has most."""
  each = np.asarray(ordering.lengths).sum(axis=1) + np.asarray(ordering.lead_lengths).sum(axis=1)
  return int(each.max())


_FILLS = {"texts": NO_TOKEN, "lengths": 0, "leads": NO_TOKEN, "lead_lengths": 0, "counts": 0}


def _table(rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
  """[1, K, L] int32 and lengths [1, K] int32; L is a power of two, so that shapes are few."""
  longest = max(1, max(map(len, rows)))
  filled = np.full((1, len(rows), 1 << (longest - 1).bit_length()), NO_TOKEN, np.int32)
  for place, one in enumerate(rows):
    filled[0, place, : len(one)] = one
  return filled, np.array([list(map(len, rows))], np.int32)


def _of_line(values: jax.Array, state: OrderState) -> jax.Array:
  """values [N, K, ...] at each row's present line: [B, ...]."""
  return values[state.row, jnp.minimum(state.line, values.shape[1] - 1)]


def _next(ordering: Ordering, state: OrderState) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The token [B] that the line's beginning wants, whether it is there [B], and the tokens [B, K]
  that go on with each text that may still come, else `NO_TOKEN`."""
  lead = _of_line(ordering.lead_lengths, state)
  in_lead = state.place < lead
  leads = _of_line(ordering.leads, state)
  place = jnp.minimum(state.place, leads.shape[1] - 1)
  forced = jnp.take_along_axis(leads, place[:, None], axis=1)[:, 0]
  texts = ordering.texts[state.row]
  place = jnp.clip(state.place - lead, 0, texts.shape[2] - 1)
  following = jnp.take_along_axis(texts, place[:, None, None], axis=2)[..., 0]
  return forced, in_lead, jnp.where(state.alive, following, NO_TOKEN)
