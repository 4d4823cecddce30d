"""The arrays of a constraint automaton, and the builder that makes them.

Nearly all states of a trie or a schema have a handful of successors, but a few have thousands. A
dense [S, V] table of successors would take gigabytes, so states are stored in three ways:

- *Listed*: the successors of state n are the entries `first[n] : first[n] + degree[n]` of two flat
  arrays, (token, next). A step reads a window of `width` entries per row and scatters them into the
  mask: O(V + width) work without padding in memory.
- *Wide*: more successors than `width`. `row[n]` is the row of `next_dense [R, V]` with the next
  states.
- *In a string*: free text, where most of the vocabulary is allowed. A string has eight states, one
  for each place within a UTF-8 character. Their rows contain moves (`8 · characters begun + next
  place`) instead of states, and `base[n]` is the first of the eight states, so that all strings of
  all schemas share eight rows regardless of their limits. The characters begun are counted in
  `State.used`, and `needed[limit[n], 8 · used + place]` is the number of tokens that the text still
  needs: `FAR` beyond maxLength, and 0 if the string may be closed. The successors that close it are
  listed.

Equal states are merged: automata are built from their ends to their start, so common continuations
are shared. Arrays are padded to few sizes, so that automata of similar size run in the same
compiled program.

Budget: `distance[n]` is the least number of tokens from state n to an accepting state, and a token
is allowed only if the rest still fits into the remaining tokens. Every run that starts with at
least `min_tokens` therefore ends with a complete text. An accepting state without successors ends
its row; one with successors also accepts an EOS token, or the end of the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from flax import struct

from gatrec_jax.errors import InputError
from gatrec_jax.lm.tokens.token_bytes import BY_MISSING_BYTES, UTF8_STATES
from gatrec_jax.sharding.placement import to_device

SINK, ACCEPTED, START = 0, 1, 2
FAR = 1 << 28  # Distance if no accepting state can be reached; the sum of two does not overflow.
MAX_STATES = 500_000
WIDTHS = (32, 128, 512, 2048)
DENSE_BYTES = 4 << 20  # The width is increased until the rows of wide states take at most this.


@struct.dataclass
class Automaton:
  """A constraint: S states, E listed successors, R dense rows, V tokens, L pairs of string limits.

  A row starts in state `START` (in a `union`, in one of its `starts`), ends in `SINK` after a
  forbidden token, and in `ACCEPTED` after an EOS token.

  Attributes:
    first, degree: [S] int32, the range of each state's entries in the lists.
    edge_token, edge_next: [E] int32.
    row: [S] int32 into `next_dense`, -1 for listed states.
    next_dense: [R, V] int32 next states, or moves within a string; -1 if forbidden.
    base: [S] int32, the first of a string's eight states; 0 outside strings.
    limit: [S] int32 into `needed`; -1 outside strings.
    needed: [L, K] int32, tokens until the string may be closed, at `8 · used + place`.
    distance: [S] int32, least number of tokens to an accepting state, for `used` 0.
    accepting: [S] bool, whether the text is complete in this state.
    final: [S] bool, whether the state has no successors.
    width: length of the longest list; static.
    eos: EOS tokens; static.
  """

  first: jax.Array
  degree: jax.Array
  edge_token: jax.Array
  edge_next: jax.Array
  row: jax.Array
  next_dense: jax.Array
  base: jax.Array
  limit: jax.Array
  needed: jax.Array
  distance: jax.Array
  accepting: jax.Array
  final: jax.Array
  width: int = struct.field(pytree_node=False)
  eos: tuple[int, ...] = struct.field(pytree_node=False)

  @property
  def vocabulary(self) -> int:
    return self.next_dense.shape[1]


ARRAYS = tuple(field for field in Automaton.__annotations__ if field not in ("width", "eos"))


class Builder:
  """Builds an automaton from its ends to its start, merging equal states.

  Args:
    vocabulary: V.
    eos: the tokens that end a text which is complete but could continue.
    string_rows: returns the [8, V] int32 moves within free text (`token_bytes.string_moves`);
      called only if there is free text.
  """

  def __init__(
    self,
    *,
    vocabulary: int,
    eos: Sequence[int],
    string_rows: Callable[[], np.ndarray] | None = None,
  ) -> None:
    self.vocabulary = vocabulary
    self.eos = tuple(sorted({int(token) for token in eos}))
    for token in self.eos:
      if not 0 <= token < vocabulary:
        raise InputError(f"EOS token {token} is not in 0..{vocabulary - 1}")
    self.edges: list[Mapping[int, int]] = [{}, {}, {}]
    self.accepting = [False, True, False]
    self.distance = [FAR, 0, FAR]
    # State in a string -> (first of its eight states, row of `needed`).
    self.strings: dict[int, tuple[int, int]] = {}
    self.limits: dict[tuple[int, int], np.ndarray] = {}
    self._interned: dict[tuple, int] = {}
    self._string_rows = string_rows
    self._moves: np.ndarray | None = None

  def state(self, edges: Mapping[int, int], *, accepting: bool = False) -> int:
    """Adds a state outside strings with these successors, dropping those that lead nowhere."""
    edges = {token: following for token, following in edges.items() if self._leads(following)}
    if not edges:
      return ACCEPTED if accepting else SINK
    if accepting:
      if not self.eos:
        raise InputError(
          "one sequence is a prefix of another; an EOS token is needed to tell them apart"
        )
      edges |= dict.fromkeys(self.eos, ACCEPTED)
    key = (accepting, *sorted(edges.items()))
    if key not in self._interned:
      distance = 0 if accepting else 1 + min(self.distance[n] for n in edges.values())
      self._interned[key] = self._add(edges, accepting, distance)
    return self._interned[key]

  def string(self, closing: int, *, minimum: int, maximum: int) -> int:
    """Adds free text of `minimum` to `maximum` characters, followed by state `closing`."""
    key = ("string", closing, minimum, maximum)
    if key in self._interned:
      return self._interned[key]
    if self._moves is None:
      self._moves = self._string_rows()
    if (minimum, maximum) not in self.limits:
      self.limits[minimum, maximum] = tokens_needed(self._moves, minimum, maximum)
    needed = self.limits[minimum, maximum]
    if not self._leads(closing) or needed[0] >= FAR:
      return SINK
    limit = list(self.limits).index((minimum, maximum))
    base = len(self.edges)
    for place in range(UTF8_STATES):
      self.strings[base + place] = (base, limit)
      edges = self.edges[closing] if place == 0 else {}
      self._add(edges, False, int(self.distance[closing] + needed[place]))
    self._interned[key] = base
    return base

  def trie(self, sequences: Sequence[tuple[Sequence[int], int]]) -> int:
    """Adds a trie of (token sequence, state that follows it) pairs. Returns: its start."""
    children: list[dict[int, int]] = [{}]
    ends: dict[int, int] = {}
    for tokens, following in sequences:
      node = 0
      for token in tokens:
        if token not in children[node]:
          children[node][token] = len(children)
          children.append({})
        node = children[node][token]
      ends[node] = self.merge(ends.get(node, SINK), following)
    built = [SINK] * len(children)
    for node in range(len(children) - 1, -1, -1):  # Children have higher numbers.
      inner = self.state({token: built[child] for token, child in children[node].items()})
      built[node] = self.merge(inner, ends.get(node, SINK))
    return built[0]

  def merge(self, left: int, right: int) -> int:
    """Returns a state with the successors of both. States of strings merge only with themselves."""
    if left == right or right == SINK:
      return left
    if left == SINK:
      return right
    edges = dict(self.edges[left])
    for token, following in self.edges[right].items():
      edges[token] = self.merge(edges.get(token, SINK), following)
    return self.state(edges, accepting=self.accepting[left] or self.accepting[right])

  def build(self, start: int) -> Automaton:
    """Builds the automaton that starts at `start`, a state outside strings."""
    self.edges[START] = self.edges[start]
    self.accepting[START] = self.accepting[start]
    self.distance[START] = self.distance[start]
    if start == len(self.edges) - 1 and start > START:  # No state leads to the last one.
      for values in (self.edges, self.accepting, self.distance):
        values.pop()
    degree = np.array([len(edges) for edges in self.edges], np.int32)
    width = next(
      (width for width in WIDTHS if np.sum(degree > width) * self.vocabulary * 4 <= DENSE_BYTES),
      WIDTHS[-1],
    )
    states = len(degree)
    row, base, limit = np.full(states, -1), np.zeros(states), np.full(states, -1)
    dense = [] if self._moves is None else list(self._moves)
    for node, (first, pair) in self.strings.items():
      row[node], base[node], limit[node] = node - first, first, pair
    for node in np.flatnonzero(degree > width):
      row[node] = len(dense)
      dense.append(np.full(self.vocabulary, -1, np.int32))
      dense[-1][list(self.edges[node])] = list(self.edges[node].values())
    listed = np.where(degree > width, 0, degree)
    lists = [sorted(self.edges[node].items()) for node in np.flatnonzero(listed)]
    flat = np.array([edge for edges in lists for edge in edges], np.int32).reshape(-1, 2)
    columns = max((len(needed) for needed in self.limits.values()), default=0)
    accepting = np.array(self.accepting)
    return padded(
      {
        "first": np.cumsum(listed) - listed,
        "degree": listed,
        "edge_token": flat[:, 0],
        "edge_next": flat[:, 1],
        "row": row,
        "next_dense": np.array(dense, np.int32).reshape(len(dense), self.vocabulary),
        "base": base,
        "limit": limit,
        "needed": np.array(
          [
            np.pad(needed, (0, columns - len(needed)), constant_values=FAR)
            for needed in self.limits.values()
          ],
          np.int32,
        ).reshape(len(self.limits), columns),
        "distance": np.array(self.distance),
        "accepting": accepting,
        "final": (degree == 0) & (row < 0),
      },
      width=width,
      eos=self.eos,
    )

  def _leads(self, node: int) -> bool:
    return self.distance[node] < FAR

  def _add(self, edges: Mapping[int, int], accepting: bool, distance: int) -> int:
    if len(self.edges) >= MAX_STATES:
      raise InputError(
        f"the constraint needs more than {MAX_STATES} states; lower maxItems or give fewer choices"
      )
    self.edges.append(edges)
    self.accepting.append(accepting)
    self.distance.append(min(distance, FAR))
    return len(self.edges) - 1


def tokens_needed(moves: np.ndarray, minimum: int, maximum: int) -> np.ndarray:
  """Least number of tokens until a string has `minimum` to `maximum` complete characters.

  Args: moves: [8, V] int32, see `token_bytes.string_moves`.
  Returns: [8 · (maximum + 2)] int32 at `8 · characters begun + place`; `FAR` if impossible.
  """
  distinct = [np.unique(row[row >= 0]) for row in moves]
  needed = np.full(UTF8_STATES * (maximum + 2), FAR, np.int32)
  for begun in range(maximum, -1, -1):
    for place in BY_MISSING_BYTES:
      if place == 0 and begun >= minimum:
        needed[UTF8_STATES * begun] = 0
        continue
      following = np.minimum(UTF8_STATES * begun + distinct[place], len(needed) - 1)
      best = 1 + needed[following].min(initial=FAR)
      needed[UTF8_STATES * begun + place] = min(best, FAR)
  return needed


def padded(arrays: Mapping[str, np.ndarray], *, width: int, eos: tuple[int, ...]) -> Automaton:
  """Makes an automaton on the device, with states, lists and dense rows padded to few sizes.

  Args: arrays: the array attributes of `Automaton`, of any integer type.
  """
  states, edges = _roomy(len(arrays["first"])), _roomy(len(arrays["edge_token"]))
  filled = {}
  for name in ARRAYS:
    values = np.asarray(arrays[name])
    if name not in ("next_dense", "needed"):
      count = edges if name.startswith("edge_") else states
      # No state leads to the padding; -1 keeps it out of the dense rows.
      value = -1 if name in ("row", "limit") else 0
      values = np.pad(values, (0, count - len(values)), constant_values=value)
    elif name == "next_dense" and len(values):
      more = (1 << (len(values) - 1).bit_length()) - len(values)
      values = np.pad(values, ((0, more), (0, 0)), constant_values=-1)
    filled[name] = values.astype(bool if name in ("accepting", "final") else np.int32)
  return Automaton(**to_device(filled), width=width, eos=eos)


def _roomy(count: int) -> int:
  """A power of two, and of four beyond 4,096, where batches of constraints are seldom alike."""
  bits = max(6, (count - 1).bit_length())
  return 1 << (bits + bits % 2 if bits > 12 else bits)
