"""Reads files of prompts (plain text or chat messages) and encodes each prompt."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gatrec_jax.errors import InputError
from gatrec_jax.lm.tokens.chat import ChatEncoder, has_template
from gatrec_jax.runs.paths import user_path

if TYPE_CHECKING:
  from transformers import PreTrainedTokenizerBase

Message = Mapping[str, str]
CHAT = ("auto", "true", "false")


def read_prompts(path: str | Path) -> list[str | list[Message]]:
  """Reads one prompt per line; lines of a .jsonl file have a `prompt` or a list of `messages`.

  An empty line of a text file is an empty prompt.
  Raises: InputError that names the file and the line.
  """
  path = user_path(path)
  try:
    # Lines end at \n alone: texts may hold other characters that Unicode takes for line ends.
    lines = [line.removesuffix("\r") for line in path.read_text("utf-8-sig").split("\n")]
  except (OSError, UnicodeDecodeError) as error:
    reason = getattr(error, "strerror", None) or "not UTF-8 text"
    raise InputError(f"cannot be read ({reason})", field="prompts_file", value=path) from None
  if not lines[-1]:
    lines.pop()
  prompts: list[str | list[Message]] = list(lines)
  if path.suffix == ".jsonl":
    prompts = [_record(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
  if not prompts:
    raise InputError("contains no prompts", field="prompts_file", value=path)
  return prompts


def _record(path: Path, number: int, line: str) -> str | list[Message]:
  where = f"{path}, line {number}"
  try:
    record = json.loads(line)
  except (ValueError, RecursionError) as error:
    raise InputError(f"{where}: not JSON ({error})") from None
  if isinstance(record, dict) and isinstance(record.get("prompt"), str):
    return record["prompt"]
  messages = record.get("messages") if isinstance(record, dict) else None
  if isinstance(messages, list) and all(isinstance(one, dict) for one in messages):
    return messages
  raise InputError(f'{where}: needs a "prompt" text or a list of "messages"')


def is_chat(chat: str, tokenizer: PreTrainedTokenizerBase | None) -> bool:
  """Whether plain prompts are wrapped as user messages. chat: `auto`, `true` or `false`."""
  if chat not in CHAT:
    raise InputError(f"not one of {', '.join(CHAT)}", field="chat", value=chat)
  return has_template(tokenizer) if chat == "auto" else chat == "true"


def as_ids(
  encode: ChatEncoder, prompt: str | Sequence[Message], *, chat: bool, system: str | None = None
) -> list[int]:
  """Returns the token ids of a prompt.

  In a chat, only the template can write control tokens. A plain text is the user's own: what it
  spells is recognized.

  Args: encode: of the model. chat: whether to wrap a plain text as a user message. system: system
    message to prepend, unless the messages already begin with one.
  """
  if isinstance(prompt, str):
    if not chat:
      return encode.raw(prompt)
    messages: list[Message] = [{"role": "user", "content": prompt}]
  else:
    messages = list(prompt)
  if system and (not messages or messages[0].get("role") != "system"):
    messages.insert(0, {"role": "system", "content": system})
  return encode(messages)
