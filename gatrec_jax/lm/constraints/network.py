"""Constrains answers to the paths of a network of texts.

A network has places 0, 1, …, and each place has texts that lead on to later places. An answer
begins at place 0, takes one of its texts, goes on where that leads, and is complete after the last
place. Where alternatives repeat, as in sentences that each have several wordings, the automaton
grows with the number of texts, not with that of the paths.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gatrec_jax.errors import InputError
from gatrec_jax.lm.constraints.automaton import ACCEPTED, SINK, START, Automaton, Builder
from gatrec_jax.lm.tokens.token_bytes import Spelling, spell

Places = Sequence[Sequence[tuple[str, int]]]
"""For each place its texts, each with the place that it leads to; the number of places is the
end."""


def network(
  spelling: Spelling, places: Places, *, vocabulary: int, eos: Sequence[int]
) -> Automaton:
  """Makes the automaton of all paths from place 0 to the end.

  Texts are spelled as continuations: a space between two of them belongs to one.

  Args: spelling: of the model's tokens. places: the network. vocabulary: V. eos: EOS tokens.
  Raises: InputError for a network without places, an empty text, a text that leads back or past
    the end, and a text that the tokenizer cannot write.
  """
  if not places:
    raise InputError("a network needs at least one place")
  builder = Builder(vocabulary=vocabulary, eos=eos)
  states = [SINK] * len(places) + [ACCEPTED]
  for place in reversed(range(len(places))):
    for text, following in places[place]:
      if not text:
        raise InputError(f"place {place} of a network has an empty text")
      if not place < following <= len(places):
        raise InputError(
          f"place {place} of a network leads to {following}, not to a later one of {len(places)}"
        )
    states[place] = builder.trie(
      [(spell(spelling, text), states[following]) for text, following in places[place]]
    )
  if states[0] == SINK:
    raise InputError("a network has no path from its first place to its end")
  return builder.build(states[0])


def most_tokens(automaton: Automaton) -> int:
  """The number of tokens of the longest text of a network, with the EOS that may end it.

  Args: automaton: from `network`.
  """
  first, degree, edge_next, row, dense = (
    np.asarray(values)
    for values in (
      automaton.first,
      automaton.degree,
      automaton.edge_next,
      automaton.row,
      automaton.next_dense,
    )
  )
  longest = np.zeros(len(first), np.int64)
  # Automata are built from their ends, so states lead to earlier ones, the first state apart.
  for node in (*range(START + 1, len(first)), START):
    following = edge_next[first[node] : first[node] + degree[node]]
    if row[node] >= 0:
      following = dense[row[node]][dense[row[node]] >= 0]
    longest[node] = 1 + longest[following].max(initial=-1)
  return int(longest[START])
