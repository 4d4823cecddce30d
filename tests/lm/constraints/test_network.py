"""Networks of texts: exactly the paths from the first place to the end, whatever the weights."""

import itertools

import numpy as np
import pytest
from helpers.constraints import byte_level, runs, sentence_piece
from hypothesis import given, settings
from hypothesis import strategies as st

from gatrec_jax.errors import InputError
from gatrec_jax.lm.constraints.automaton import START
from gatrec_jax.lm.constraints.choices import accepts, min_tokens
from gatrec_jax.lm.constraints.network import most_tokens, network
from gatrec_jax.lm.tokens.token_bytes import make_spelling, spell, write

# 0 -> 1 by "You", to the end by "Nobody."; from 1 two texts meet in 2, one of them skips it.
PLACES = (
  (("You", 1), ("Nobody.", 3)),
  ((" like", 2), (" really like", 2), (" do.", 3)),
  ((" [a].", 3), (" drama.", 3)),
)
PATHS = {
  "Nobody.",
  "You do.",
  *(f"You{how} {what}." for how in (" like", " really like") for what in ("[a]", "drama")),
}


def spelling_of(tokenizer, eos):
  return make_spelling(tokenizer, vocabulary=len(tokenizer), eos=eos)


def automaton_of(tokenizer, places, eos=(1,)):
  spelling = spelling_of(tokenizer, eos)
  return network(spelling, places, vocabulary=len(tokenizer), eos=eos), spelling


def pieces(spelling, *texts):
  return [token for text in texts for token in spell(spelling, text)]


@pytest.mark.parametrize(("tokenizer", "eos"), [(byte_level, 1), (sentence_piece, 2)])
def test_random_answers_are_the_paths(tokenizer, eos):
  automaton, spelling = automaton_of(tokenizer(), PLACES, (eos,))
  longest = most_tokens(automaton)
  found, _ = runs(automaton, START, [longest] * 300, spread=0.5)
  assert {write(spelling.table, tokens) for tokens in found} == PATHS
  assert max(map(len, found)) == longest
  assert min(map(len, found)) == min_tokens(automaton)


def test_lengths_by_hand():
  automaton, spelling = automaton_of(byte_level(), PLACES)
  sizes = [len(pieces(spelling, *path)) for path in (["Nobody."], ["You", " do."])]
  assert min_tokens(automaton) == min(sizes)
  longest = pieces(spelling, "You", " really like", " drama.")
  assert most_tokens(automaton) >= len(longest) and accepts(automaton, longest)
  assert not accepts(automaton, longest[:-1])
  assert not accepts(automaton, pieces(spelling, "You", " like", " like", " drama."))


def test_a_text_that_another_begins_with_ends_by_eos():
  automaton, spelling = automaton_of(byte_level(), ((("You", 1), ("You like", 1)),))
  found, _ = runs(automaton, START, [most_tokens(automaton)] * 60)
  texts = {write(spelling.table, [one for one in tokens if one != 1]) for tokens in found}
  assert texts == {"You", "You like"}
  assert most_tokens(automaton) == len(spell(spelling, "You like"))


def test_alternatives_add_up_and_paths_multiply():
  places = tuple(tuple((f" {word}{n}.", n + 1) for word in "abcdefgh") for n in range(12))
  automaton, spelling = automaton_of(byte_level(), places)  # 8^12 paths
  assert len(np.asarray(automaton.first)) < 1024
  assert accepts(automaton, pieces(spelling, *(own[n % 8][0] for n, own in enumerate(places))))


words = st.text(st.sampled_from("ab .["), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(words, min_size=1, max_size=3, unique=True), min_size=1, max_size=3))
def test_every_path_is_accepted(alternatives):
  places = [[(text, n + 1) for text in own] for n, own in enumerate(alternatives)]
  automaton, spelling = automaton_of(byte_level(), places)
  lengths = []
  for path in itertools.product(*alternatives):
    tokens = pieces(spelling, *path)
    assert accepts(automaton, tokens)
    lengths.append(len(tokens))
  assert min_tokens(automaton) == min(lengths) and most_tokens(automaton) >= max(lengths)


@pytest.mark.parametrize(
  ("places", "said"),
  [
    ((), "at least one place"),
    (((("", 1),),), "place 0 of a network has an empty text"),
    (((("a", 0),),), "place 0 of a network leads to 0, not to a later one of 1"),
    (((("a", 2),),), "leads to 2"),
    (((("a", 1),), ()), "no path from its first place"),
  ],
)
def test_networks_that_lead_nowhere_are_refused(places, said):
  with pytest.raises(InputError, match=said):
    automaton_of(byte_level(), places)
