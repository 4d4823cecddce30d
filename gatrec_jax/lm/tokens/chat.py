"""Tokenizers of decoder folders, and messages to prompts through their chat templates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gatrec_jax.errors import InputError

if TYPE_CHECKING:
  from transformers import PreTrainedTokenizerBase

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")
ROLES = ("system", "user", "assistant")


def load_chat_tokenizer(folder: Path) -> PreTrainedTokenizerBase | None:
  """The folder's fast tokenizer, None where the folder has none.

  Raises: InputError where it has one that cannot be read.
  """
  if not any((folder / name).is_file() for name in TOKENIZER_FILES):
    return None
  from transformers import AutoTokenizer

  try:
    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
  except Exception as error:  # Anything comes out of a damaged file.
    reason = next(iter(str(error).strip().splitlines()), repr(error))
    raise InputError(f"{folder}: its tokenizer cannot be read ({reason})") from None
  if not tokenizer.is_fast:
    raise InputError(f"{folder}: no fast tokenizer; a tokenizer.json is needed")
  return tokenizer


def encode_prompt(
  tokenizer: PreTrainedTokenizerBase | None,
  prompt: str | Sequence[int],
  *,
  bos: int | None,
  special_tokens: bool = True,
) -> list[int]:
  """Token ids of a prompt.

  Args:
    tokenizer: the model's; None where only ids are given.
    prompt: text, or ids, which are taken as they are.
    bos: the bare prompt of an empty text.
    special_tokens: whether the tokenizer puts its own around the text; not for a rendered chat,
      whose template has written them.
  Raises: InputError for text without a tokenizer, or an empty prompt where there is no BOS token.
  """
  if not isinstance(prompt, str):
    require_list(prompt, "a prompt", "a text or token ids")
    ids = [int(token) for token in prompt]
  elif not prompt:
    ids = []
  elif tokenizer is None:
    raise InputError("the model folder has no tokenizer, which texts need: add a tokenizer.json")
  elif not prompt.isascii() and any("\ud800" <= c <= "\udfff" for c in prompt):
    raise InputError("the prompt is not UTF-8 text")
  else:
    # Not verbose: it would warn of long prompts, which are told of elsewhere.
    ids = list(tokenizer(prompt, add_special_tokens=special_tokens, verbose=False)["input_ids"])
  if ids:
    return ids
  if bos is None:
    raise InputError("the prompt is empty and the model has no BOS token to begin with")
  return [bos]


def require_list(values: object, what: str, wanted: str) -> None:
  """Raises InputError where a list is needed; a lone text would be read letter by letter."""
  if isinstance(values, str) or not isinstance(values, Iterable):
    raise InputError(f"{what}: {values!r:.40} is given; {wanted} is needed")


def render_chat(
  tokenizer: PreTrainedTokenizerBase | None, messages: Sequence[Mapping[str, str]]
) -> str:
  """The prompt that makes a model answer the last message.

  With a template in the folder, transformers' sandboxed renderer fills it. Without one the prompt
  is plain: the system text and an empty line, then "User: …" and "Assistant: …" lines, and
  "Assistant:" for the answer to begin.

  Args: tokenizer: the model's. messages: {"role": system, user or assistant, "content": text}.
  Raises: InputError for another role, or a template that fails or refuses these messages.
  """
  for number, message in enumerate(messages):
    if message.get("role") not in ROLES or not isinstance(message.get("content"), str):
      raise InputError(
        f"message {number}: needs a role ({', '.join(ROLES)}) and a content, has {dict(message)}"
      )
  if tokenizer is not None and tokenizer.chat_template:
    try:
      return tokenizer.apply_chat_template(
        [dict(message) for message in messages], tokenize=False, add_generation_prompt=True
      )
    except Exception as error:  # Templates raise what they like.
      raise InputError(f"the model's chat template refuses these messages: {error}") from None
  lines = []
  for message in messages:
    if message["role"] == "system":
      lines.append(message["content"] + "\n")
    else:
      lines.append(f"{message['role'].capitalize()}: {message['content']}")
  return "\n".join([*lines, "Assistant:"])


def has_template(tokenizer: PreTrainedTokenizerBase | None) -> bool:
  """Whether the folder brings a chat template."""
  return tokenizer is not None and bool(tokenizer.chat_template)
