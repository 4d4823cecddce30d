"""Tokenizers from the metadata of GGUF files."""

import json

import pytest
from helpers.paths import LLMS, LM_GOLDENS

from gatrec_jax.errors import InputError
from gatrec_jax.lm.folders.gguf import read_gguf
from gatrec_jax.lm.tokens.gguf import gguf_tokenizer

_BYTES = [f"<0x{number:02X}>" for number in range(256)]


def sentencepiece(**changes):
  """A vocabulary of pieces with scores: words of a, b and n; then what a text may not merge."""
  pieces = ["\u2581", "a", "b", "n", "an", "na", "ban", "ana", "\u2581ban", "\u2581ba"]
  tokens = ["<unk>", "<s>", "</s>", *_BYTES, *pieces, "<turn>", "\n\n"]
  kinds = [2, 3, 3] + [6] * 256 + [1] * len(pieces) + [3, 4]
  scores = [0.0] * 259 + [-float(number) for number in range(len(pieces))] + [0.0, 0.0]
  fields = {
    "model": "llama",
    "tokens": tokens,
    "token_type": kinds,
    "scores": scores,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "unknown_token_id": 0,
  }
  return {f"tokenizer.ggml.{name}": value for name, value in (fields | changes).items()}


def pieces_of(text, **changes):
  tokenizer = gguf_tokenizer(sentencepiece(**changes), where="a.gguf")
  return tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])


def test_pieces_merge_by_their_scores():
  # "an" (-4) before "na" (-5), then "ban" (-6) of "b" and "an", then the word's beginning (-8).
  assert pieces_of("banana") == ["<s>", "\u2581ban", "ana"]
  assert pieces_of("nan") == ["<s>", "\u2581", "n", "an"]
  assert pieces_of("nan", add_space_prefix=False) == ["<s>", "n", "an"]
  assert pieces_of("a", add_bos_token=False) == ["\u2581", "a"]


def test_other_characters_are_bytes_and_control_tokens_are_found():
  assert pieces_of("é", add_space_prefix=False) == ["<s>", "<0xC3>", "<0xA9>"]
  found = pieces_of("a<turn>b\n\n", add_space_prefix=False)
  assert found == ["<s>", "a", "<turn>", "b", "\n\n"]


def test_texts_come_back():
  tokenizer = gguf_tokenizer(sentencepiece(), where="a.gguf")
  for text in ("banana", "a  b", "née 12", "ban\nana"):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text


def test_fields_that_do_not_fit():
  with pytest.raises(InputError, match=r"a.gguf: tokenizer.ggml.scores has no entry for each of"):
    gguf_tokenizer(sentencepiece(scores=[0.0]), where="a.gguf")
  with pytest.raises(InputError, match=r"271 tokens, but 1 entries of token_type"):
    gguf_tokenizer(sentencepiece(token_type=[1]), where="a.gguf")
  with pytest.raises(InputError, match=r"tokenizer.ggml.scores is no list of numbers"):
    gguf_tokenizer(sentencepiece(scores=["1"] * 271), where="a.gguf")
  with pytest.raises(InputError, match=r"tokenizer.ggml.tokens is no list of texts"):
    gguf_tokenizer(sentencepiece(tokens=[1, 2]), where="a.gguf")
  assert gguf_tokenizer({}, where="a.gguf") is None


# Ids that llama.cpp has, by tests/lm/make_llama_cpp_goldens.mjs.
GOLDEN = LM_GOLDENS / "llama_cpp_ids.json"


@pytest.mark.parametrize(
  "name",
  ["SmolLM2-135M-Instruct.Q4_1", "gemma-3-270m.Q4_K_M", "Qwen2.5-Coder-1.5B-Instruct.Q4_K_M"],
)
def test_ids_equal_those_of_llama_cpp(name):
  path = LLMS / f"{name}.gguf"
  if not path.is_file():
    pytest.skip(f"{path} is not on this machine (../shared/models/get_llms.sh)")
  golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
  tokenizer = gguf_tokenizer(read_gguf(path).fields, where=str(path))
  for text, ids in zip(golden["texts"], golden[name], strict=True):
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids, text
