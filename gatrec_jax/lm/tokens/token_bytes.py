"""Maps a vocabulary to bytes, and tokenizes any text exactly as the continuation of another text.

A tokenizer's own `encode` and `decode` are made for whole texts: SentencePiece tokenizers put a
space before the first word, normalizers rewrite characters, and text that looks like an added
token becomes one. Constrained decoding needs to know exactly which bytes each token writes.
`spell` prefers the tokenizer's own segmentation, which the model saw in training, and uses it only
if its bytes are exactly the requested ones.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gatrec_jax.errors import InputError
from gatrec_jax.lm.tokens.plain_text import PlainText

if TYPE_CHECKING:
  from transformers import PreTrainedTokenizerFast

# Prepended to a text to absorb the tokenizer's dummy space; the first that stays separate is used.
ANCHORS = ("\n", '"', "0", "a", ")")
# States within a UTF-8 character: at its start; 1, 2 or 3 continuation bytes missing; after E0, ED,
# F0 or F4, whose second byte has a narrower range (no overlong forms, surrogates or > U+10FFFF).
UTF8_STATES = 8
_WHOLE, _ONE, _TWO, _THREE, _E0, _ED, _F0, _F4 = range(UTF8_STATES)
# Ordered by missing bytes, so that each state only leads to states earlier in the list.
BY_MISSING_BYTES = (_WHOLE, _ONE, _TWO, _E0, _ED, _THREE, _F0, _F4)


@dataclasses.dataclass(frozen=True)
class Spelling:
  """A tokenizer with its vocabulary as bytes.

  Attributes:
    tokenizer: the fast tokenizer.
    table: [V] bytes of each token; None for tokens that are never part of a text.
  """

  tokenizer: PreTrainedTokenizerFast
  table: Sequence[bytes | None]

  @functools.cached_property
  def ids(self) -> dict[bytes, int]:
    """Bytes -> token, of tokens that texts are made of: without added ones such as `<think>`.

    If several tokens write the same bytes, the last wins over byte fallback.
    """
    control = set(self.plain.control.values())
    return {
      data: token
      for token, data in enumerate(self.table)
      if data is not None and token not in control
    }

  @functools.cached_property
  def spelled(self) -> Callable[[str], Sequence[int]]:
    """`spell` with a memory: constraints spell the same words over and over."""
    return functools.cache(functools.partial(spell, self))

  @functools.cached_property
  def plain(self) -> PlainText:
    """Encodes texts without recognizing added tokens in them."""
    return PlainText(self.tokenizer.backend_tokenizer)


def token_bytes(tokenizer: PreTrainedTokenizerFast) -> list[bytes | None]:
  """Returns the bytes that each token of a vocabulary writes within a text.

  Supports byte-level BPE (GPT-2's alphabet: Qwen, Llama 3, SmolLM) and SentencePiece (`▁` for a
  space, `<0xNN>` byte fallback: Llama 2, Mistral, Gemma). The tokenizer's decoder tells which.

  Returns: one entry per token; None for special tokens, gaps, and tokens that write nothing.
  Raises: InputError for other kinds, such as WordPiece, which cannot write every text.
  """
  backend = getattr(tokenizer, "backend_tokenizer", None)
  if backend is None:
    raise InputError(f"{_name(tokenizer)}: not a fast tokenizer (it has no tokenizer.json)")
  steps = _decoder_steps(backend.decoder, _name(tokenizer))
  kinds = {step["type"] for step in steps}
  vocabulary = backend.get_vocab(with_added_tokens=True)
  special = {token for token, entry in tokenizer.added_tokens_decoder.items() if entry.special}
  special |= set(tokenizer.all_special_ids)
  alphabet = byte_alphabet() if "ByteLevel" in kinds else None
  spaces = [(step["pattern"]["String"], step["content"]) for step in steps if "pattern" in step]
  spaces += [(step["replacement"], " ") for step in steps if step["type"] == "Metaspace"]
  table: list[bytes | None] = [None] * (1 + max(vocabulary.values(), default=-1))
  for text, token in vocabulary.items():
    if token in special:
      continue
    if alphabet is not None:
      known = all(character in alphabet for character in text)
      # A token outside the alphabet was added as plain text and is decoded as such.
      data = bytes(alphabet[character] for character in text) if known else text.encode()
    elif "ByteFallback" in kinds and _is_byte(text):
      data = bytes([int(text[3:5], 16)])
    else:
      for pattern, content in spaces:
        text = text.replace(pattern, content)
      data = text.encode()
    table[token] = data or None
  return table


def make_spelling(
  tokenizer: PreTrainedTokenizerFast, *, vocabulary: int, eos: Collection[int]
) -> Spelling:
  """Builds a `Spelling` of the tokens below `vocabulary`, leaving out the `eos` tokens."""
  table = token_bytes(tokenizer)[:vocabulary]
  table += [None] * (vocabulary - len(table))
  for token in eos:
    if 0 <= token < vocabulary:
      table[token] = None
  return Spelling(tokenizer, table)


def spell(spelling: Spelling, text: str) -> list[int]:
  """Tokenizes `text` so that the tokens' bytes are exactly its UTF-8, as a continuation.

  A text that is an added token as a whole, such as a label of the built-in re-ranker, is that
  token; within a text, added tokens are not recognized. Otherwise uses the tokenizer's own
  segmentation if it writes these bytes (alone, or after an anchor that is cut off again), else the
  segmentation into the fewest tokens.

  Raises: InputError if the vocabulary cannot write the text.
  """
  wanted = _utf8(text)
  if not wanted:
    return []
  own = spelling.plain.control.get(text)
  if own is not None and own < len(spelling.table) and spelling.table[own] == wanted:
    return [own]
  for anchor in ("", *ANCHORS):
    tokens = spelling.plain.ids(anchor + text, special_tokens=False)
    found = _ending(spelling.table, tokens, wanted)
    if found is not None:
      return found
  return _fewest_tokens(spelling, text, wanted)


def write(table: Sequence[bytes | None], tokens: Sequence[int]) -> str:
  """Decodes tokens to text; special tokens write nothing, broken characters become U+FFFD.

  Unlike a tokenizer's `decode`, keeps a leading space and does not clean up punctuation.
  """
  joined = b"".join(table[token] or b"" for token in tokens if 0 <= token < len(table))
  return joined.decode("utf-8", errors="replace")


def string_moves(table: Sequence[bytes | None], *, forbidden: Collection[int]) -> np.ndarray:
  """Transition table of tokens over the states of a UTF-8 reader.

  Args: table: [V] bytes of each token. forbidden: bytes that must not occur.
  Returns: [8, V] int32: for each state, `8 · characters begun + next state`, or -1 if the token
    contains a forbidden byte or breaks a character.
  """
  tokens = np.array([token for token, data in enumerate(table) if data], np.int32)
  lengths = np.array([len(table[token]) for token in tokens], np.int32)
  order = np.argsort(-lengths, kind="stable")
  tokens, lengths = tokens[order], lengths[order]
  data = np.frombuffer(b"".join(table[token] for token in tokens), np.uint8)
  starts = np.cumsum(lengths) - lengths
  step = _utf8_steps(forbidden)
  moves = np.full((UTF8_STATES, len(table)), -1, np.int32)
  for state in range(UTF8_STATES):
    states = np.full(len(tokens), state, np.int32)
    begun = np.zeros(len(tokens), np.int32)
    # Sorted by length, so the tokens that have a byte at this place are a leading slice.
    for place in range(lengths[0] if len(lengths) else 0):
      count = np.searchsorted(-lengths, -place, side="left")
      byte = data[starts[:count] + place]
      states[:count] = step[states[:count], byte]
      begun[:count] += (byte & 0xC0) != 0x80
    moves[state, tokens] = np.where(states < UTF8_STATES, UTF8_STATES * begun + states, -1)
  return moves


def byte_alphabet() -> dict[str, int]:
  """GPT-2's mapping of 256 printable characters to bytes."""
  printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
  others = [byte for byte in range(256) if byte not in printable]
  codes = [*printable, *range(256, 256 + len(others))]
  return dict(zip(map(chr, codes), printable + others, strict=True))


