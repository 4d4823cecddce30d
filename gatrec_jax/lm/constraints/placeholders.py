"""Constrains answers to sentences with placeholders such as [a], [b].

A model that writes `You liked [a], and [b] is back.` cannot misspell or invent what [a] and [b]
stand for. The automaton allows every token whose bytes keep to this form: printable ASCII on one
line, no digits, brackets only around one of the given letters, and an end only after a period.
"""

from __future__ import annotations

import string

import numpy as np

from gatrec_jax.errors import InputError
from gatrec_jax.lm.constraints.automaton import ACCEPTED, ARRAYS, FAR, START, Automaton, padded
from gatrec_jax.lm.folders.load import LanguageModel

LETTERS = string.ascii_lowercase
MOST_MARKS = len(LETTERS)
# Places of the reader: in free text, after a period, after "[", after a letter.
_WORDS, _STOP, _OPEN, _LETTER = range(4)
_PLACES = (START, START + 1, START + 2, START + 3)  # states; START is in free text
_FREE = frozenset(string.printable.encode()) - frozenset(b"[]\n\r\t\v\f" + string.digits.encode())


def mark(place: int) -> str:
  """Returns the placeholder with index `place`: "[a]", "[b]", …; fails from `MOST_MARKS` on."""
  return f"[{LETTERS[place]}]"


def marked_sentences(model: LanguageModel, marks: int) -> Automaton:
  """Constrains the answers of `generate` to sentences with any of the first `marks` placeholders.

  Args: model: a decoder with a tokenizer. marks: number of placeholders, 0 to `MOST_MARKS`.
  Raises: InputError for more placeholders, a model without an EOS token, or one whose tokens cannot
    write such sentences.
  """
  if not 0 <= marks <= MOST_MARKS:
    raise InputError(f"{marks} placeholders: must be 0 to {MOST_MARKS}, the number of letters")
  if not model.eos:
    raise InputError(f"{model.name}: has no EOS token, so its sentences would never end")
  letters = frozenset(LETTERS[:marks].encode())
  table, vocabulary = model.spelling.table, model.config.vocabulary
  rows = np.full((len(_PLACES), vocabulary), -1, np.int32)
  for token, data in enumerate(table):
    for place in range(len(_PLACES)) if data else ():
      following = _read(place, data, letters)
      if following is not None:
        rows[place, token] = _PLACES[following]
  rows[_STOP, list(model.eos)] = ACCEPTED
  distance = _distances(rows)
  if distance[START] >= FAR:
    raise InputError(f"{model.name}: its tokens cannot write a period")
  states = len(distance)
  arrays = {name: np.zeros(states, np.int32) for name in ARRAYS}
  arrays |= {
    "edge_token": np.zeros(0, np.int32),
    "edge_next": np.zeros(0, np.int32),
    "row": np.array([-1, -1, *range(len(_PLACES))]),
    "limit": np.full(states, -1),
    "next_dense": rows,
    "needed": np.zeros((0, 0), np.int32),
    "distance": distance,
    "accepting": np.arange(states) == _PLACES[_STOP],
    "final": np.arange(states) < START,
  }
  arrays["accepting"][ACCEPTED] = True
  return padded(arrays, width=1, eos=tuple(sorted(model.eos)))


def _read(place: int, data: bytes, letters: frozenset[int]) -> int | None:
  """Returns the reader's place after these bytes, or None if they break the form."""
  for byte in data:
    if place == _OPEN:
      place = _LETTER if byte in letters else None
    elif place == _LETTER:
      place = _WORDS if byte == ord("]") else None
    elif byte == ord("["):
      place = _OPEN
    elif byte in _FREE:
      place = _STOP if byte == ord(".") else _WORDS
    else:
      place = None
    if place is None:
      return None
  return place


def _distances(rows: np.ndarray) -> np.ndarray:
  """[S] int32: the least number of tokens from each state to a period.

  Also removes moves from `rows` that lead nowhere (an open bracket if there are no letters).
  """
  distance = np.full(START + len(rows), FAR, np.int32)
  distance[[ACCEPTED, _PLACES[_STOP]]] = 0
  for _ in rows:  # no path is longer than the number of places
    for place, row in enumerate(rows):
      nearest = distance[row[row >= 0]].min(initial=FAR - 1)
      distance[_PLACES[place]] = min(distance[_PLACES[place]], nearest + 1)
  rows[(rows >= 0) & (distance[rows] >= FAR)] = -1
  return distance
