"""Builds a tokenizer from the metadata of a GGUF file, with the token ids of llama.cpp."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gatrec_jax.errors import InputError

if TYPE_CHECKING:
  from tokenizers import Tokenizer
  from transformers import PreTrainedTokenizerBase

_PREFIX = "tokenizer.ggml."
CONTROL = 3
"""What `tokenizer.ggml.token_type` says of a control token."""
_NORMAL, _UNKNOWN, _OWN, _BYTE = 1, 2, 4, 6
_SPACE = "\u2581"

# How text is cut into words before it is merged, by the names that llama.cpp gives them: regular
# expressions, each applied to the pieces of the one before.
_CONTRACTIONS = "'s|'t|'re|'ve|'m|'ll|'d"
_GPT2 = rf"{_CONTRACTIONS}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+"


def _words(numbers: str) -> str:
  """The form that GPT-4's expression gave to those of later models."""
  return (
    rf"(?i:{_CONTRACTIONS})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{numbers}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
  )


_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN = (
  rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}"
  r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CUTS: dict[str, tuple[str, ...]] = {
  "gpt-2": (_GPT2,),
  "smollm": (r"\p{N}", _GPT2),
  "qwen2": (_words(r"\p{N}"),),
  "deepseek-r1-qwen": (_words(r"\p{N}"),),
  "llama-bpe": (_words(r"\p{N}{1,3}"),),
  "llama3": (_words(r"\p{N}{1,3}"),),
  "llama-v3": (_words(r"\p{N}{1,3}"),),
  "smaug-bpe": (_words(r"\p{N}{1,3}"),),
  "tekken": (_TEKKEN,),
}
# Of these a text begins with BOS, and a word that is a token as a whole is not merged, whatever the
# merges say.
_WITH_BOS_AND_WORDS = ("llama-bpe", "llama3", "llama-v3", "tekken")

END_TOKENS = (
  "<|im_end|>",
  "<|eot_id|>",
  "<|eom_id|>",
  "<end_of_turn>",
  "<end_of_utterance>",
  "<|end|>",
  "<|return|>",
  "<|call|>",
  "<|endoftext|>",
  "<|end_of_text|>",
  "<EOT>",
  "_<EOT>",
  "[EOT]",
  "[EOS]",
  "<eos>",
  "</s>",
)
"""Texts of tokens that end a text or a turn in llama.cpp, whatever a file says of their kind."""


def gguf_tokenizer(fields: Mapping[str, Any], *, where: str) -> PreTrainedTokenizerBase | None:
  """The fast tokenizer of a GGUF file; None if it has no vocabulary.

  Args: fields: the file's metadata. where: the file, for messages.
  Raises: InputError: a kind of tokenizer that is not known here, or fields that do not fit.
  """
  from transformers import PreTrainedTokenizerFast

  if f"{_PREFIX}tokens" not in fields:
    return None
  tokens = _listed(fields, "tokens", str, where)
  kinds = _listed(fields, "token_type", int, where) or [_NORMAL] * len(tokens)
  if len(kinds) != len(tokens):
    raise InputError(f"{where}: {len(tokens)} tokens, but {len(kinds)} entries of token_type")
  model, cut = fields.get(f"{_PREFIX}model"), fields.get(f"{_PREFIX}pre", "default")
  if model == "gpt2":
    tokenizer = _bpe(fields, tokens, cut, where)
  elif model == "llama":
    tokenizer = _sentencepiece(fields, tokens, kinds, where)
  else:
    raise InputError(f"{where}: {_PREFIX}model {model!r} is not gpt2 or llama")
  _add_tokens(tokenizer, tokens, kinds)
  names = {
    f"{name}_token": _token(fields, f"{_PREFIX}{field}_token_id", tokens, where)
    for name, field in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
  }
  names = {name: token for name, token in names.items() if token is not None}
  default = model == "llama" or cut in _WITH_BOS_AND_WORDS
  if fields.get(f"{_PREFIX}add_bos_token", default) and "bos_token" in names:
    _begin_with(tokenizer, names["bos_token"], tokens.index(names["bos_token"]))
  built = PreTrainedTokenizerFast(
    tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **names
  )
  template = fields.get("tokenizer.chat_template")
  if isinstance(template, str):
    built.chat_template = template
  return built