def _decoder_steps(decoder: object, name: str) -> list[dict]:
  if decoder is None:
    raise InputError(f"{name}: the tokenizer has no decoder, so its tokens' bytes are unknown")
  # Only the decoder: serializing the whole tokenizer takes seconds for a large vocabulary.
  top = json.loads(decoder.__getstate__())
  steps = top["decoders"] if top["type"] == "Sequence" else [top]
  for step in steps:
    kind = step["type"]
    plain = kind != "Replace" or "String" in step["pattern"]
    if kind not in ("ByteLevel", "Replace", "ByteFallback", "Fuse", "Strip", "Metaspace") or (
      not plain
    ):
      raise InputError(
        f"{name}: a tokenizer with a {kind} decoder is not supported; use one with byte-level BPE "
        "or SentencePiece"
      )
  return steps


def _utf8_steps(forbidden: Collection[int]) -> np.ndarray:
  """[9, 256] int32 next state of the UTF-8 reader for each byte; 8 is the dead state."""
  dead = UTF8_STATES
  step = np.full((UTF8_STATES + 1, 256), dead, np.int32)
  step[_WHOLE, 0x00:0x80] = _WHOLE
  step[_WHOLE, 0xC2:0xE0] = _ONE
  step[_WHOLE, 0xE0:0xF0] = _TWO
  step[_WHOLE, 0xF0:0xF5] = _THREE
  for lead, state in ((0xE0, _E0), (0xED, _ED), (0xF0, _F0), (0xF4, _F4)):
    step[_WHOLE, lead] = state
  step[_ONE, 0x80:0xC0] = _WHOLE
  step[_TWO, 0x80:0xC0] = _ONE
  step[_THREE, 0x80:0xC0] = _TWO
  step[_E0, 0xA0:0xC0] = _ONE
  step[_ED, 0x80:0xA0] = _ONE
  step[_F0, 0x90:0xC0] = _TWO
  step[_F4, 0x80:0x90] = _TWO
  step[:, list(forbidden)] = dead
  return step


