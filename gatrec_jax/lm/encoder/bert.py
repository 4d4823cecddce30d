"""Encoders of the BERT family in Flax: BERT, MPNet, RoBERTa and XLM-RoBERTa layouts."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.errors import InputError
from gatrec_jax.lm.decoder.config import MOST_LAYERS
from gatrec_jax.lm.folders.fields import real, require_object, shown, whole
from gatrec_jax.lm.folders.source import read_json
from gatrec_jax.lm.folders.weights import Rule

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
  "gelu": functools.partial(jax.nn.gelu, approximate=False),
  "gelu_new": functools.partial(jax.nn.gelu, approximate=True),
  "gelu_pytorch_tanh": functools.partial(jax.nn.gelu, approximate=True),
  "relu": jax.nn.relu,
  "silu": jax.nn.silu,
}
LAYOUTS = ("bert", "mpnet", "roberta", "xlm-roberta")
# Fixed in MPNet's code, regardless of its config.
RELATIVE_BUCKETS = 32
RELATIVE_DISTANCE = 128
# An encoder saved within a larger model has a prefix on every name; old files call the layer norm's
# scale and bias gamma and beta.
RENAMES = (
  (r"^(bert|mpnet|roberta)\.", ""),
  (r"LayerNorm\.gamma$", "LayerNorm.weight"),
  (r"LayerNorm\.beta$", "LayerNorm.bias"),
)
UNUSED = (r"embeddings\.position_ids", r"pooler\..*", r"cls\..*", r"lm_head\..*", r"classifier\..*")


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
  """Architecture and sizes of an encoder, from its `config.json`.

  Attributes:
    layout: one of `LAYOUTS`.
    vocabulary, width, layers, heads, inner: sizes (inner is the feed-forward width).
    positions: rows of the position table.
    token_types: rows of the token type table; 0 if the layout has none.
    activation: a key of `ACTIVATIONS`.
    epsilon: of the layer norms.
    padding_index: positions start at `padding_index + 1`; None if they start at 0 (BERT).
  """

  layout: str
  vocabulary: int
  width: int
  layers: int
  heads: int
  inner: int
  positions: int
  token_types: int
  activation: str
  epsilon: float
  padding_index: int | None

  @property
  def max_tokens(self) -> int:
    """The longest text, in tokens, that the position table allows."""
    return self.positions - (0 if self.padding_index is None else self.padding_index + 1)


def read_config(folder: Path) -> EncoderConfig:
  """Reads an encoder's config.json. Raises: InputError if it is missing or not supported."""
  path = folder / "config.json"
  if not path.is_file():
    raise InputError(f"{path}: not found; an encoder folder needs a config.json")
  where = str(path)
  fields = require_object(read_json(path), where)
  layout = fields.get("model_type")
  if layout not in LAYOUTS:
    raise InputError(f"{path}: model_type {shown(layout)} is not one of {', '.join(LAYOUTS)}")
  activation = fields.get("hidden_act", "gelu")
  if not isinstance(activation, str) or activation not in ACTIVATIONS:
    raise InputError(
      f"{path}: hidden_act {shown(activation)} is not one of {', '.join(ACTIVATIONS)}"
    )
  position_type = fields.get("position_embedding_type") or "absolute"
  if position_type != "absolute":
    raise InputError(f"{path}: position_embedding_type {shown(position_type)} is not absolute")
  if fields.get("is_decoder"):
    raise InputError(f"{path}: is_decoder is set; a bidirectional encoder is needed")
  known = {"layer_norm_eps": 1e-12, "type_vocab_size": 2, "pad_token_id": 1} | fields
  try:
    config = EncoderConfig(
      layout=layout,
      vocabulary=whole(fields, "vocab_size", where),
      width=whole(fields, "hidden_size", where),
      layers=whole(fields, "num_hidden_layers", where, high=MOST_LAYERS),
      heads=whole(fields, "num_attention_heads", where),
      inner=whole(fields, "intermediate_size", where),
      positions=whole(fields, "max_position_embeddings", where),
      token_types=0 if layout == "mpnet" else whole(known, "type_vocab_size", where),
      activation=activation,
      epsilon=real(known, "layer_norm_eps", where, low=0.0),
      padding_index=_padding_index(layout, known, where),
    )
  except KeyError as error:
    raise InputError(f"{path}: has no {error.args[0]}") from None
  if config.width % config.heads:
    raise InputError(
      f"{path}: hidden_size {config.width} is not a multiple of {config.heads} heads"
    )
  if config.max_tokens < 1:
    raise InputError(
      f"{path}: max_position_embeddings {config.positions} leaves no position for text behind "
      f"pad_token_id {config.padding_index}"
    )
  return config