def _bpe(fields: Mapping[str, Any], tokens: Sequence[str], cut: str, where: str) -> Tokenizer:
  """Merges of bytes, as in GPT-2."""
  from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

  if not isinstance(cut, str) or cut not in _CUTS:
    raise InputError(f"{where}: {_PREFIX}pre {cut!r} is not one of {', '.join(_CUTS)}")
  merges = [tuple(one.split(" ", 1)) for one in _listed(fields, "merges", str, where)]
  vocabulary = {token: number for number, token in enumerate(tokens)}
  whole = cut in _WITH_BOS_AND_WORDS
  try:
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=whole))
  except Exception as error:  # The tokenizers library raises nothing more specific.
    raise InputError(f"{where}: {_PREFIX}merges do not fit the tokens ({error})") from None
  cuts = [pre_tokenizers.Split(Regex(one), behavior="isolated") for one in _CUTS[cut]]
  cuts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence(cuts)
  tokenizer.decoder = decoders.ByteLevel()
  return tokenizer


def _sentencepiece(
  fields: Mapping[str, Any], tokens: Sequence[str], kinds: Sequence[int], where: str
) -> Tokenizer:
  """Merges of characters by the scores of what they make, as in SentencePiece."""
  from tokenizers import Tokenizer, decoders, models, normalizers

  scores = _listed(fields, "scores", float, where)
  if len(scores) != len(tokens):
    raise InputError(f"{where}: {_PREFIX}scores has no entry for each of {len(tokens)} tokens")
  vocabulary = {token: number for number, token in enumerate(tokens)}
  unknown = next((token for token, kind in zip(tokens, kinds, strict=True) if kind == _UNKNOWN), "")
  tokenizer = Tokenizer(
    models.BPE(
      vocabulary,
      _merges(vocabulary, tokens, kinds, scores),
      unk_token=unknown or None,
      fuse_unk=True,
      byte_fallback=_BYTE in kinds,
    )
  )
  has_prefix = fields.get(f"{_PREFIX}add_space_prefix", True)
  spaces = [normalizers.Prepend(_SPACE)] if has_prefix else []
  tokenizer.normalizer = normalizers.Sequence([*spaces, normalizers.Replace(" ", _SPACE)])
  steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
  if has_prefix:
    steps.append(decoders.Strip(" ", 1, 0))
  tokenizer.decoder = decoders.Sequence(steps)
  return tokenizer


def _merges(
  vocabulary: Mapping[str, int],
  tokens: Sequence[str],
  kinds: Sequence[int],
  scores: Sequence[float],
) -> list[tuple[str, str]]:
  """Every pair of tokens whose texts make another token, best first by that token's score."""
  order = sorted(range(len(tokens)), key=lambda number: -scores[number])
  found = []
  for number in order:
    token = tokens[number]
    if kinds[number] not in (_NORMAL, _OWN):
      continue
    pairs = [(token[:at], token[at:]) for at in range(1, len(token))]
    pairs = [pair for pair in pairs if pair[0] in vocabulary and pair[1] in vocabulary]
    found += sorted(pairs, key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
  return found


def _add_tokens(tokenizer: Tokenizer, tokens: Sequence[str], kinds: Sequence[int]) -> None:
  """Tokens that are found in a text before it is cut: control tokens, and the model's own."""
  from tokenizers import AddedToken

  for special, wanted in ((True, (CONTROL, _UNKNOWN)), (False, (_OWN,))):
    added = [
      AddedToken(token, special=special, normalized=False)
      for token, kind in zip(tokens, kinds, strict=True)
      if token and (CONTROL if token in END_TOKENS else kind) in wanted
    ]
    (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(added)


def _begin_with(tokenizer: Tokenizer, token: str, number: int) -> None:
  from tokenizers import processors

  tokenizer.post_processor = processors.TemplateProcessing(
    single=f"{token} $A", pair=f"{token} $A {token} $B", special_tokens=[(token, number)]
  )


def _listed(fields: Mapping[str, Any], name: str, kind: type, where: str) -> list[Any]:
  """A list of texts or numbers; empty where it is missing. Raises: InputError: anything else."""
  found = fields.get(f"{_PREFIX}{name}", [])
  if not isinstance(found, list) or not all(isinstance(one, kind) for one in found):
    words = "texts" if kind is str else "numbers"
    raise InputError(f"{where}: {_PREFIX}{name} is no list of {words}")
  return found


def _token(fields: Mapping[str, Any], name: str, tokens: Sequence[str], where: str) -> str | None:
  number = fields.get(name)
  if number is None:
    return None
  if not isinstance(number, int) or not 0 <= number < len(tokens):
    raise InputError(f"{where}: {name} is {number!r}; there are {len(tokens)} tokens")
  return tokens[number]