def _ending(
  table: Sequence[bytes | None], tokens: Sequence[int], wanted: bytes
) -> list[int] | None:
  """Returns the last tokens that write exactly `wanted`, or None if no suffix does."""
  rest = wanted
  for place in range(len(tokens) - 1, -1, -1):
    data = table[tokens[place]] if tokens[place] < len(table) else None
    if data is None or not rest.endswith(data):
      return None
    rest = rest[: -len(data)]
    if not rest:
      return list(tokens[place:])
  return None


def _fewest_tokens(spelling: Spelling, text: str, wanted: bytes) -> list[int]:
  """Returns the segmentation into the fewest tokens; ties prefer the longest last token."""
  ids = spelling.ids
  longest = max(map(len, ids), default=0)
  unreached = len(wanted) + 1
  count = [0] + [unreached] * len(wanted)
  cut = [0] * (len(wanted) + 1)
  for end in range(1, len(wanted) + 1):
    for start in range(max(0, end - longest), end):
      if count[start] + 1 < count[end] and wanted[start:end] in ids:
        count[end], cut[end] = count[start] + 1, start
  if count[-1] >= unreached:
    reached = max(end for end, tokens in enumerate(count) if tokens < unreached)
    raise InputError(
      f"{text!r}: the vocabulary of {_name(spelling.tokenizer)} cannot write it beyond byte "
      f"{reached} of {len(wanted)} (it has no byte fallback)"
    )
  tokens = []
  end = len(wanted)
  while end:
    tokens.append(ids[wanted[cut[end] : end]])
    end = cut[end]
  return tokens[::-1]


def _utf8(text: str) -> bytes:
  try:
    return text.encode()
  except UnicodeEncodeError:
    raise InputError(
      f"{text!r}: not valid Unicode (it contains half of a surrogate pair)"
    ) from None


def _is_byte(token: str) -> bool:
  if len(token) != 6 or not token.startswith("<0x") or not token.endswith(">"):
    return False
  return all(character in "0123456789abcdefABCDEF" for character in token[3:5])


def _name(tokenizer: PreTrainedTokenizerFast) -> str:
  return getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
