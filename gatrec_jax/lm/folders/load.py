"""A decoder folder, ready for use: configuration, weights on their devices, tokenizer."""

from __future__ import annotations

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
from gatrec_jax.lm.decoder.config import DecoderConfig, read_decoder_config
from gatrec_jax.lm.decoder.model import logical_axes
from gatrec_jax.lm.decoder.quantize import quantize_array, quantized_paths
from gatrec_jax.lm.decoder.weights import RENAMES, unused_names, weight_rules
from gatrec_jax.lm.folders.memory import require_memory
from gatrec_jax.lm.folders.weights import load_params, weight_files
from gatrec_jax.lm.tokens.chat import load_chat_tokenizer
from gatrec_jax.lm.tokens.token_bytes import Spelling, make_spelling
from gatrec_jax.sharding.mesh import DEFAULT_RULES, Rules, parameter_sharding

if TYPE_CHECKING:
  from jax.sharding import Mesh
  from transformers import PreTrainedTokenizerBase

DTYPES = ("float32", "bfloat16")
QUANTIZATIONS = ("none", "int8")
CACHE_TOKENS = 4096  # room for a cache of so many tokens is asked for before loading


@dataclasses.dataclass(frozen=True)
class LanguageModel:
  """A decoder with all that is needed to use it.

  Attributes:
    name: for people. folder: where it came from; None for one made in memory.
    config: its shape. params: nested dict of arrays in `dtype` (or int8, with scales).
    tokenizer: a fast transformers tokenizer; None where there is none and only ids work.
    dtype: of the arithmetic. attention: the implementation that prefill takes.
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
    """The id that begins a text, None where the model has none."""
    own = self.tokenizer.bos_token_id if self.tokenizer is not None else None
    return own if own is not None else self.config.bos

  @property
  def eos(self) -> tuple[int, ...]:
    """The ids that end a text."""
    own = self.tokenizer.eos_token_id if self.tokenizer is not None else None
    ids = (*self.config.eos, own) if own is not None else self.config.eos
    return tuple(dict.fromkeys(ids))

  @functools.cached_property
  def spelling(self) -> Spelling:
    """The bytes of every token, to write text that follows other text.

    Raises: InputError where there is no tokenizer.
    """
    if self.tokenizer is None:
      raise InputError(f"{self.name}: texts need a tokenizer; the model folder has none")
    return make_spelling(self.tokenizer, vocabulary=self.config.vocabulary, eos=self.eos)

  @functools.cached_property
  def added_tokens(self) -> dict[str, int]:
    """Pieces of text that are one token wherever they stand; empty without a tokenizer."""
    return {} if self.tokenizer is None else dict(self.tokenizer.added_tokens_encoder)

  @property
  def parameters(self) -> int:
    """Number of weights, the scales of quantized ones not counted."""
    leaves = jax.tree_util.tree_leaves_with_path(self.params)
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
) -> LanguageModel:
  """Loads a decoder from a Hugging Face folder.

  Args:
    folder: holds config.json, safetensors weights, and usually a tokenizer.
    dtype: `float32` or `bfloat16`; weights are cast while they are read.
    quantize: `int8` keeps the matrices in 8 bits, with a scale for each output channel.
    attention: `auto`, `xla`, `cudnn` or `pallas`.
    mesh: where the weights are to lie; None for the default device.
    rules: logical axis names to mesh axes.
    name: for people; the folder's if empty.
  Raises: InputError for anything missing, damaged, of a wrong shape, not supported, or too big for
    the memory that is there.
  """
  folder = Path(folder)
  if not folder.is_dir():
    raise InputError(f"{folder}: no such folder (open_decoder takes hub ids too)")
  if dtype not in DTYPES:
    raise InputError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
  if quantize not in QUANTIZATIONS:
    raise InputError(f"not one of {', '.join(QUANTIZATIONS)}", field="quantize", value=quantize)
  config = read_decoder_config(folder)
  weight_files(folder, loader="AutoModelForCausalLM")
  tokenizer = load_chat_tokenizer(folder)
  if tokenizer is not None and len(tokenizer) > config.vocabulary:
    raise InputError(
      f"{folder}: the tokenizer has {len(tokenizer)} tokens, config.json a vocab_size of "
      f"{config.vocabulary}; they belong to different models"
    )
  implementation = resolve_attention(
    attention, head_size=config.head_size, softcap=config.attention_softcap, dtype=jnp.dtype(dtype)
  )
  slots = min(CACHE_TOKENS, config.context)
  require_memory(
    weight_bytes(config, dtype=dtype, quantize=quantize)
    + cache_bytes(config, rows=1, slots=slots, dtype=dtype),
    what=f"{folder}: weights ({dtype}{', int8' if quantize == 'int8' else ''}) and a cache of "
    f"{slots} tokens",
    remedy="take `dtype=bfloat16`, `quantize=int8`, a smaller model or more devices",
    devices=None if mesh is None else mesh.local_devices,
  )
  params = read_params(
    folder, config, dtype=dtype, quantize=quantize, mesh=mesh, rules=rules, head=True
  )
  return LanguageModel(
    name or folder.resolve().name, folder, config, params, tokenizer, dtype, implementation
  )


def read_params(
  folder: Path,
  config: DecoderConfig,
  *,
  dtype: str,
  quantize: str = "none",
  mesh: Mesh | None = None,
  rules: Rules = DEFAULT_RULES,
  head: bool = True,
) -> dict[str, Any]:
  """The weights of a folder, cast and placed one by one. Arguments as in `load_decoder`.

  Args: head: whether an untied output head is wanted.
  """
  axes = logical_axes(config) if mesh is not None else None
  small = quantized_paths(config) if quantize == "int8" else frozenset()

  def place(target: str, array: np.ndarray) -> jax.Array | dict[str, jax.Array]:
    if mesh is None:

      def put(value, _):
        return jnp.asarray(value)
    else:
      spec = functools.reduce(lambda tree, part: tree[part], target.split("/"), axes)

      def put(value, names):
        return jax.device_put(value, parameter_sharding(names, value.shape, mesh, rules))

    names = () if mesh is None else tuple(spec)
    if target in small:
      values, scales = quantize_array(array)
      return {"kernel_int8": put(values, names), "kernel_scale": put(scales, names[:1])}
    return put(array, names)

  params = load_params(
    folder,
    weight_rules(config, head=head),
    dtype=dtype,
    renames=RENAMES,
    unused=unused_names(config, head=head),
    place=place,
  )
  return _lifted(params) if small else params


def weight_bytes(config: DecoderConfig, *, dtype: str, quantize: str = "none") -> int:
  """Bytes of the weights of that shape."""
  small = quantized_paths(config) if quantize == "int8" else frozenset()
  wide = jnp.dtype(dtype).itemsize
  total = 0
  for rule in weight_rules(config):
    shape = rule.sources[0][1]
    quantized = rule.target in small
    total += math.prod(shape) * (1 if quantized else wide) + (4 * shape[0] if quantized else 0)
  return total


def _lifted(tree: dict[str, Any]) -> dict[str, Any]:
  """{"kernel": {"kernel_int8": …, "kernel_scale": …}, "bias": …} -> one dict."""
  out: dict[str, Any] = {}
  for name, value in tree.items():
    if isinstance(value, dict):
      value = _lifted(value)
      if name == "kernel":
        out |= value
        continue
    out[name] = value
  return out
