"""Loads a decoder's tokenizer, encodes prompts, and renders chat messages with its template."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gatrec_jax.errors import InputError
from gatrec_jax.lm.folders.source import read_json
from gatrec_jax.lm.tokens.plain_text import Marked, PlainText, Span

if TYPE_CHECKING:
  from tokenizers import Encoding
  from transformers import PreTrainedTokenizerBase

  from gatrec_jax.lm.tokens.templates import ChatTemplate, TemplateLimit

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")
TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
ROLES = ("system", "user", "assistant")
# The beginning of a line within a message that would look like another turn.
_TURN = re.compile(r"(?<=[\n\r\v\f\x1c-\x1e\x85\u2028\u2029])(?:User|Assistant):")


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
  """Returns the token ids of a prompt that a person wrote: tokens that it spells are recognized.

  What comes from data goes through `ChatEncoder`.

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
  else:
    require_text(tokenizer, prompt)
    # verbose=False silences a warning about long prompts; callers check lengths themselves.
    ids = list(tokenizer(prompt, add_special_tokens=special_tokens, verbose=False)["input_ids"])
  if ids:
    return ids
  if bos is None:
    raise InputError("the prompt is empty and the model has no BOS token to begin with")
  return [bos]


def require_text(tokenizer: object, text: str) -> None:
  """Raises InputError for text that no tokenizer can encode, or if there is no tokenizer."""
  if tokenizer is None:
    raise InputError(
      "the model folder has no tokenizer, which text prompts need: add a tokenizer.json"
    )
  if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
    raise InputError("the prompt is not UTF-8 text")


def require_list(values: object, what: str, wanted: str) -> None:
  """Raises InputError unless `values` is a list; a bare string would be read letter by letter."""
  if isinstance(values, str) or not isinstance(values, Iterable):
    raise InputError(f"{what}: got {values!r:.40}; expected {wanted}")


def render_chat(
  tokenizer: PreTrainedTokenizerBase | None, messages: Sequence[Mapping[str, str]]
) -> str:
  """Renders chat messages as a prompt that ends where the assistant's answer begins.

  Uses the folder's chat template (`templates.py`) if there is one. Otherwise the prompt is plain
  text: the system message and an empty line, then "User: …" and "Assistant: …" lines, ending with
  "Assistant:"; a line of a message that begins like this is indented.

  A text that is encoded from the outside turns control tokens in messages into what they spell;
  `encode_chat` does not.

  Args: tokenizer: the model's tokenizer. messages: dicts with `role` (system, user or assistant)
    and `content` (text).
  Raises: InputError for another role, or if the template rejects the messages or exceeds a limit.
  """
  return mark_chat(tokenizer, messages).text


def encode_chat(
  tokenizer: PreTrainedTokenizerBase | None,
  messages: Sequence[Mapping[str, str]],
  *,
  bos: int | None,
) -> list[int]:
  """The token ids of a rendered chat, in which only the template can write control tokens.

  Args: tokenizer, messages: as in `render_chat`. bos: as in `encode_prompt`.
  Raises: InputError as both.
  """
  return ChatEncoder(tokenizer, bos=bos)(messages)


