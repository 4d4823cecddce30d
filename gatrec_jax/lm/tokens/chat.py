"""Loads a decoder's tokenizer, encodes prompts, and renders chat messages with its template."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gatrec_jax.errors import InputError
from gatrec_jax.lm.folders.source import read_json

if TYPE_CHECKING:
  from transformers import PreTrainedTokenizerBase

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")
ROLES = ("system", "user", "assistant")


def load_chat_tokenizer(folder: Path) -> PreTrainedTokenizerBase | None:
  """Loads the folder's fast tokenizer; None if the folder has no tokenizer files.

  Raises: InputError if the tokenizer cannot be read.
  """
  if not any((folder / name).is_file() for name in TOKENIZER_FILES):
    return None
  from transformers import AutoTokenizer, PreTrainedConfig

  # Of config.json, transformers needs these two fields, and would refuse others that are fine here.
  config = PreTrainedConfig()
  path = folder / "config.json"
  fields = read_json(path) if path.is_file() else {}
  for name in ("model_type", "tokenizer_class"):
    value = fields.get(name) if isinstance(fields, dict) else None
    setattr(config, name, value if isinstance(value, str) else None)
  with _readable_tokenizer(folder):
    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, config=config)
  if not tokenizer.is_fast:
    raise InputError(f"{folder}: no fast tokenizer; a tokenizer.json is needed")
  return tokenizer


@contextlib.contextmanager
def _readable_tokenizer(folder: Path) -> Iterator[None]:
  """Converts whatever a damaged tokenizer raises into an InputError.

  A panic of the tokenizers library is not even an Exception.
  """
  try:
    yield
  except (KeyboardInterrupt, SystemExit, MemoryError):
    raise
  except BaseException as error:
    reason = " ".join(str(error).split())[:200] or repr(error)
    raise InputError(f"{folder}: its tokenizer cannot be read ({reason})") from None


def encode_prompt(
  tokenizer: PreTrainedTokenizerBase | None,
  prompt: str | Sequence[int],
  *,
  bos: int | None,
  special_tokens: bool = True,
) -> list[int]:
  """Returns the token ids of a prompt.

  Args:
    tokenizer: the model's tokenizer; may be None if prompts are given as ids.
    prompt: text, or token ids, which are returned unchanged.
    bos: id of the BOS token, which stands in for an empty prompt; None if the model has none.
    special_tokens: whether the tokenizer adds its special tokens. False for a rendered chat, whose
      template has already written them.
  Raises: InputError for text without a tokenizer, or an empty prompt without a BOS token.
  """
  if not isinstance(prompt, str):
    require_list(prompt, "a prompt", "a text or token ids")
    ids = [int(token) for token in prompt]
  elif not prompt:
    ids = []
  elif tokenizer is None:
    raise InputError(
      "the model folder has no tokenizer, which text prompts need: add a tokenizer.json"
    )
  elif not prompt.isascii() and any("\ud800" <= c <= "\udfff" for c in prompt):
    raise InputError("the prompt is not UTF-8 text")
  else:
    # verbose=False silences a warning about long prompts; callers check lengths themselves.
    ids = list(tokenizer(prompt, add_special_tokens=special_tokens, verbose=False)["input_ids"])
  if ids:
    return ids
  if bos is None:
    raise InputError("the prompt is empty and the model has no BOS token to begin with")
  return [bos]


def require_list(values: object, what: str, wanted: str) -> None:
  """Raises InputError unless `values` is a list; a bare string would be read letter by letter."""
  if isinstance(values, str) or not isinstance(values, Iterable):
    raise InputError(f"{what}: got {values!r:.40}; expected {wanted}")


def render_chat(
  tokenizer: PreTrainedTokenizerBase | None, messages: Sequence[Mapping[str, str]]
) -> str:
  """Renders chat messages as a prompt that ends where the assistant's answer begins.

  Uses the folder's chat template (in transformers' sandboxed renderer) if there is one. Otherwise
  the prompt is plain text: the system message and an empty line, then "User: …" and
  "Assistant: …" lines, ending with "Assistant:".

  Args: tokenizer: the model's tokenizer. messages: dicts with `role` (system, user or assistant)
    and `content` (text).
  Raises: InputError for another role, or if the template rejects the messages.
  """
  for number, message in enumerate(messages):
    if message.get("role") not in ROLES or not isinstance(message.get("content"), str):
      raise InputError(
        f"message {number}: needs a role ({', '.join(ROLES)}) and a content, got {dict(message)}"
      )
  if tokenizer is not None and tokenizer.chat_template:
    try:
      return tokenizer.apply_chat_template(
        [dict(message) for message in messages], tokenize=False, add_generation_prompt=True
      )
    except Exception as error:  # Templates can raise anything.
      raise InputError(f"the model's chat template rejects these messages: {error}") from None
  lines = []
  for message in messages:
    if message["role"] == "system":
      lines.append(message["content"] + "\n")
    else:
      lines.append(f"{message['role'].capitalize()}: {message['content']}")
  return "\n".join([*lines, "Assistant:"])


def has_template(tokenizer: PreTrainedTokenizerBase | None) -> bool:
  """Whether the tokenizer comes with a chat template."""
  return tokenizer is not None and bool(tokenizer.chat_template)
