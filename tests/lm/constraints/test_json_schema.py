"""Answers constrained to a JSON schema: random runs are valid, limits are exact."""

import functools
import itertools
import json
import re

import jax
import numpy as np
import pytest
from helpers import constraints as helpers
from helpers.paths import SHARED
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from gatrec_jax.errors import InputError
from gatrec_jax.lm.constraints import schema as schemas
from gatrec_jax.lm.constraints.automaton import SINK
from gatrec_jax.lm.constraints.choices import (
  START,
  accepting,
  accepts,
  advance,
  allowed_tokens,
  choices,
  finished,
  min_tokens,
  start_state,
  union,
)
from gatrec_jax.lm.constraints.json_schema import json_schema
from gatrec_jax.lm.tokens.token_bytes import make_spelling, spell, token_bytes, write

STORIES = SHARED / "models" / "stories260K"
KINDS = {"bytes": (helpers.byte_level(), 1), "pieces": (helpers.sentence_piece(), 2)}
GENRES = ["drama", "crime thriller", "Ужасы", "黒", 'say "hi"\n', "a\\b"]
WORD = {"type": "string", "maxLength": 12}
PROFILE = {
  "type": "object",
  "title": "profile",
  "properties": {
    "genres": {
      "type": "array",
      "items": {"enum": GENRES},
      "minItems": 1,
      "maxItems": 3,
      "uniqueItems": True,
    },
    "score": {"type": "integer", "minimum": -5, "maximum": 10**9},
    "year": {"type": "integer", "minimum": 1990, "maximum": 2024},
    "likes": WORD,
    "note é": {"type": "string", "minLength": 3, "maxLength": 9},
    "seen": {"type": "boolean"},
    "kind": {"const": "film"},
    "inner": {
      "type": "object",
      "properties": {
        "tags": {
          "type": "array",
          "items": {"type": "string", "minLength": 0, "maxLength": 4},
          "maxItems": 2,
        },
        "parts": {
          "type": "array",
          "minItems": 1,
          "maxItems": 2,
          "items": {
            "type": "object",
            "properties": {"n": {"type": "integer", "minimum": -(10**6), "maximum": -3}},
          },
        },
        "none": {"type": "object", "properties": {}},
      },
      "additionalProperties": False,
      "required": ["tags"],
    },
  },
}

masks = jax.jit(allowed_tokens)
move = jax.jit(advance)


@functools.cache
def automaton_of(kind, text, **options):
  tokenizer, eos = KINDS[kind]
  return json_schema(
    tokenizer, json.loads(text), vocabulary=len(tokenizer) + 4, eos=[eos], **options
  )


def made(kind, schema, **options):
  return automaton_of(kind, json.dumps(schema), **options)


@functools.cache
def spelling(kind):
  tokenizer, eos = KINDS[kind]
  return make_spelling(tokenizer, vocabulary=len(tokenizer) + 4, eos=[eos])


def byte_by_byte(kind, text):
  """Tokenizes a text into single bytes."""
  return [spelling(kind).ids[bytes([byte])] for byte in text.encode()]


def check(value, schema):
  """Independent validation of a value: raises AssertionError if it does not fit the schema."""
  if "enum" in schema or "const" in schema:
    assert value in schema.get("enum", [schema.get("const")])
  elif schema["type"] == "string":
    assert isinstance(value, str)
    assert schema.get("minLength", 1) <= len(value) <= schema.get("maxLength", 200)
    assert not any(character < " " or character in '"\\' for character in value)
    value.encode()
  elif schema["type"] == "integer":
    assert type(value) is int and schema["minimum"] <= value <= schema["maximum"]
  elif schema["type"] == "boolean":
    assert isinstance(value, bool)
  elif schema["type"] == "array":
    assert schema.get("minItems", 0) <= len(value) <= schema["maxItems"]
    for item in value:
      check(item, schema["items"])
    if schema.get("uniqueItems"):
      assert len(set(value)) == len(value)
  else:
    assert list(value) == list(schema["properties"])
    for name, inner in schema["properties"].items():
      check(value[name], inner)


