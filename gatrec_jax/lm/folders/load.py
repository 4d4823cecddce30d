"""Loads decoders from Hugging Face folders and GGUF files: configuration, weights and tokenizer."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.errors import InputError
from gatrec_jax.lm.decoder.attention import resolve_attention
from gatrec_jax.lm.decoder.cache import cache_bytes
from gatrec_jax.lm.decoder.config import DecoderConfig, decoder_config, read_decoder_config
from gatrec_jax.lm.decoder.gguf import config_fields, kept_words, named_tensors
from gatrec_jax.lm.decoder.model import logical_axes
from gatrec_jax.lm.decoder.packed import Packed, packed_words
from gatrec_jax.lm.decoder.quantize import quantize_array, quantized_paths
from gatrec_jax.lm.decoder.weights import RENAMES, unused_names, weight_rules
from gatrec_jax.lm.folders.decoder_source import EXAMPLE, NAMED, resolve_decoder
from gatrec_jax.lm.folders.gguf import GgufFile, is_gguf, read_gguf
from gatrec_jax.lm.folders.gguf_blocks import Words, has_blocks, words_bytes
from gatrec_jax.lm.folders.memory import require_memory
from gatrec_jax.lm.folders.weights import matched_rules, open_tensors, params_of, weight_files
from gatrec_jax.lm.tokens.chat import ChatEncoder, load_chat_tokenizer
from gatrec_jax.lm.tokens.gguf import gguf_tokenizer
from gatrec_jax.lm.tokens.token_bytes import Spelling, make_spelling
from gatrec_jax.runs.log import CONSOLE, Log
from gatrec_jax.runs.paths import user_path
from gatrec_jax.sharding.mesh import DEFAULT_RULES, Rules, parameter_sharding, parse_mesh
from gatrec_jax.sharding.placement import to_device

if TYPE_CHECKING:
  from jax.sharding import Mesh
  from transformers import PreTrainedTokenizerBase

DTYPES = ("float32", "bfloat16")
QUANTIZATIONS = ("none", "int8", "keep")
HEAD = "lm_head.weight"
CACHE_TOKENS = 4096  # loading requires memory for a cache of this many tokens


@dataclasses.dataclass(frozen=True)
class LanguageModel:
  """A decoder with its tokenizer.

  Attributes:
    name: display name.
    folder: the folder or the GGUF file it was loaded from; None for a model made in memory.
    config: architecture and sizes. params: nested dict of arrays in `dtype` (or int8 with scales,
      or `Packed`).
    tokenizer: a fast transformers tokenizer; None if prompts can only be given as ids.
    dtype: of the arithmetic. attention: the implementation that prefill uses.
  """

  name: str
  folder: Path | None
  config: DecoderConfig
  params: Mapping[str, Any]
  tokenizer: PreTrainedTokenizerBase | None
  dtype: str = "float32"
  attention: str = "xla"

  def __repr__(self) -> str:
    size = f"{self.parameters / 1e6:.3g} M parameters"
    return f"LanguageModel({self.name!r}, {self.config.family}, {size}, {self.dtype})"

  @property
  def bos(self) -> int | None:
    """The id that begins a text; None where there is none, or it is past the embedding table."""
    own = self.tokenizer.bos_token_id if self.tokenizer is not None else None
    found = own if own is not None else self.config.bos
    return found if found is not None and found < self.config.vocabulary else None

  @property
  def eos(self) -> tuple[int, ...]:
    """The ids that end a text."""
    own = self.tokenizer.eos_token_id if self.tokenizer is not None else None
    ids = (*self.config.eos, own) if own is not None else self.config.eos
    return tuple(dict.fromkeys(ids))

  @functools.cached_property
  def spelling(self) -> Spelling:
    """The bytes of every token, for tokenizing text as a continuation.

    Raises: InputError for a model without a tokenizer.
    """
    if self.tokenizer is None:
      raise InputError(f"{self.name}: texts need a tokenizer, which the model folder lacks")
    return make_spelling(self.tokenizer, vocabulary=self.config.vocabulary, eos=self.eos)

  @functools.cached_property
  def encode(self) -> ChatEncoder:
    """Encodes chats, and texts made of data, so that no control token can arise from the data."""
    return ChatEncoder(self.tokenizer, bos=self.bos)

  @functools.cached_property
  def added_tokens(self) -> dict[str, int]:
    """Texts that are always one token wherever they occur; empty without a tokenizer."""
    return {} if self.tokenizer is None else dict(self.tokenizer.added_tokens_encoder)

  @property
  def parameters(self) -> int:
    """Number of weights, not counting the scales of quantized ones."""
    leaves = jax.tree_util.tree_leaves_with_path(
      self.params, is_leaf=lambda leaf: isinstance(leaf, Packed)
    )
    return sum(leaf.size for path, leaf in leaves if path[-1].key != "kernel_scale")


def load_decoder(
  folder: str | Path,
  *,
  dtype: str = "float32",
  quantize: str = "none",
  attention: str = "auto",
  mesh: Mesh | None = None,
  rules: Rules = DEFAULT_RULES,
  name: str = "",
  log: Log = CONSOLE,
) -> LanguageModel:
  """Loads a decoder from a Hugging Face folder or a GGUF file.

  Args:
    folder: contains config.json, safetensors weights, and usually a tokenizer; or a GGUF file of
      any quantization, or any part of one that was split.
    dtype: `float32` or `bfloat16`; weights are cast while they are read.
    quantize: `none`; `int8` to keep matrices in 8 bits with one scale per output channel; `keep`
      to keep those of a GGUF file in the 4 or 8 bits that they are stored in, without rounding.
    attention: `auto`, `xla`, `cudnn` or `pallas`.
    mesh: devices to place the weights on; None for the default device.
    rules: logical axis name -> mesh axis.
    name: display name; the folder's if empty.
    log: where a note about weights that contradict config.json goes.
  Raises: InputError if anything is missing, damaged, of the wrong shape, not supported, or larger
    than the available memory.
  """
  folder = user_path(folder)
  if not folder.is_dir() and not (is_gguf(folder) and folder.is_file()):
    raise InputError(f"{folder}: no such folder or GGUF file (open_decoder takes hub ids too)")
  if dtype not in DTYPES:
    raise InputError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
  if quantize not in QUANTIZATIONS:
    raise InputError(f"not one of {', '.join(QUANTIZATIONS)}", field="quantize", value=quantize)
  file = read_gguf(folder) if is_gguf(folder) else None
  if quantize == "keep" and file is None:
    raise InputError(
      "is for GGUF files, whose weights are quantized; use int8", field="quantize", value=quantize
    )
  if file is not None:
    config = decoder_config(config_fields(file), where=str(folder))
    tokenizer = gguf_tokenizer(file.fields, where=str(folder))
  else:
    config = _with_own_head(folder, read_decoder_config(folder), log)
    tokenizer = load_chat_tokenizer(folder)
  # Added tokens past the table, such as those of images, do not occur in ordinary prompts.
  if tokenizer is not None and tokenizer.vocab_size > config.vocabulary:
    fields = "config.json" if file is None else "token_embd.weight"
    raise InputError(
      f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, {fields} a vocab_size of "
      f"{config.vocabulary}; they belong to different models"
    )
  implementation = resolve_attention(
    attention, head_size=config.head_size, softcap=config.attention_softcap, dtype=jnp.dtype(dtype)
  )
  slots = min(CACHE_TOKENS, config.context)
  require_memory(
    weight_bytes(config, dtype=dtype, quantize=quantize, file=file)
    + cache_bytes(config, rows=1, slots=slots, dtype=dtype),
    what=f"{folder}: weights ({dtype}{'' if quantize == 'none' else ', ' + quantize}) and a cache "
    f"of {slots} tokens",
    remedy=f"use `dtype=bfloat16`, `quantize={'int8' if file is None else 'keep'}`, a smaller "
    "model or more devices",
    devices=None if mesh is None else mesh.local_devices,
  )
  params = read_params(
    folder, config, dtype=dtype, quantize=quantize, mesh=mesh, rules=rules, file=file
  )
  return LanguageModel(
    name or (folder.resolve().name if file is None else folder.stem),
    folder,
    config,
    params,
    tokenizer,
    dtype,
    implementation,
  )


def open_decoder(
  spec: str | None,
  *,
  dtype: str = "float32",
  quantize: str = "none",
  attention: str = "auto",
  mesh: str = "1x1",
  log: Log = CONSOLE,
) -> LanguageModel:
  """Loads a decoder from a folder, a GGUF file or by hub id, downloading it if it is not cached.

  Args: spec: as `resolve_decoder` takes it. mesh: devices as "DATAxMODEL". log: SILENT hides the
    progress bars of a download. The other arguments are those of `load_decoder`.
  Raises: InputError that says what would have worked.
  """
  if not spec:
    raise InputError(
      f"give a model folder, a GGUF file, a hub id such as {EXAMPLE}, or {', '.join(NAMED)}",
      field="llm",
    )
  found = resolve_decoder(spec, log=log)
  model = load_decoder(
    found.folder,
    dtype=dtype,
    quantize=quantize,
    attention=attention,
    mesh=parse_mesh(mesh),
    log=log,
  )
  return dataclasses.replace(model, name=found.name, folder=Path(found.folder))


def read_config(folder: Path) -> DecoderConfig:
  """The configuration of a folder or a GGUF file. Raises: InputError as `load_decoder`."""
  if is_gguf(folder):
    return decoder_config(config_fields(read_gguf(folder)), where=str(folder))
  return read_decoder_config(folder)


def _with_own_head(folder: Path, config: DecoderConfig, log: Log) -> DecoderConfig:
  """`config`, untied where the file has a head that differs from the embedding table.

  Names, shapes and dtypes of all weights are checked on the way, from their headers alone.

  Raises: InputError as `load_params`.
  """
  weight_files(folder, loader="AutoModelForCausalLM")
  with open_tensors(folder, RENAMES) as tensors:
    if config.tied and HEAD in tensors:
      untied = dataclasses.replace(config, tied=False)
      matched_rules(folder, tensors, weight_rules(untied), unused_names(untied))
      head, table = (
        file.get_tensor(name)
        for file, name in (tensors[HEAD], tensors["model.embed_tokens.weight"])
      )
      if np.array_equal(head, table):
        return config
      log.info(
        f"{folder}: config.json says that the output head is the embedding table "
        f"(tie_word_embeddings), but {HEAD} differs from it; {HEAD} counts"
      )
      return untied
    matched_rules(folder, tensors, weight_rules(config), unused_names(config))
  return config


def read_params(
  folder: Path,
  config: DecoderConfig,
  *,
  dtype: str,
  quantize: str = "none",
  mesh: Mesh | None = None,
  rules: Rules = DEFAULT_RULES,
  head: bool = True,
  file: GgufFile | None = None,
) -> dict[str, Any]:
  """Loads the weights of a folder, cast and placed one by one. Arguments as in `load_decoder`.

  Args: head: whether to load an untied output head. file: in the place of the folder's weights.
  """
  axes = logical_axes(config) if mesh is not None else None
  small = quantized_paths(config) if quantize == "int8" else frozenset()

  def place(target: str, array: np.ndarray | Words) -> Packed | jax.Array | dict[str, jax.Array]:
    names: tuple[str | None, ...] = ()
    if mesh is not None:
      names = tuple(functools.reduce(lambda tree, part: tree[part], target.split("/"), axes))

    def put(value: np.ndarray, names: tuple[str | None, ...]) -> jax.Array:
      if mesh is None:
        return to_device(value)
      return jax.device_put(value, parameter_sharding(names, value.shape, mesh, rules))

    if isinstance(array, Words):
      # Axes: blocks of inputs, words of a block or none, outputs.
      return packed_words(
        array, lambda one: put(one, (*names[1:], *[None] * (one.ndim - 2), *names[:1]))
      )
    if target in small:
      values, scales = quantize_array(array)
      return {"kernel_int8": put(values, names), "kernel_scale": put(scales, names[:1])}
    return put(array, names)

  with contextlib.ExitStack() as stack:
    if file is not None:
      tensors = named_tensors(file, config)
    else:
      tensors = stack.enter_context(open_tensors(folder, RENAMES))
    params = params_of(
      tensors,
      weight_rules(config, head=head),
      where=folder,
      dtype=dtype,
      unused=unused_names(config, head=head),
      place=place,
      read=kept_words if quantize == "keep" else None,
    )
  return _lifted(params) if small else params


def weight_bytes(
  config: DecoderConfig, *, dtype: str, quantize: str = "none", file: GgufFile | None = None
) -> int:
  """Returns the size of a decoder's weights in bytes, without allocating them.

  Args: file: that they are in, for `keep`. The others as in `load_decoder`.
  """
  if quantize == "keep":
    wide = jnp.dtype(dtype).itemsize
    return sum(
      words_bytes(one.data, one.shape, one.kind)
      if has_blocks(one.shape, one.kind)
      else wide * math.prod(one.shape)
      for one in file.tensors.values()
    )
  small = quantized_paths(config) if quantize == "int8" else frozenset()
  wide = jnp.dtype(dtype).itemsize
  total = 0
  for rule in weight_rules(config):
    shape = rule.sources[0][1]
    quantized = rule.target in small
    total += math.prod(shape) * (1 if quantized else wide) + (4 * shape[0] if quantized else 0)
  return total


def _lifted(tree: dict[str, Any]) -> dict[str, Any]:
  """Flattens {"kernel": {"kernel_int8": …, "kernel_scale": …}, "bias": …} to one dict per layer."""
  out: dict[str, Any] = {}
  for name, value in tree.items():
    if isinstance(value, dict):
      value = _lifted(value)
      if name == "kernel":
        out |= value
        continue
    out[name] = value
  return out