def _padding_index(layout: str, fields: Mapping[str, Any], where: str) -> int | None:
  if layout == "bert":
    return None
  return 1 if layout == "mpnet" else whole(fields, "pad_token_id", where, low=0)


def weight_rules(config: EncoderConfig) -> list[Rule]:
  """Returns the name table: tensors of Hugging Face files -> parameters of `EncoderModel`."""
  width, inner = config.width, config.inner
  mpnet = config.layout == "mpnet"
  attention = "encoder.layer.{layer}.attention."
  if mpnet:
    inputs, output, norm = ["attn.q", "attn.k", "attn.v"], "attn.o", "LayerNorm"
  else:
    inputs = ["self.query", "self.key", "self.value"]
    output, norm = "output.dense", "output.LayerNorm"

  def dense(target: str, names: list[str], size_in: int, size_out: int) -> list[Rule]:
    weights = tuple((name + ".weight", (size_out, size_in)) for name in names)
    biases = tuple((name + ".bias", (size_out,)) for name in names)
    return [
      Rule(f"layers/{target}/kernel", weights, transpose=True, layers=config.layers),
      Rule(f"layers/{target}/bias", biases, layers=config.layers),
    ]

  def layer_norm(target: str, name: str, layers: int | None) -> list[Rule]:
    return [
      Rule(f"{target}/scale", ((name + ".weight", (width,)),), layers=layers),
      Rule(f"{target}/bias", ((name + ".bias", (width,)),), layers=layers),
    ]

  def table(target: str, name: str, rows: int, columns: int = width) -> Rule:
    return Rule(f"{target}/embedding", ((name + ".weight", (rows, columns)),))

  rules = [
    table("words", "embeddings.word_embeddings", config.vocabulary),
    table("positions", "embeddings.position_embeddings", config.positions),
    *layer_norm("norm", "embeddings.LayerNorm", None),
    *dense("qkv", [attention + name for name in inputs], width, width),
    *dense("out", [attention + output], width, width),
    *layer_norm("layers/attention_norm", attention + norm, config.layers),
    *dense("up", ["encoder.layer.{layer}.intermediate.dense"], width, inner),
    *dense("down", ["encoder.layer.{layer}.output.dense"], inner, width),
    *layer_norm("layers/output_norm", "encoder.layer.{layer}.output.LayerNorm", config.layers),
  ]
  if config.token_types:
    rules.append(table("token_types", "embeddings.token_type_embeddings", config.token_types))
  if mpnet:
    bias = "encoder.relative_attention_bias"
    rules.append(table("relative", bias, RELATIVE_BUCKETS, config.heads))
  return rules


def relative_buckets(length: int) -> np.ndarray:
  """T5-style buckets of key minus query positions, as in MPNet. Returns: [T, T] int32."""
  distance = np.arange(length)[:, None] - np.arange(length)[None, :]
  half = RELATIVE_BUCKETS // 2
  exact = half // 2
  near = np.abs(distance)
  # float32 as in the original: float64 would put a few distances into the next bucket.
  ratio = np.log(np.maximum(near, 1).astype(np.float32) / np.float32(exact))
  scale = np.float32(math.log(RELATIVE_DISTANCE / exact))
  far = exact + (ratio / scale * np.float32(half - exact)).astype(np.int32)
  bucket = np.where(near < exact, near, np.minimum(far, half - 1))
  return (bucket + np.where(distance < 0, half, 0)).astype(np.int32)