class ChatEncoder:
  """`encode_chat` for many chats: the template is compiled once."""

  def __init__(self, tokenizer: PreTrainedTokenizerBase | None, *, bos: int | None) -> None:
    """Args: as in `encode_chat`."""
    self._tokenizer, self._bos = tokenizer, bos

  def __call__(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """The token ids of a chat that ends where the assistant's answer begins."""
    marked = mark_chat(self._tokenizer, messages, template=self._template, plain=self._plain)
    return encode_marked(
      self._plain, marked, bos=self._bos, special_tokens=not has_template(self._tokenizer)
    )

  def text(
    self, text: str, *, data: Sequence[Span] | None = None, special_tokens: bool = True
  ) -> list[int]:
    """The token ids of a text without a template.

    Args: data: parts in which no added token is recognized; None for the whole text.
      special_tokens: whether the tokenizer adds its own, such as BOS.
    Raises: InputError as `encode_prompt`.
    """
    marked = Marked(text, [(0, len(text))] if data is None else data)
    return encode_marked(self._plain, marked, bos=self._bos, special_tokens=special_tokens)

  def part(self, text: str) -> Encoding:
    """Data within a prompt, without special tokens: its ids, and their offsets in the text."""
    require_text(self._plain, text)
    return self._plain(text, [(0, len(text))], special_tokens=False)

  def raw(self, prompt: str) -> list[int]:
    """The token ids of a text that the user wrote for the model, as `encode_prompt` gives them."""
    return encode_prompt(self._tokenizer, prompt, bos=self._bos)

  @functools.cached_property
  def _plain(self) -> PlainText | None:
    return None if self._tokenizer is None else PlainText(self._tokenizer.backend_tokenizer)

  @functools.cached_property
  def _template(self) -> ChatTemplate | None:
    return compile_template(self._tokenizer)


def encode_marked(
  plain: PlainText | None, marked: Marked, *, bos: int | None, special_tokens: bool
) -> list[int]:
  """The token ids of a text with data in it. Args, Raises: as in `encode_prompt`."""
  if marked.text:
    require_text(plain, marked.text)
    if ids := plain(*marked, special_tokens=special_tokens).ids:
      return ids
  return encode_prompt(None, [], bos=bos)


def mark_chat(
  tokenizer: PreTrainedTokenizerBase | None,
  messages: Sequence[Mapping[str, str]],
  *,
  template: ChatTemplate | None = None,
  plain: PlainText | None = None,
) -> Marked:
  """The rendered chat, and which parts of it are the contents of messages.

  The template sees stand-ins for the contents, except for white space at their ends and, in an
  assistant's messages, added tokens such as `</think>`, by which templates leave out reasoning.

  Args: tokenizer, messages: as in `render_chat`. template, plain: of this tokenizer, if known.
  """
  for number, message in enumerate(messages):
    if message.get("role") not in ROLES or not isinstance(message.get("content"), str):
      raise InputError(
        f"message {number}: needs a role ({', '.join(ROLES)}) and a content, got {dict(message)}"
      )
  if not has_template(tokenizer):
    return _without_template(messages)
  from gatrec_jax.lm.tokens.templates import TemplateLimit

  if not messages:
    raise InputError("a chat needs at least one message")
  template = template or compile_template(tokenizer)
  plain = plain or PlainText(tokenizer.backend_tokenizer)
  texts = [value for one in messages for value in one.values() if isinstance(value, str)]
  hidden = _Hidden("".join(texts), plain.control)
  shown = [
    {
      name: value if name == "role" else hidden(value, tokens=message["role"] == "assistant")
      for name, value in message.items()
      if isinstance(value, str)
    }
    for message in messages
  ]
  given = {"messages": shown, "tools": None, "documents": None, "add_generation_prompt": True}
  try:
    text = template(**tokenizer.special_tokens_map | given)
  except TemplateLimit as error:
    raise _beyond(tokenizer, error) from None
  except Exception as error:  # Templates can raise anything.
    raise InputError(f"the model's chat template rejects these messages: {error}") from None
  return hidden.restored(text)


def compile_template(tokenizer: PreTrainedTokenizerBase | None) -> ChatTemplate | None:
  """The tokenizer's chat template; None if it has none. Raises: InputError if it is not Jinja."""
  if not has_template(tokenizer):
    return None
  from gatrec_jax.lm.tokens.templates import ChatTemplate, TemplateLimit

  try:
    return ChatTemplate(tokenizer.get_chat_template())
  except TemplateLimit as error:
    raise _beyond(tokenizer, error) from None
  except Exception as error:  # The compiler can raise anything.
    raise InputError(f"{_template_file(tokenizer)}: no valid chat template ({error})") from None


def _beyond(tokenizer: PreTrainedTokenizerBase, error: TemplateLimit) -> InputError:
  return InputError(f"{_template_file(tokenizer)}: the chat template exceeds a limit: {error}")


def _template_file(tokenizer: PreTrainedTokenizerBase) -> Path:
  folder = Path(tokenizer.name_or_path)
  return next((folder / name for name in TEMPLATE_FILES if (folder / name).is_file()), folder)


class _Hidden:
  """Replaces parts of messages by stand-ins, and finds them again in what a template made of them.

  A stand-in is a number between two characters that occur nowhere in the messages. A third one
  precedes a control token that stays visible.
  """

  def __init__(self, contents: str, control: Mapping[str, int]) -> None:
    used = set(contents)
    unused = (one for one in map(chr, range(0xF0000, 0xFFFFE)) if one not in used)
    self._edge, self._token = next(unused), next(unused)
    longest_first = sorted(control, key=len, reverse=True)
    self._control = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
    self._parts: list[str] = []

  def __call__(self, content: str, *, tokens: bool) -> str:
    """The content with stand-ins. Args: tokens: whether control tokens stay visible."""
    pieces, place = [], 0
    for match in self._control.finditer(content) if tokens else ():
      pieces += [self._stand_in(content[place : match.start()]), self._token + match.group()]
      place = match.end()
    return "".join([*pieces, self._stand_in(content[place:])])

  def _stand_in(self, part: str) -> str:
    core = part.strip()
    if not core:
      return part
    before, after = part.split(core, 1)
    self._parts.append(core)
    return f"{before}{self._edge}{len(self._parts) - 1}{self._edge}{after}"

  def restored(self, text: str) -> Marked:
    """The text with the parts in their places."""
    edge, token = self._edge, self._token
    found = re.compile(f"{edge}(\\d+){edge}|{token}({self._control.pattern})?")
    pieces, data, length, place = [], [], 0, 0
    for match in found.finditer(text):
      own = match[2] or ""
      if match[1] is not None:
        own = self._parts[int(match[1])]
      pieces += [text[place : match.start()], own]
      start = length + match.start() - place
      length = start + len(own)
      if own:
        data.append((start, length))
      place = match.end()
    return Marked("".join([*pieces, text[place:]]), data)


def _without_template(messages: Sequence[Mapping[str, str]]) -> Marked:
  pieces, data, length = [], [], 0
  for message in messages:
    role, content = message["role"], _TURN.sub(r" \g<0>", message["content"])
    label = "" if role == "system" else f"{role.capitalize()}: "
    data.append((length + len(label), length + len(label) + len(content)))
    pieces.append(label + content + ("\n\n" if role == "system" else "\n"))
    length += len(pieces[-1])
  return Marked("".join([*pieces, "Assistant:"]), data)


def has_template(tokenizer: PreTrainedTokenizerBase | None) -> bool:
  """Whether the tokenizer comes with a chat template."""
  return tokenizer is not None and bool(tokenizer.chat_template)
