"""Vocabularies as bytes: exact tokenization of any text, UTF-8 in pieces."""

import numpy as np
import pytest
import tokenizers
from helpers import constraints as helpers
from helpers.paths import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from gatrec_jax.errors import InputError
from gatrec_jax.lm.tokens.token_bytes import (
  UTF8_STATES,
  byte_alphabet,
  make_spelling,
  spell,
  string_moves,
  token_bytes,
  write,
)

STORIES = SHARED / "models" / "stories260K"
KINDS = {"byte_level": (helpers.byte_level, 1), "sentence_piece": (helpers.sentence_piece, 2)}
EVERY_BYTE = [bytes([byte]) for byte in range(256)]
FORBIDDEN = (*range(32), 34, 92)


def spelling_of(kind, **options):
  make, eos = KINDS[kind]
  tokenizer = make(**options)
  return make_spelling(tokenizer, vocabulary=len(tokenizer) + 3, eos=[eos])


def test_byte_alphabet_is_that_of_tokenizers():
  alphabet = byte_alphabet()
  assert set(alphabet) == set(pre_tokenizers.ByteLevel.alphabet())
  assert sorted(alphabet.values()) == list(range(256))
  assert alphabet["Ġ"] == 0x20 and alphabet["a"] == 0x61


def test_tables_solved_by_hand():
  table = token_bytes(helpers.byte_level())
  assert table[0] is None and table[1] is None
  assert {data for data in table if data and len(data) == 1} == set(EVERY_BYTE)
  assert b" drama" in table and "侍".encode() not in table  # Split into bytes.
  table = token_bytes(helpers.sentence_piece())
  assert table[:3] == [None] * 3
  assert table[3:259] == EVERY_BYTE
  assert b" " in table and b" drama" in table


def test_tokens_added_as_plain_text_write_what_decode_returns():
  tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=tokenizers.Tokenizer.from_str(helpers.byte_level().backend_tokenizer.to_str())
  )
  tokenizer.add_tokens(["<think> so"])
  token = tokenizer.convert_tokens_to_ids("<think> so")
  assert token_bytes(tokenizer)[token] == b"<think> so" == tokenizer.decode([token]).encode()


@pytest.mark.parametrize("kind", KINDS)
@given(text=st.text(alphabet=st.characters(codec="utf-8"), max_size=20))
@settings(max_examples=150, deadline=None)
def test_any_text_is_tokenized_exactly(kind, text):
  spelling = spelling_of(kind)
  tokens = spell(spelling, text)
  assert b"".join(spelling.table[token] for token in tokens) == text.encode()
  assert write(spelling.table, tokens) == text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["</s>", "▁", "a</s>b", "<0x41>", " two  spaces ", "e\u0301"])
def test_text_that_tokenizers_rewrite_is_tokenized_exactly(kind, text):
  spelling = spelling_of(kind)
  assert write(spelling.table, spell(spelling, text)) == text


def test_the_segmentation_of_the_tokenizer_is_preferred():
  tokenizer = helpers.byte_level()
  spelling = spelling_of("byte_level")
  for line in helpers.CORPUS:
    assert spell(spelling, line) == tokenizer.encode(line, add_special_tokens=False)
  spelling = spelling_of("sentence_piece")
  words = [spelling.table[token] for token in spell(spelling, "drama comedy")]
  assert words[-1] == b" comedy" and words[0][:1] == b"d"
  assert [spelling.table[token] for token in spell(spelling, " drama")] == [b" drama"]


def test_normalized_text_falls_back_to_the_vocabulary():
  decomposed, composed = "Ame\u0301lie", "Am\u00e9lie"
  spelling = spelling_of("byte_level", nfc=True)
  assert spell(spelling, decomposed) != spell(spelling, composed)
  assert write(spelling.table, spell(spelling, decomposed)) == decomposed


def test_the_fallback_finds_what_longest_match_misses():
  words = {"ab": 0, "abc": 1, "cd": 2, "<unk>": 3}
  backend = tokenizers.Tokenizer(models.WordLevel(words, unk_token="<unk>"))
  backend.decoder = decoders.Metaspace()
  tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
  spelling = make_spelling(tokenizer, vocabulary=4, eos=[])
  assert spell(spelling, "abcd") == [0, 2]
  with pytest.raises(InputError, match=r"'abce'.*cannot write it beyond byte 3 of 4"):
    spell(spelling, "abce")
  with pytest.raises(InputError, match="surrogate"):
    spell(spelling, "\ud800")


def test_write_replaces_broken_characters_and_skips_special_tokens():
  table = token_bytes(helpers.sentence_piece())
  assert write(table, [1, 3 + 0xC3, 3 + 0xA9, 2]) == "é"
  assert write(table, [3 + 0xC3, 10_000, -1]) == "\ufffd"


@given(data=st.one_of(st.binary(max_size=5), st.text(max_size=5).map(str.encode)))
@settings(max_examples=200, deadline=None)
def test_moves_read_exactly_utf8(data):
  moves = string_moves(EVERY_BYTE, forbidden=FORBIDDEN)
  place, begun = 0, 0
  for byte in data:
    move = moves[place, byte]
    if move < 0:
      break
    begun, place = begun + move // UTF8_STATES, move % UTF8_STATES
  else:
    move = 0
  try:
    text = data.decode()
    legal = not set(data) & set(FORBIDDEN)
  except UnicodeDecodeError:
    legal = False
  assert (move >= 0 and place == 0) == legal
  if legal:
    assert begun == len(text)


@given(
  text=st.text(alphabet="aé侍😀\U0010ffff\ud7ff\u0800", min_size=1, max_size=6), data=st.data()
)
@settings(max_examples=100, deadline=None)
def test_moves_of_tokens_that_split_characters(text, data):
  whole = text.encode()
  cuts = sorted(data.draw(st.sets(st.integers(1, len(whole) - 1)))) if len(whole) > 1 else []
  pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
  moves = string_moves([None, *pieces], forbidden=FORBIDDEN)
  place, begun = 0, 0
  for token in range(1, len(pieces) + 1):
    assert moves[place, token] >= 0
    begun += moves[place, token] // UTF8_STATES
    place = moves[place, token] % UTF8_STATES
  assert (place, begun) == (0, len(text))
  assert (moves[:, 0] == -1).all()


def test_moves_of_an_empty_vocabulary():
  np.testing.assert_array_equal(string_moves([None, None], forbidden=()), np.full((8, 2), -1))


def test_unsupported_tokenizers_are_reported():
  backend = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
  backend.decoder = decoders.WordPiece()
  with pytest.raises(InputError, match="a WordPiece decoder is not supported; use one with byte-"):
    token_bytes(PreTrainedTokenizerFast(tokenizer_object=backend))
  backend.decoder = None
  with pytest.raises(InputError, match="has no decoder"):
    token_bytes(PreTrainedTokenizerFast(tokenizer_object=backend))
  with pytest.raises(InputError, match="object: not a fast tokenizer"):
    token_bytes(object())


@pytest.mark.skipif(not STORIES.is_dir(), reason=f"{STORIES} is not there")
def test_stories_tokenizer():
  tokenizer = AutoTokenizer.from_pretrained(STORIES)
  spelling = make_spelling(tokenizer, vocabulary=512, eos=[2])
  text = 'Once upon a time, Zoë saw 黒澤; "the end"\n'
  tokens = tokenizer.encode(text, add_special_tokens=False)
  assert write(spelling.table, tokens) == " " + text
  assert tokenizer.decode(tokens) == text
  assert write(spelling.table, spell(spelling, text)) == text