class EncoderLayer(nn.Module):
  """Self-attention and feed-forward, each with a residual connection and a layer norm."""

  config: EncoderConfig
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, hidden: jax.Array, bias: jax.Array) -> tuple[jax.Array, None]:
    """hidden: [B, T, D]; bias: [B or 1, H or 1, T or 1, T], added to the scores."""
    config = self.config
    # Keeps float32 products in float32; by default, GPUs and TPUs multiply in fewer bits.
    precision = jax.lax.Precision.HIGHEST if self.dtype == jnp.float32 else None
    dense = functools.partial(nn.Dense, dtype=self.dtype, precision=precision)
    norm = functools.partial(
      nn.LayerNorm, epsilon=config.epsilon, dtype=self.dtype, use_fast_variance=False
    )
    batch, length, width = hidden.shape
    size = width // config.heads
    qkv = dense(3 * width, name="qkv")(hidden)
    qkv = qkv.reshape(batch, length, 3, config.heads, size).transpose(2, 0, 3, 1, 4)
    query, key, value = qkv[0] * size**-0.5, qkv[1], qkv[2]
    scores = jnp.einsum("bhqd,bhkd->bhqk", query, key, precision=precision) + bias
    # Normalizing after the product with the values, on [T, d] instead of [T, T], saves a third of
    # the time of attention on a CPU.
    weights = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = jnp.einsum("bhqk,bhkd->bhqd", weights.astype(self.dtype), value, precision=precision)
    mixed = (mixed / weights.sum(axis=-1, keepdims=True)).astype(self.dtype)
    mixed = mixed.transpose(0, 2, 1, 3).reshape(batch, length, width)
    hidden = norm(name="attention_norm")(hidden + dense(width, name="out")(mixed))
    inner = ACTIVATIONS[config.activation](dense(config.inner, name="up")(hidden))
    return norm(name="output_norm")(hidden + dense(width, name="down")(inner)), None


class EncoderModel(nn.Module):
  """Maps token ids to contextual token vectors."""

  config: EncoderConfig
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, ids: jax.Array, lengths: jax.Array) -> jax.Array:
    """Encodes right-padded texts.

    Args: ids: [B, T] int32 token ids. lengths: [B] int32 tokens of each text, at least 1.
    Returns: [B, T, D] vectors in `dtype`; those at padding are meaningless.
    """
    config = self.config
    length = ids.shape[1]
    table = functools.partial(nn.Embed, features=config.width, dtype=self.dtype)
    if config.padding_index is None:
      positions = jnp.arange(length)[None, :]
    else:
      # In these layouts a padding token within a text takes no position.
      real = (ids != config.padding_index).astype(jnp.int32)
      positions = jnp.cumsum(real, axis=1) * real + config.padding_index
    hidden = table(config.vocabulary, name="words")(ids)
    hidden += table(config.positions, name="positions")(positions)
    if config.token_types:
      hidden += table(config.token_types, name="token_types")(jnp.zeros_like(ids[:1]))
    hidden = nn.LayerNorm(
      epsilon=config.epsilon, dtype=self.dtype, use_fast_variance=False, name="norm"
    )(hidden)
    seen = jnp.arange(length)[None, :] < lengths[:, None]
    bias = jnp.where(seen, 0.0, -1e30).astype(jnp.float32)[:, None, None, :]
    if config.layout == "mpnet":
      relative = nn.Embed(RELATIVE_BUCKETS, config.heads, dtype=jnp.float32, name="relative")
      bias += relative(jnp.asarray(relative_buckets(length))).transpose(2, 0, 1)[None]
    # With a scan, the layer is compiled once and its buffers stay in the cache.
    layers = nn.scan(
      EncoderLayer,
      variable_axes={"params": 0},
      split_rngs={"params": True},
      in_axes=nn.broadcast,
      length=config.layers,
    )
    hidden, _ = layers(config, self.dtype, name="layers")(hidden, bias)
    return hidden
