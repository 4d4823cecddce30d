"""Loads text encoders: sentence encoders and decoders, from folders and GGUF files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gatrec_jax.errors import InputError
from gatrec_jax.lm.decoder.config import (
  DecoderConfig,
  decoder_config,
  is_decoder,
  read_decoder_config,
)
from gatrec_jax.lm.decoder.gguf import config_fields
from gatrec_jax.lm.encoder import bert
from gatrec_jax.lm.encoder.pooling import POOLINGS, Head, Modules, read_modules
from gatrec_jax.lm.folders.fields import require_object
from gatrec_jax.lm.folders.gguf import GgufFile, is_gguf, read_gguf
from gatrec_jax.lm.folders.load import read_params, weight_bytes
from gatrec_jax.lm.folders.memory import require_memory
from gatrec_jax.lm.folders.source import read_json
from gatrec_jax.lm.folders.weights import load_params
from gatrec_jax.lm.tokens.gguf import gguf_tokenizer
from gatrec_jax.runs.paths import user_path

DTYPES = ("float32", "bfloat16")
VOCABULARIES = ("vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model")


@dataclasses.dataclass(frozen=True)
class Encoder:
  """A loaded sentence encoder.

  Attributes:
    name: display name.
    config: of the encoder, or of a decoder used as one.
    head: pooling and the layers after it.
    params: `{"encoder": …, "dense": …}`, arrays in `dtype` (those of dense layers in float32).
    tokenizer: a `tokenizers.Tokenizer`.
    padding_id: the token id that pads batches.
    max_tokens: the longest text, in tokens, that the model supports.
    dimension: D of the vectors.
    dtype: `float32` or `bfloat16`, of the arithmetic.
    prompt: put before every text; usually "".
    lower_case: whether to lower-case texts first.
  """

  name: str
  config: bert.EncoderConfig | DecoderConfig
  head: Head
  params: Mapping[str, Any]
  tokenizer: Any
  padding_id: int
  max_tokens: int
  dimension: int
  dtype: str
  prompt: str
  lower_case: bool


def load_encoder(
  folder: str | Path,
  *,
  dtype: str = "float32",
  name: str = "",
  prompt: str | None = None,
  pooling: str = "auto",
) -> Encoder:
  """Loads a sentence encoder from a plain or a sentence-transformers folder, or a decoder.

  Without modules that say otherwise, a text's vector is the L2-normalized mean of its tokens' last
  hidden states, padding and nothing else left out.

  Args:
    folder: of an encoder or a decoder; or a GGUF file of a decoder.
    dtype: `float32` or `bfloat16`.
    name: display name; that of the folder or file if empty.
    prompt: put before every text, such as an instruction; None for the folder's own.
    pooling: `mean`, `last` (the last token, the only one of a decoder that attends to the whole
      text), or `auto` for the folder's own.
  Raises: InputError if anything is missing, damaged, of the wrong shape, not supported, or larger
    than the available memory.
  """
  if dtype not in DTYPES:
    raise InputError(f"encoder dtype {dtype!r} is not one of {', '.join(DTYPES)}")
  if pooling not in ("auto", *POOLINGS):
    raise InputError(
      f"must be one of auto, {', '.join(POOLINGS)}", field="encoder_pooling", value=pooling
    )
  folder = user_path(folder)
  file = read_gguf(folder) if is_gguf(folder) else None
  if file is None and not folder.is_dir():
    raise InputError(f"{folder}: no such folder or GGUF file")
  modules = read_modules(folder) if file is None else Modules(folder, Head(), (), "", False)
  head = modules.head
  if pooling != "auto":
    head = dataclasses.replace(head, modes=(POOLINGS[pooling],))
  config, tokenizer = _config_and_tokenizer(modules.transformer, file)
  if (size := tokenizer.get_vocab_size(with_added_tokens=False)) > config.vocabulary:
    raise InputError(
      f"{modules.transformer}: the tokenizer has {size} tokens, the model a vocab_size of "
      f"{config.vocabulary}; they belong to different models"
    )
  width = config.width * len(head.modes)
  for layer in modules.dense:
    if layer["kernel"].shape[0] != width:
      raise InputError(
        f"{folder}: a Dense module expects {layer['kernel'].shape[0]} features but gets {width}"
      )
    width = layer["kernel"].shape[1]
  return Encoder(
    name=name or (folder.name if file is None else folder.stem),
    config=config,
    head=head,
    params={"encoder": _params(modules.transformer, config, dtype, file), "dense": modules.dense},
    tokenizer=tokenizer,
    padding_id=_padding_id(tokenizer, config),
    max_tokens=config.context if isinstance(config, DecoderConfig) else config.max_tokens,
    dimension=width,
    dtype=dtype,
    prompt=modules.prompt if prompt is None else prompt,
    lower_case=modules.lower_case,
  )


def _config_and_tokenizer(
  folder: Path, file: GgufFile | None
) -> tuple[bert.EncoderConfig | DecoderConfig, Any]:
  """The configuration and the `tokenizers.Tokenizer` of a folder, or of a GGUF file."""
  if file is None:
    return _read_config(folder), load_tokenizer(folder)
  config = decoder_config(config_fields(file), where=str(folder))
  tokenizer = gguf_tokenizer(file.fields, where=str(folder))
  if tokenizer is None:
    raise InputError(f"{folder}: has no tokenizer, which texts need")
  return config, tokenizer.backend_tokenizer


def _params(
  folder: Path, config: bert.EncoderConfig | DecoderConfig, dtype: str, file: GgufFile | None
) -> Mapping[str, Any]:
  """The weights of a folder or a GGUF file, without the output head of a decoder."""
  if isinstance(config, DecoderConfig):
    require_memory(
      weight_bytes(config, dtype=dtype),
      what=f"{folder}: weights ({dtype})",
      remedy="use `encoder_dtype=bfloat16`, a smaller model, or `encoder=lexical`",
    )
    return read_params(folder, config, dtype=dtype, head=False, file=file)
  return load_params(
    folder, bert.weight_rules(config), dtype=dtype, renames=bert.RENAMES, unused=bert.UNUSED
  )


def load_tokenizer(folder: Path) -> Any:
  """Loads the folder's fast tokenizer, without the truncation and padding set in its file."""
  path = folder / "tokenizer.json"
  if not any((folder / name).is_file() for name in ("tokenizer.json", *VOCABULARIES)):
    raise InputError(f"{folder}: no tokenizer; a tokenizer.json is needed")
  try:
    if path.is_file():
      from tokenizers import Tokenizer

      tokenizer = Tokenizer.from_file(str(path))
    else:
      # Old folders have only a vocabulary, which transformers (1.5 s to import) can convert.
      from transformers import AutoTokenizer

      tokenizer = AutoTokenizer.from_pretrained(str(folder), use_fast=True).backend_tokenizer
  except (KeyboardInterrupt, SystemExit, MemoryError):
    raise
  except BaseException as error:  # A damaged file raises a bare Exception, or a panic beyond that.
    reason = " ".join(str(error).split())[:200] or repr(error)
    raise InputError(
      f"{folder}: no usable tokenizer; a tokenizer.json is needed ({reason})"
    ) from None
  tokenizer.no_padding()
  tokenizer.no_truncation()
  return tokenizer


def _read_config(folder: Path) -> bert.EncoderConfig | DecoderConfig:
  path = folder / "config.json"
  if path.is_file() and is_decoder(require_object(read_json(path), str(path))):
    return read_decoder_config(folder)
  return bert.read_config(folder)


def _padding_id(tokenizer: Any, config: bert.EncoderConfig | DecoderConfig) -> int:
  """Returns the padding id. Padding is masked, but RoBERTa's positions depend on the id."""
  if isinstance(config, DecoderConfig):
    return config.pad
  if config.padding_index is not None:
    return config.padding_index
  return tokenizer.token_to_id("[PAD]") or 0
