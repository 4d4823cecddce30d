"""Constrained decoding with automata: allows only tokens that can still lead to a complete text.

    automaton = choices(tokenizer, titles, vocabulary=config.vocabulary, eos=config.eos)
    state = start_state(jnp.full(batch, START))
    while not finished(automaton, state).all():           # inside `lax.while_loop`
      mask = allowed_tokens(automaton, state, remaining)  # [B, V], applied to the logits
      state = advance(automaton, state, tokens)

This file has the tries (`token_trie`, `choices`), `union`, which gives each row of a batch its own
constraint, and the functions that run on the device: static shapes, no host synchronization,
O(V + width) work per row. `automaton.py` describes the representation of automata;
`json_schema.py` makes one from a JSON schema.

Budget: a token is allowed only if the shortest completion after it fits into the remaining tokens,
so every run of at least `min_tokens` ends with a complete text.

The device functions are dispatched on the type of the constraint. To add a type, register its
implementations, as `permutation.py` does.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.errors import InputError
from gatrec_jax.lm.constraints.automaton import (
  ACCEPTED,
  ARRAYS,
  FAR,
  SINK,
  START,
  Automaton,
  Builder,
  padded,
)
from gatrec_jax.lm.tokens.chat import require_list
from gatrec_jax.lm.tokens.token_bytes import UTF8_STATES, make_spelling, spell
from gatrec_jax.sharding.placement import to_device

if TYPE_CHECKING:
  from transformers import PreTrainedTokenizerFast


class State(NamedTuple):
  """State of B rows: node [B] int32; used [B] int32, characters begun in the current string."""

  node: jax.Array
  used: jax.Array


def start_state(starts: jax.Array) -> State:
  """Returns the state before the first token. starts: [B] int32, `START` or from `union`."""
  starts = jnp.asarray(starts, jnp.int32)
  return State(starts, jnp.zeros_like(starts))


@functools.singledispatch
def allowed_tokens(automaton: Automaton, state: State, remaining: jax.Array) -> jax.Array:
  """Mask of the tokens after which each row can still be completed.

  Args: state: of B rows. remaining: [B] int32, tokens left for each row, including this one.
  Returns: [B, V] bool; all False for finished rows.
  """
  spare = jnp.asarray(remaining, jnp.int32)[:, None] - 1
  tokens, nexts, listed = _listed(automaton, state)
  listed &= automaton.distance[nexts] <= spare
  rows = jnp.arange(state.node.shape[0])[:, None]
  mask = jnp.zeros((state.node.shape[0], automaton.vocabulary), bool)
  mask = mask.at[rows, jnp.where(listed, tokens, automaton.vocabulary)].set(True, mode="drop")
  if not automaton.next_dense.shape[0]:
    return mask
  in_string = automaton.limit[state.node] >= 0
  wide = (automaton.row[state.node] >= 0) & ~in_string
  # These read [B, V] entries, the largest cost, so they run only if some row needs them.
  mask = jax.lax.cond(
    jnp.any(wide),
    lambda mask: mask | (wide[:, None] & _wide_mask(automaton, state, spare)),
    lambda mask: mask,
    mask,
  )
  if not automaton.needed.shape[0]:
    return mask
  return jax.lax.cond(
    jnp.any(in_string),
    lambda mask: mask | (in_string[:, None] & _string_mask(automaton, state, spare)),
    lambda mask: mask,
    mask,
  )


@functools.singledispatch
def advance(automaton: Automaton, state: State, tokens: jax.Array) -> State:
  """Returns the state after one more token in each row.

  A forbidden token leads to `SINK`, and EOS after a complete text to `ACCEPTED`. Finished rows keep
  their state. Ignores the budget.

  Args: state: of B rows. tokens: [B] int32.
  """
  node, used = state
  tokens = jnp.asarray(tokens, jnp.int32)
  listed_tokens, nexts, listed = _listed(automaton, state)
  following = jnp.max(jnp.where(listed & (listed_tokens == tokens[:, None]), nexts, SINK), axis=1)
  count = jnp.zeros_like(used)
  if automaton.next_dense.shape[0]:
    known = (tokens >= 0) & (tokens < automaton.vocabulary) & (automaton.row[node] >= 0)
    values = automaton.next_dense[automaton.row[node], jnp.where(known, tokens, 0)]
    limit = automaton.limit[node]
    in_string = limit >= 0
    legal = known & (values >= 0)
    moved = jnp.where(in_string, automaton.base[node] + values % UTF8_STATES, values)
    if automaton.needed.shape[0]:
      index = _needed_index(automaton, used, values)
      legal &= ~in_string | (automaton.needed[limit, index] < FAR)
    following = jnp.where(legal, moved, following)
    count = jnp.where(legal & in_string, used + values // UTF8_STATES, 0)
  final = automaton.final[node]
  return State(jnp.where(final, node, following), jnp.where(final, used, count))


@functools.singledispatch
def finished(automaton: Automaton, state: State) -> jax.Array:
  """[B] bool: whether a row has ended. Use `accepting` to see whether its text is complete."""
  return automaton.final[state.node]


def accepting(automaton: Automaton, state: State) -> jax.Array:
  """[B] bool: whether the tokens so far are a complete text, even if it could continue."""
  return automaton.accepting[state.node]


@functools.singledispatch
def closing_tokens(automaton: Automaton, state: State) -> jax.Array | None:
  """Mask of the tokens that end the free text that a row is in; ignores the budget.

  Returns: [B, V] bool; None for constraints without free text.
  """
  if not automaton.needed.shape[0]:
    return None
  tokens, _, listed = _listed(automaton, state)
  listed &= (automaton.limit[state.node] >= 0)[:, None]
  rows = jnp.arange(state.node.shape[0])[:, None]
  mask = jnp.zeros((state.node.shape[0], automaton.vocabulary), bool)
  return mask.at[rows, jnp.where(listed, tokens, automaton.vocabulary)].set(True, mode="drop")


@functools.singledispatch
def min_tokens(automaton: Automaton, start: int = START) -> int:
  """Returns the least number of tokens of a complete text, without EOS."""
  return int(np.asarray(automaton.distance)[start])


def accepts(automaton: Automaton, tokens: Sequence[int], start: int = START) -> bool:
  """Whether these tokens are a complete text (EOS only if it could continue). On the host."""
  arrays = {name: np.asarray(getattr(automaton, name)) for name in ARRAYS}
  needed, next_dense = arrays["needed"], arrays["next_dense"]
  columns = [arrays[name] for name in ("first", "degree", "row", "base", "limit")]
  node, used = start, 0
  for token in tokens:
    if not 0 <= token < automaton.vocabulary:
      return False
    first, degree, row, base, limit = (int(column[node]) for column in columns)
    dense = int(next_dense[row, token]) if row >= 0 else -1
    if limit >= 0 and dense >= 0:
      used += dense // UTF8_STATES
      node = base + dense % UTF8_STATES
      index = UTF8_STATES * used + dense % UTF8_STATES
      if index >= needed.shape[1] or needed[limit, index] >= FAR:
        return False
      continue
    if limit >= 0 and needed[limit, UTF8_STATES * used + node - base]:
      return False
    listed = np.flatnonzero(arrays["edge_token"][first : first + degree] == token)
    if len(listed):
      node = int(arrays["edge_next"][first + listed[0]])
    elif dense >= 0:
      node = dense
    else:
      return False
    used = 0
  return bool(arrays["accepting"][node])


def token_trie(
  sequences: Sequence[Sequence[int]], *, vocabulary: int, eos: Sequence[int]
) -> Automaton:
  """Makes a constraint that allows exactly the given token sequences.

  If one is a prefix of another, EOS ends the shorter one.

  Args: sequences: token ids, without EOS. vocabulary: V. eos: EOS tokens.
  Raises: InputError for no sequences, empty or repeated ones, and invalid tokens.
  """
  if not sequences:
    raise InputError("a trie needs at least one token sequence")
  builder = Builder(vocabulary=vocabulary, eos=eos)
  seen: dict[tuple[int, ...], int] = {}
  for place, sequence in enumerate(sequences):
    key = tuple(map(int, sequence))
    if not key:
      raise InputError(f"token sequence {place} is empty; each needs at least one token")
    if key in seen:
      raise InputError(f"token sequences {seen[key]} and {place} are the same: {list(key)}")
    seen[key] = place
    for token in key:
      if not 0 <= token < vocabulary:
        raise InputError(f"token sequence {place}: token {token} is not in 0..{vocabulary - 1}")
      if token in builder.eos:
        raise InputError(f"token sequence {place} contains the EOS token {token}; leave it out")
  return builder.build(builder.trie([(key, ACCEPTED) for key in seen]))


def choices(
  tokenizer: PreTrainedTokenizerFast, strings: Sequence[str], *, vocabulary: int, eos: Sequence[int]
) -> Automaton:
  """Makes a constraint that allows exactly the given strings, in the tokenizer's segmentation.

  The strings are continuations, so a leading space belongs to them: `" yes"` after `"Answer:"`,
  but `"yes"` after `"Answer: "`.
  Raises: InputError for no strings, empty or repeated ones, and strings that the tokenizer cannot
    write.
  """
  require_list(strings, "choices", "a list of texts")
  spelling = make_spelling(tokenizer, vocabulary=vocabulary, eos=eos)
  seen: dict[tuple[int, ...], int] = {}
  for place, string in enumerate(strings):
    if not string:
      raise InputError(f"choice {place + 1} is empty; each needs at least one character")
    # Tokens write exactly the bytes of their string, so only equal strings have equal tokens.
    other = seen.setdefault(tuple(spell(spelling, string)), place)
    if other != place:
      raise InputError(f"choices {other + 1} and {place + 1} have the same tokens: {string!r}")
  if not seen:
    raise InputError("no choices given; at least one string is needed")
  return token_trie(list(seen), vocabulary=vocabulary, eos=eos)


def union(automata: Sequence[Automaton]) -> tuple[Automaton, jax.Array]:
  """Merges several automata into one, so that each row of a batch can have its own.

  Equal dense rows and repeated automata are stored once.

  Returns: the automaton, and [N] int32, the start state of each given automaton.
  Raises: InputError if their vocabularies or EOS tokens differ.
  """
  if not automata:
    raise InputError("a union needs at least one automaton")
  kinds = {(automaton.vocabulary, automaton.eos) for automaton in automata}
  if len(kinds) > 1:
    named = " and ".join(f"V={v} eos={list(eos)}" for v, eos in sorted(kinds))
    raise InputError(f"automata of different vocabularies cannot be merged: {named}")
  parts = list({id(automaton): automaton for automaton in automata}.values())
  if len(parts) == 1:
    return parts[0], jnp.full(len(automata), START, jnp.int32)
  columns = max(part.needed.shape[1] for part in parts)
  joined: dict[str, list[np.ndarray]] = {}
  dense: dict[bytes, int] = {}
  rows: list[np.ndarray] = []
  offsets: dict[int, int] = {}
  states = edges = limits = 0
  for part in parts:
    old = {name: np.asarray(getattr(part, name)) for name in ARRAYS}
    is_wide = np.zeros(len(old["next_dense"]), bool)
    is_wide[old["row"][(old["row"] >= 0) & (old["limit"] < 0)]] = True
    place = []
    for row, wide in zip(old["next_dense"], is_wide, strict=True):
      # Wide rows contain states, which are renumbered; rows of strings are the same everywhere.
      moved = np.where(row >= 0, row + states, row) if wide else row
      place.append(dense.setdefault(moved.tobytes(), len(dense)))
      if len(dense) > len(rows):
        rows.append(moved)
    padding = ((0, 0), (0, columns - old["needed"].shape[1]))
    shifted = old | {
      "first": old["first"] + edges,
      "edge_next": old["edge_next"] + states,
      "row": np.where(old["row"] >= 0, np.array([*place, 0])[old["row"]], -1),
      "base": np.where(old["limit"] >= 0, old["base"] + states, 0),
      "limit": np.where(old["limit"] >= 0, old["limit"] + limits, -1),
      "needed": np.pad(old["needed"], padding, constant_values=FAR),
    }
    for name in ARRAYS:
      joined.setdefault(name, []).append(shifted[name])
    offsets[id(part)] = states
    states += len(old["first"])
    edges += len(old["edge_token"])
    limits += len(old["needed"])
  arrays = {name: np.concatenate(values) for name, values in joined.items()}
  arrays["next_dense"] = np.array(rows, np.int32).reshape(len(rows), parts[0].vocabulary)
  starts = np.array([offsets[id(automaton)] + START for automaton in automata], np.int32)
  both = padded(arrays, width=max(part.width for part in parts), eos=parts[0].eos)
  return both, to_device(starts)


def _listed(automaton: Automaton, state: State) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Reads each row's list: tokens, next states, and which entries are valid; all [B, width]."""
  node, used = state
  place = jnp.arange(automaton.width)
  index = jnp.minimum(automaton.first[node][:, None] + place, automaton.edge_token.shape[0] - 1)
  there = place < automaton.degree[node][:, None]
  if automaton.needed.shape[0]:
    # The listed successors of a string close it, which its minimum length may not allow yet.
    limit = automaton.limit[node]
    index_now = _needed_index(automaton, used, node - automaton.base[node])
    there &= ((limit < 0) | (automaton.needed[limit, index_now] == 0))[:, None]
  return automaton.edge_token[index], automaton.edge_next[index], there


def _wide_mask(automaton: Automaton, state: State, spare: jax.Array) -> jax.Array:
  nexts = automaton.next_dense[automaton.row[state.node]]
  return (nexts >= 0) & (automaton.distance[nexts] <= spare)


def _string_mask(automaton: Automaton, state: State, spare: jax.Array) -> jax.Array:
  moves = automaton.next_dense[automaton.row[state.node]]
  needed = automaton.needed[automaton.limit[state.node]]
  closing = automaton.distance[automaton.base[state.node]] - needed[:, 0]
  fits = needed + closing[:, None] <= spare
  index = _needed_index(automaton, state.used[:, None], moves)
  return (moves >= 0) & jnp.take_along_axis(fits, index, axis=1)


def _needed_index(automaton: Automaton, used: jax.Array, moves: jax.Array) -> jax.Array:
  """Index into `needed` of the state after these moves; the last entry stands for all beyond."""
  return jnp.clip(UTF8_STATES * used + moves, 0, automaton.needed.shape[1] - 1)