@pytest.mark.parametrize("kind", KINDS)
def test_random_runs_are_valid_whatever_their_budget(kind):
  automaton = made(kind, PROFILE)
  # Also runs with the least budget, and rows that could take fewer tokens but must not take more.
  budget = min_tokens(automaton) + np.arange(500) % 50
  rows, state = helpers.runs(automaton, START, budget, seed=2)
  assert accepting(automaton, state).all()
  least = min_tokens(automaton)
  assert {len(row) for row, limit in zip(rows, budget, strict=True) if limit == least} == {least}
  start = start_state(np.full(500, START, np.int32))
  assert not masks(automaton, start, np.full(500, least - 1)).any()
  table = token_bytes(KINDS[kind][0])
  values = []
  for row, limit in zip(rows, budget, strict=True):
    assert len(row) <= limit and accepts(automaton, row)
    text = write(table, row)
    values.append(json.loads(text))
    assert json.dumps(values[-1], ensure_ascii=False) == text
    check(values[-1], PROFILE)
  assert {genre for value in values for genre in value["genres"]} == set(GENRES)
  assert {len(value["genres"]) for value in values} == {1, 2, 3}
  assert {len(value["inner"]["tags"]) for value in values} == {0, 1, 2}
  assert {len(value["likes"]) for value in values} == set(range(1, 13))
  assert {value["seen"] for value in values} == {True, False}
  assert {value["year"] for value in values} == set(range(1990, 2025))
  assert any(ord(letter) > 0xFFFF for value in values for letter in value["likes"])
  assert min(value["score"] for value in values) < 0
  assert max(value["score"] for value in values) > 10**8


def test_the_least_budget_solved_by_hand():
  ids = spelling("bytes").ids
  assert {b'"', b'{"', b'":'} <= ids.keys()
  plain = {"type": "string", "maxLength": 12}
  assert min_tokens(made("bytes", plain)) == 3
  assert min_tokens(made("bytes", plain | {"minLength": 0})) == 2
  inside = [data for data in ids if not set(data) & {*range(32), ord('"'), ord("\\")}]
  longest = max(len(data.decode(errors="ignore")) for data in inside)
  assert longest > 5
  exact = made("bytes", {"type": "string", "minLength": longest + 1, "maxLength": longest + 1})
  assert min_tokens(exact) == 4


