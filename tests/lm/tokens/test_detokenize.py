"""From tokens to text: stop strings, streaming, multi-byte characters, real stories."""

import functools

import pytest
from helpers.constraints import byte_level, sentence_piece
from helpers.paths import STORIES
from helpers.scripted_decoder import scripted_model
from hypothesis import given, settings
from hypothesis import strategies as st

from gatrec_jax.errors import InputError
from gatrec_jax.lm.folders.load import load_decoder
from gatrec_jax.lm.inference.decode import decode, prefill
from gatrec_jax.lm.inference.generate import generate, warm_up
from gatrec_jax.lm.tokens.detokenize import TextTail, answer_text, cut_at_stop
from gatrec_jax.lm.tokens.token_bytes import make_spelling

TEXT = "movi: café東😀!"  # no byte occurs twice
EOS = 1


@functools.cache
def spelling_of(kind):
  tokenizer = {"bytes": byte_level, "pieces": sentence_piece}[kind]()
  return make_spelling(tokenizer, vocabulary=len(tokenizer), eos=())


@functools.cache
def byte_model():
  """A model that writes `TEXT` after "?", byte by byte, then EOS; after "0", zeros without end."""
  tokenizer = byte_level(258)
  ids = make_spelling(tokenizer, vocabulary=258, eos=(EOS,)).ids
  script = [ids[bytes([byte])] for byte in f"?{TEXT}".encode()]
  return scripted_model(tokenizer, [*script, EOS], [ids[b"0"]] * 2, eos=(EOS,), context=64)


def pieces_of(**options):
  """The answer to "?", in a batch with one to "0", and its pieces as they were streamed."""
  pieces = {0: [], 1: []}
  answer, other = generate(
    byte_model(),
    ["?", "0"],
    max_tokens=30,
    special_tokens=False,
    **options,
    on_text=lambda row, text: pieces[row].append(text),
  )
  assert other.text == "0" * 30 == "".join(pieces[1]) and other.finish == "length"
  assert all(pieces[0])
  return answer, pieces[0]


def test_streamed_pieces_are_the_answer():
  answer, pieces = pieces_of()
  assert answer.text == TEXT and answer.finish == "eos" and EOS not in answer.tokens
  assert len(answer.tokens) == len(TEXT.encode())
  # The text is checked after 1 token, then after 17, which is within one of the last characters.
  assert len(pieces) == 3 and "".join(pieces) == TEXT


@pytest.mark.parametrize(
  ("stop", "text"),
  (
    (["café"], "movi: "),
    (["mov"], ""),  # across the first check
    (["東", "é", "v"], "mo"),
    (["é東"], "movi: caf"),
    (["東😀!"], "movi: café"),  # across the second check
  ),
)
def test_answers_end_before_the_first_stop_string(stop, text):
  answer, pieces = pieces_of(stop=stop)
  assert answer.text == text == "".join(pieces) and answer.finish == "stop"
  assert len(answer.tokens) == len(text.encode())


def test_a_stop_string_that_does_not_occur_changes_nothing():
  answer, pieces = pieces_of(stop=["mow", "!!", "東\N{FACE WITH TEARS OF JOY}"])
  assert answer.text == TEXT == "".join(pieces) and answer.finish == "eos"
  with pytest.raises(InputError, match="a stop string is empty"):
    generate(byte_model(), ["?"], stop=["a", ""])


def test_an_answer_that_ends_within_a_character():
  cut = TEXT.encode().index("😀".encode()) + 2
  (answer,) = generate(byte_model(), ["?"], max_tokens=cut, special_tokens=False)
  assert answer.text == "movi: café東�" and answer.finish == "length"


def test_after_warming_up_streaming_compiles_nothing():
  warm_up(byte_model(), ["?", "0"], max_tokens=30, special_tokens=False)
  before = prefill._cache_size(), decode._cache_size()
  pieces_of(stop=["café"])
  assert (prefill._cache_size(), decode._cache_size()) == before


def test_byte_tokens_after_byte_tokens_of_the_prompt():
  spelling = spelling_of("pieces")
  tokenizer = spelling.tokenizer
  prompt = tokenizer.encode("日本語の", add_special_tokens=False)
  answer = [token for token in tokenizer.encode("東京") if 3 <= token < 259]
  assert len(answer) == 6
  texts = [answer_text(spelling, prompt, answer[:n]) for n in range(7)]
  assert texts == ["", "�", "�", "東", "東�", "東�", "東京"]


