"""Files of prompts, and which prompts are rendered as a chat."""

import pytest
from helpers.paths import SHARED

from gatrec_jax.errors import InputError
from gatrec_jax.lm.tokens.chat import render_chat
from gatrec_jax.lm.tokens.prompt_files import as_ids, is_chat, read_prompts


def written(tmp_path, name, text):
  (tmp_path / name).write_bytes(text)
  return tmp_path / name


def test_every_line_of_a_text_file_is_a_prompt(tmp_path):
  assert read_prompts(written(tmp_path, "p.txt", b"one\n\ntwo\n")) == ["one", "", "two"]


def test_lines_end_at_newlines_alone(tmp_path):
  text = "one\u2028half\r\ntwo".encode()
  assert read_prompts(written(tmp_path, "p.txt", text)) == ["one\u2028half", "two"]
  line = '{"prompt": "a\u2028b"}\r\n'.encode()
  assert read_prompts(written(tmp_path, "p.jsonl", line)) == ["a\u2028b"]


def test_records_have_a_prompt_or_messages(tmp_path):
  lines = b'{"prompt": "one"}\n\n{"messages": [{"role": "user", "content": "two"}]}\n'
  expected = ["one", [{"role": "user", "content": "two"}]]
  assert read_prompts(written(tmp_path, "p.jsonl", lines)) == expected


@pytest.mark.parametrize(
  "name, text, said",
  [
    ("p.txt", b"", "no prompts"),
    ("p.jsonl", b"\n\n", "no prompts"),
    ("p.jsonl", b'{"prompt": "a"}\n{', "line 2"),
    ("p.jsonl", b'{"text": "a"}', "line 1"),
    ("p.txt", b"\xff\xfe", "UTF-8"),
    ("p.jsonl", b'{"prompt": ' + b"[" * 100_000, "line 1"),
  ],
)
def test_invalid_files_are_reported(tmp_path, name, text, said):
  with pytest.raises(InputError, match=said) as error:
    read_prompts(written(tmp_path, name, text))
  assert name in str(error.value)


def test_a_chat_without_a_template_is_plain():
  assert not is_chat("auto", None) and is_chat("true", None)
  with pytest.raises(InputError, match="chat=maybe"):
    is_chat("maybe", None)
  messages = as_ids(list, "hello", chat=True, system="Be brief.")
  assert render_chat(None, messages) == "Be brief.\n\nUser: hello\nAssistant:"


@pytest.mark.skipif(not (SHARED / "cases").is_dir(), reason=f"no shared cases in {SHARED}")
def test_shared_line_ends_of_unicode():
  first, second = read_prompts(SHARED / "cases" / "prompts" / "u2028.jsonl")
  assert "\u2028" in first and second == "two"
  assert len(read_prompts(SHARED / "cases" / "prompts" / "u2028.txt")) == 2