def test_layout_and_segmentation_are_the_usual_ones():
  text = '{"genres": ["drama"], "score": 12, "likes": "slow films", "name": "x"}'
  schema = {
    "type": "object",
    "properties": {
      "genres": {"type": "array", "items": {"enum": ["drama", "comedy"]}, "maxItems": 2},
      "score": {"type": "integer", "minimum": 0, "maximum": 99},
      "likes": {"enum": ["slow films", "slow"]},
      "name": {"const": "x"},
    },
  }
  automaton = made("bytes", schema)
  assert accepts(automaton, spell(spelling("bytes"), text))
  assert not accepts(automaton, spell(spelling("bytes"), text.replace(": ", ":")))
  assert not accepts(automaton, spell(spelling("bytes"), text)[:-1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("letter", ["a", "é", "侍", "😀"])
def test_lengths_are_counted_in_characters(kind, letter):
  automaton = made(kind, {"type": "string", "minLength": 2, "maxLength": 4})
  quote = byte_by_byte(kind, '"')
  for count in range(7):
    tokens = quote + byte_by_byte(kind, letter * count) + quote
    assert accepts(automaton, tokens) == (2 <= count <= 4)
  assert not accepts(automaton, quote + byte_by_byte(kind, "éé")[:-1] + quote)


def test_the_device_counts_like_the_host():
  automaton = made("bytes", {"type": "string", "minLength": 2, "maxLength": 4})
  texts = [letter * count for letter in ("a", "é", "😀") for count in range(7)]
  rows = [byte_by_byte("bytes", f'"{text}"') for text in texts]
  tokens = np.array([row + [row[-1]] * (26 - len(row)) for row in rows])
  state = start_state(np.full(len(rows), START, np.int32))
  for place in range(tokens.shape[1]):
    # With enough budget, `advance` rejects exactly what the mask forbids.
    allowed = masks(automaton, state, np.full(len(rows), 99))
    allowed = np.asarray(allowed)[np.arange(len(rows)), tokens[:, place]]
    going = ~finished(automaton, state)
    state = move(automaton, state, tokens[:, place])
    assert (allowed == (going & (state.node != SINK))).all()
  assert finished(automaton, state).all()
  assert accepting(automaton, state).tolist() == [2 <= len(text) <= 4 for text in texts]


@pytest.mark.parametrize("text", ['a"b', "a\\n", "a\nb", "\x00", "\x1f"])
def test_free_text_contains_no_escapes(text):
  automaton = made("bytes", {"type": "string", "maxLength": 9})
  assert not accepts(automaton, byte_by_byte("bytes", f'"{text}"'))
  assert accepts(automaton, byte_by_byte("bytes", '"a\x7fb"'))


def test_broken_utf8_is_never_accepted():
  automaton = made("bytes", {"type": "string", "maxLength": 9})
  ids = spelling("bytes").ids
  for data in (b"\xc3", b"\xa9", b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xff"):
    tokens = [ids[b'"'], *(ids[bytes([byte])] for byte in data), ids[b'"']]
    assert not accepts(automaton, tokens)
    assert not accepts(automaton, tokens[:-1])


@pytest.mark.parametrize("kind", KINDS)
def test_sampled_text_splits_characters_but_stays_valid(kind):
  automaton = made(kind, {"type": "string", "minLength": 2, "maxLength": 5})
  table = token_bytes(KINDS[kind][0])
  # Half of the logits favor bytes within characters.
  inside = np.array([bool(data) and data[0] >= 0x80 for data in table] + [False] * 4)
  logits = np.where(inside, 3.0, 0.0) * np.ones((300, 1))
  rows, state = helpers.runs(
    automaton, START, min_tokens(automaton) + np.arange(300) % 15, logits=logits
  )
  assert accepting(automaton, state).all()
  split = 0
  for row in rows:
    text = b"".join(table[token] for token in row).decode()  # strict: whole characters
    assert 2 <= len(json.loads(text)) <= 5
    split += any(0x80 <= table[token][0] < 0xC0 for token in row)
  assert split > 100


def numbers(kind, minimum, maximum):
  return json_schema(
    KINDS[kind][0],
    {"type": "integer", "minimum": minimum, "maximum": maximum},
    vocabulary=len(KINDS[kind][0]),
    eos=[KINDS[kind][1]],
  )


@pytest.mark.parametrize("enumerated", [0, 1_000])
@given(minimum=st.integers(-130, 130), size=st.integers(0, 130))
@settings(max_examples=15, deadline=None)
def test_exactly_the_integers_of_a_range(enumerated, minimum, size):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(schemas, "ENUMERATED", enumerated)
    automaton = numbers("bytes", minimum, minimum + size)
  for value in range(minimum - 15, minimum + size + 16):
    tokens = spell(spelling("bytes"), str(value))
    assert accepts(automaton, tokens) == (minimum <= value <= minimum + size)
  for text in ("-0", "00", f"0{minimum}", f"+{size}", "-", "", f"{minimum}.0", f" {minimum}"):
    assert not accepts(automaton, byte_by_byte("bytes", text))


@given(minimum=st.integers(-(2**63), 2**63), maximum=st.integers(-(2**63), 2**63), data=st.data())
@example(0, 10**9, None)
@settings(max_examples=25, deadline=None)
def test_wide_ranges(minimum, maximum, data):
  assume(maximum - minimum > 1_000)
  automaton = numbers("pieces", minimum, maximum)
  inside = data.draw(st.integers(minimum, maximum)) if data else 123_456_789
  for value in (minimum, maximum, inside, min(max(0, minimum), maximum)):
    assert accepts(automaton, byte_by_byte("pieces", str(value)))
  for value in (minimum - 1, maximum + 1, minimum * 10 - 99, maximum * 10 + 99):
    within = minimum <= value <= maximum
    assert accepts(automaton, byte_by_byte("pieces", str(value))) == within


def test_sampled_integers_reach_every_value_of_a_range(monkeypatch):
  monkeypatch.setattr(schemas, "ENUMERATED", 0)
  automaton = numbers("bytes", -12, 23)
  rows, state = helpers.runs(automaton, START, np.full(2_000, 4), spread=1.0)
  assert accepting(automaton, state).all()
  table = token_bytes(KINDS["bytes"][0])
  assert {int(write(table, row)) for row in rows} == set(range(-12, 24))


def test_arrays_solved_by_hand():
  def accepted(schema, text):
    return accepts(made("pieces", schema), byte_by_byte("pieces", text))

  ab = {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2}

  # Fixed text has only the segmentation of `spell`.
  def spelled(schema, text):
    return accepts(made("bytes", schema), spell(spelling("bytes"), text))

  assert spelled(ab, "[]") and spelled(ab, '["a"]')
  assert not spelled(ab | {"minItems": 1}, "[]")
  assert not spelled(ab, '["c"]')
  flags = {
    "type": "array",
    "items": {"type": "array", "items": {"type": "boolean"}, "maxItems": 1},
    "maxItems": 1,
  }
  assert all(spelled(flags, text) for text in ("[]", "[[]]", "[[true]]"))
  assert spelled(ab | {"maxItems": 0}, "[]") and not spelled(ab | {"maxItems": 0}, '["a"]')
  assert not accepted(ab, "[")


def test_unique_items_are_permutations():
  names = ["a", "b", "c"]
  schema = {
    "type": "array",
    "items": {"enum": names},
    "minItems": 3,
    "maxItems": 9,
    "uniqueItems": True,
  }
  automaton = made("bytes", schema)
  rows, _ = helpers.runs(automaton, START, np.full(300, 30), spread=0.5)
  table = token_bytes(KINDS["bytes"][0])
  found = {tuple(json.loads(write(table, row))) for row in rows}
  assert len(found) == 6 and all(sorted(row) == names for row in found)


def test_items_in_order_are_the_ordered_subsets():
  names = ["a", "b", "c", 'say "hi"']
  schema = {
    "type": "array",
    "items": {"enum": names},
    "minItems": 2,
    "maxItems": 3,
    "inOrder": True,
  }
  automaton = made("bytes", schema)
  rows, _ = helpers.runs(automaton, START, np.full(400, 40), spread=0.5)
  table = token_bytes(KINDS["bytes"][0])
  found = {tuple(json.loads(write(table, row))) for row in rows}
  wanted = {own for size in (2, 3) for own in itertools.combinations(names, size)}
  assert found == wanted
  # More values than `uniqueItems` could take, and a maximum beyond their number.
  many = {"enum": [f"{number}" for number in range(40)]}
  long = schema | {"items": many, "maxItems": 64}
  assert accepts(made("bytes", long), spell(spelling("bytes"), json.dumps(many["enum"])))
  assert not accepts(made("bytes", long), spell(spelling("bytes"), '["2", "1"]'))


SENTENCE = {
  "type": "string",
  "words": ["film", "drama", "café"],
  "links": ["of", "the", "film"],
  "starts": ["A", "The slow"],
  "minWords": 2,
  "maxWords": 4,
}
_PIECE = "(?: (?:of|the))* (?:film|drama|café)"


@pytest.mark.parametrize("kind", list(KINDS))
def test_sentences_have_the_given_words_and_no_others(kind):
  automaton = made(kind, {"type": "object", "properties": {"s": SENTENCE, "t": {"const": "x"}}})
  rows, state = helpers.runs(automaton, START, np.full(400, 120), spread=1.0)
  assert accepting(automaton, state).all()
  table = token_bytes(KINDS[kind][0])
  found = {json.loads(write(table, row))["s"] for row in rows}
  assert len(found) > 100
  for text in found:
    assert re.fullmatch(rf"(?:A|The slow){_PIECE}(?:,?{_PIECE})*\.", text), text
    assert 2 <= len(text.removeprefix("The ").split()) - 1 <= 4
  assert {text.split(" ")[0] for text in found} == {"A", "The"}
  assert any("," in text for text in found)
  counts = {len(text.removeprefix("The ").split()) - 1 for text in found}
  assert counts == {2, 3, 4}


@pytest.mark.parametrize(
  ("text", "holds"),
  [
    ("A film drama.", True),
    ("A film, of the drama.", True),
    ("A the film.", True),
    ("A film.", False),  # too short
    ("A film of the.", False),  # ends with a link
    ("A of, film drama.", False),
    ("A film,, drama.", False),
    ("A film drama film drama film.", False),
    ("Film drama drama.", False),
  ],
)
def test_sentences_solved_by_hand(text, holds):
  assert accepts(made("bytes", SENTENCE), byte_tokens(json.dumps(text))) == holds


def byte_tokens(text):
  """A text in the segmentation of sentences: the words one by one."""
  start, *rest = text.removesuffix('."').split(" ")
  pieces = [start]
  for word in rest:
    pieces += [f" {word.rstrip(',')}", *word[len(word.rstrip(",")) :]]
  return [token for piece in [*pieces, '."'] for token in spell(spelling("bytes"), piece)]


def test_string_fields_share_their_dense_rows():
  ten = {
    "type": "object",
    "properties": {f"f{at}": {"type": "string", "maxLength": 5 + at % 2} for at in range(10)},
  }
  automaton = made("bytes", ten)
  assert automaton.next_dense.shape[0] == 8
  assert automaton.needed.shape[0] == 2
  assert int((automaton.limit >= 0).sum()) == 80
  no_text = made("bytes", {"type": "boolean"})
  assert no_text.next_dense.shape[0] == 0


def test_union_of_a_schema_and_a_trie():
  tokenizer, eos = KINDS["bytes"]
  short = {"type": "object", "properties": {"a": {"type": "string", "maxLength": 3}}}
  longer = {"type": "object", "properties": {"b": {"type": "string", "minLength": 4}}}
  titles = [f"{word}{number}" for word in GENRES for number in range(20)]
  titles += [chr(code) for code in range(40, 91)]
  parts = [
    made("bytes", short),
    choices(tokenizer, titles, vocabulary=len(tokenizer) + 4, eos=[eos]),
    made("bytes", longer),
  ]
  assert parts[1].next_dense.shape[0] >= 1
  both, starts = union(parts)
  used = (np.asarray(both.next_dense) >= 0).any(axis=1)  # the others are padding
  assert used.sum() == 8 + parts[1].next_dense.shape[0]
  rows, state = helpers.runs(both, starts[np.arange(300) % 3], np.full(300, 60))
  assert accepting(both, state).all()
  table = token_bytes(tokenizer)
  for at, row in enumerate(rows):
    text = write(table, row)
    assert accepts(parts[at % 3], row) and accepts(both, row, int(starts[at % 3]))
    if at % 3 == 1:
      assert text in titles
    else:
      check(json.loads(text), (short, None, longer)[at % 3])


def test_a_vocabulary_that_cannot_write_the_text():
  tokenizer, eos = KINDS["bytes"]
  with pytest.raises(InputError, match="cannot write it beyond byte"):
    json_schema(tokenizer, {"const": "{"}, vocabulary=40, eos=[eos])
  letters = {"type": "string", "minLength": 1, "maxLength": 0}
  with pytest.raises(InputError, match="minLength 1 is more than maxLength 0"):
    json_schema(tokenizer, letters, vocabulary=len(tokenizer), eos=[eos])


@pytest.mark.skipif(not STORIES.is_dir(), reason=f"{STORIES} is not there")
def test_the_stories_tokenizer():
  tokenizer = AutoTokenizer.from_pretrained(STORIES)
  automaton = json_schema(tokenizer, PROFILE, vocabulary=512, eos=[2])
  rows, state = helpers.runs(automaton, START, np.full(100, min_tokens(automaton) + 40))
  assert accepting(automaton, state).all()
  for row in rows:
    check(json.loads(write(token_bytes(tokenizer), row)), PROFILE)
    check(json.loads(tokenizer.decode(row)), PROFILE)