def test_a_space_before_the_first_word():
  spelling = spelling_of("pieces")
  drama, bos = spelling.ids[b" drama"], 1
  assert answer_text(spelling, [bos], [drama, drama]) == "drama drama"
  assert answer_text(spelling, [bos, drama], [drama]) == " drama"
  spelling = spelling_of("bytes")
  space = spelling.ids[b" "]
  assert answer_text(spelling, [0], [0, space, space]) == "  "


def test_tokens_of_a_stop_string_are_dropped_whole():
  spelling = spelling_of("pieces")
  ids = [spelling.ids[word] for word in (b"a", b" drama", b" comedy")]
  for stop, kept, text in (("ma co", 1, "a dra"), ("a", 0, ""), (" co", 2, "a drama")):
    assert cut_at_stop(spelling, [], ids, [stop]) == (ids[:kept], text, True)
  assert cut_at_stop(spelling, [], ids, ["x"]) == (ids, "a drama comedy", False)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_pieces_add_up_to_the_text_for_all_tokens_and_stop_strings(data):
  spelling = spelling_of(data.draw(st.sampled_from(("bytes", "pieces"))))
  table = spelling.table
  text = st.lists(st.sampled_from(["é東😀", "drama", " a", "京", "ab"]), max_size=6).map("".join)
  spelled = text.map(lambda one: [spelling.ids[bytes([b])] for b in one.encode()])
  noise = st.lists(st.integers(0, len(table) - 1), max_size=3)
  tokens = sum(data.draw(st.lists(st.one_of(spelled, noise), max_size=4)), [])
  prompt = data.draw(st.one_of(st.just([]), noise, spelled))
  stop = data.draw(st.lists(st.sampled_from(["東", "ama", "é東", "ab ", "é"]), max_size=2))
  tail, pieces, seen, stopped = TextTail(spelling, prompt, stop), [], 0, False
  while not stopped and seen < len(tokens):
    seen = min(len(tokens), seen + data.draw(st.integers(1, 5)))
    piece, stopped = tail.feed(tokens[:seen])
    pieces.append(piece)
  kept, text, found = cut_at_stop(spelling, prompt, tokens[:seen], stop)
  assert found == stopped and tokens[: len(kept)] == kept
  assert "".join(pieces) + tail.rest(text) == text
  assert not any(one in text for one in stop)
  whole = b"".join(table[token] or b"" for token in tokens[:seen]).decode(errors="replace")
  # At the beginning of a text, one space may be the tokenizer's dummy space.
  assert any(one.startswith(text) if found else one == text for one in (whole, whole[1:]))


@pytest.fixture(scope="module")
def stories():
  if not STORIES.is_dir():
    pytest.skip(f"{STORIES} is not here")
  return load_decoder(STORIES), (STORIES / "golden.txt").read_text(encoding="utf-8")


def test_a_story_from_the_bare_bos_token(stories):
  model, golden = stories
  pieces = []
  (answer,) = generate(model, [""], max_tokens=256, on_text=lambda _, text: pieces.append(text))
  assert len(golden) > 400 and answer.text.startswith(golden)
  assert "".join(pieces) == answer.text


def test_a_story_in_a_batch_of_others(stories):
  model, golden = stories
  begun = [golden[:n] for n in (9, 31, 77, 200)]
  prompts = ["", *begun, "Tom had a dog", "Sara and Ben liked to", "It was late. The moon"]
  answers = generate(model, prompts, max_tokens=256)
  assert answers[0].text.startswith(golden)
  assert len({answer.prompt_tokens for answer in answers}) >= 6
  assert len({answer.text for answer in answers}) == 8
  # A prompt that is tokenized like the story itself continues with the same story.
  for prompt, answer in zip(begun, answers[1:5], strict=True):
    own = model.tokenizer.encode(prompt)
    if list(answers[0].tokens[: len(own) - 1]) == own[1:]:
      assert (prompt + answer.text).startswith(golden)
  assert (
    list(answers[0].tokens[: len(model.tokenizer.encode(begun[0])) - 1])
    == (model.tokenizer.encode(begun[0])[1:])
  )
