"""Flax modules of one decoder layer: projections, norms, attention and MLP."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from gatrec_jax.lm.decoder.attention import Keys, attend, self_attention
from gatrec_jax.lm.decoder.cache import visible
from gatrec_jax.lm.decoder.config import DecoderConfig, Layer
from gatrec_jax.lm.decoder.linear import linear
from gatrec_jax.lm.decoder.packed import Packed
from gatrec_jax.lm.decoder.rope import rotate, rotations

ACTIVATIONS = {
  "silu": jax.nn.silu,
  "gelu": functools.partial(jax.nn.gelu, approximate=False),
  "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
}


class Projection(nn.Module):
  """Computes x Wᵀ + bias, plus the LoRA term if the layer has an adapter. W may be int8 or packed.

  Attributes:
    features: size of the output. bias: whether to add one. axes: logical axis names of [out, in].
    lora_scale, lora_dropout: of the adapter. out_dtype: of the result; None for that of `x`.
  """

  features: int
  bias: bool
  axes: tuple[str | None, str | None]
  lora_scale: float = 0.0
  lora_dropout: float = 0.0
  out_dtype: Any = None

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """x: [..., in]. Returns: [..., features]."""
    dtype = self.out_dtype or x.dtype
    out_axis, in_axis = self.axes
    stored = self.get_variable("params", "kernel")
    if isinstance(stored, Packed):
      y = linear(x, stored, out_dtype=dtype)
    elif self.has_variable("params", "kernel_int8"):
      kernel = self.get_variable("params", "kernel_int8").astype(x.dtype)
      scale = self.get_variable("params", "kernel_scale")
      y = (linear(x, kernel, out_dtype=jnp.float32) * scale).astype(dtype)
    else:
      init = nn.with_logical_partitioning(
        nn.initializers.variance_scaling(1.0, "fan_in", "normal", in_axis=1, out_axis=0),
        (out_axis, in_axis),
      )
      y = linear(x, self.param("kernel", init, (self.features, x.shape[-1])), out_dtype=dtype)
    if self.bias:
      init = nn.with_logical_partitioning(nn.initializers.zeros, (out_axis,))
      y += self.param("bias", init, (self.features,))
    if self.has_variable("lora", "a"):
      if self.lora_dropout and self.has_rng("dropout"):
        keep = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.lora_dropout, x.shape)
        x = jnp.where(keep, x / (1 - self.lora_dropout), 0)
      low = linear(x, self.get_variable("lora", "a").astype(x.dtype))
      y += self.lora_scale * linear(low, self.get_variable("lora", "b").astype(x.dtype))
    return y


class RmsNorm(nn.Module):
  """Root-mean-square norm (Zhang & Sennrich 2019), computed in float32.

  Attributes: epsilon: added to the mean square. offset: whether to scale by 1 + weight. axis:
    logical axis name of the weight.
  """

  epsilon: float
  offset: bool
  axis: str | None = "embed"

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """x: [..., D]. Returns: the same shape and dtype."""
    start = nn.initializers.zeros if self.offset else nn.initializers.ones
    scale = self.param("scale", nn.with_logical_partitioning(start, (self.axis,)), x.shape[-1:])
    scale = scale.astype(jnp.float32) + (1.0 if self.offset else 0.0)
    wide = x.astype(jnp.float32)
    mean_square = jnp.mean(wide * wide, axis=-1, keepdims=True)
    return (wide * jax.lax.rsqrt(mean_square + self.epsilon) * scale).astype(x.dtype)


class Batch(flax.struct.PyTreeNode):
  """Positions, lengths and cache slots of a batch of tokens, the same for all layers.

  Attributes:
    positions: [B, T] int32. lengths: [B] int32. segments: [B, T] int32 or None.
    slot: scalar int32, the first cache slot to write the tokens to; None to leave the cache alone.
    cache_positions: [B or 1, S] int32 positions in the cache after writing; None without a cache.
    only: [B] int32, the only index of each row whose output is needed; None for all. The last layer
      then computes queries and MLP for that token alone. Not supported with segments.
  """

  positions: jax.Array
  lengths: jax.Array
  segments: jax.Array | None
  slot: jax.Array | None
  cache_positions: jax.Array | None
  only: jax.Array | None = None


def take_place(values: jax.Array, places: jax.Array) -> jax.Array:
  """Selects one position per row: values [B, T, ...], places [B] int32 -> [B, 1, ...]."""
  return jnp.take_along_axis(values, places.reshape(-1, *[1] * (values.ndim - 1)), axis=1)


class Attention(nn.Module):
  """Grouped-query attention of one layer."""

  config: DecoderConfig
  layer: Layer
  implementation: str
  lora_scale: float
  lora_dropout: float

  @nn.compact
  def __call__(
    self, hidden: jax.Array, batch: Batch, past: tuple[jax.Array, jax.Array] | None
  ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Args: hidden: [B, T, D]. past: cached keys and values [R, Hk, S, d], where R divides B.

    Returns: [B, T, D], or [B, 1, D] with `batch.only`; and keys and values: those of the tokens
      alone, [B, Hk, T, d], or, if `batch.slot` is given, the whole updated cache.
    """
    config, length = self.config, hidden.shape[1]
    query_input, query_positions = hidden, batch.positions
    if batch.only is not None:
      query_input = take_place(query_input, batch.only)
      query_positions = take_place(query_positions, batch.only)
    projection = functools.partial(
      Projection, lora_scale=self.lora_scale, lora_dropout=self.lora_dropout
    )

    def heads(name: str, values: jax.Array, count: int, axis: str) -> jax.Array:
      features = count * config.head_size
      out = projection(features, config.qkv_bias, (axis, "embed"), name=name)(values)
      return out.reshape(*values.shape[:2], count, config.head_size)

    query = heads("q", query_input, config.heads, "heads")
    key = heads("k", hidden, config.kv_heads, "kv_heads")
    value = heads("v", hidden, config.kv_heads, "kv_heads")
    if config.qk_norm:
      norm = functools.partial(RmsNorm, config.epsilon, config.norm_offset, None)
      query, key = norm(name="q_norm")(query), norm(name="k_norm")(key)
    if self.layer.rope is not None:
      rotation = functools.partial(rotations, self.layer.rope, size=config.head_size)
      query, key = rotate(query, rotation(query_positions)), rotate(key, rotation(batch.positions))
    by_head = (0, 2, 1, 3)
    scaled = {"scale": config.query_scale, "softcap": config.attention_softcap}
    if past is None and batch.only is None:
      mixed = self_attention(
        query,
        key,
        value,
        lengths=batch.lengths,
        segments=batch.segments,
        window=self.layer.window,
        implementation=self.implementation,
        **scaled,
      )
      present = (key.transpose(by_head), value.transpose(by_head))
    elif batch.slot is not None:
      start = (0, 0, batch.slot, 0)
      present = tuple(
        jax.lax.dynamic_update_slice(old, new.transpose(by_head), start)
        for old, new in zip(past, (key, value), strict=True)
      )
      seen = visible(batch.cache_positions, query_positions, self.layer.window)
      mixed = attend(query, [Keys(*present, seen)], **scaled)
    else:
      present = (key.transpose(by_head), value.transpose(by_head))
      own_positions = jnp.where(jnp.arange(length) < batch.lengths[:, None], batch.positions, -1)
      window = self.layer.window
      keys = [Keys(*present, visible(own_positions, query_positions, window))]
      if past is not None:
        keys.insert(0, Keys(*past, visible(batch.cache_positions, query_positions, window)))
      mixed = attend(query, keys, **scaled)
    mixed = mixed.reshape(*query_input.shape[:2], config.heads * config.head_size)
    out = projection(config.width, config.output_bias, ("embed", "heads"), name="o")(mixed)
    return out, present


class Mlp(nn.Module):
  """Gated feed-forward layer (Shazeer 2020)."""

  config: DecoderConfig
  lora_scale: float
  lora_dropout: float

  @nn.compact
  def __call__(self, hidden: jax.Array) -> jax.Array:
    """hidden: [B, T, D]. Returns: the same shape."""
    config = self.config
    projection = functools.partial(
      Projection, bias=config.mlp_bias, lora_scale=self.lora_scale, lora_dropout=self.lora_dropout
    )
    gate = projection(config.inner, axes=("mlp", "embed"), name="gate")(hidden)
    up = projection(config.inner, axes=("mlp", "embed"), name="up")(hidden)
    inner = ACTIVATIONS[config.activation](gate) * up
    return projection(config.width, axes=("embed", "mlp"), name="down")(inner)


class Block(nn.Module):
  """One decoder layer: attention and MLP, each with norms and a residual connection."""

  config: DecoderConfig
  layer: Layer
  implementation: str
  lora_scale: float
  lora_dropout: float

  @nn.compact
  def __call__(
    self, hidden: jax.Array, batch: Batch, past: tuple[jax.Array, jax.Array] | None
  ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Same arguments and results as `Attention`."""
    config = self.config
    norm = functools.partial(RmsNorm, config.epsilon, config.norm_offset)
    lora = {"lora_scale": self.lora_scale, "lora_dropout": self.lora_dropout}
    attention = Attention(config, self.layer, self.implementation, name="attention", **lora)
    mixed, present = attention(norm(name="input_norm")(hidden), batch, past)
    if config.sandwich_norms:
      mixed = norm(name="attention_output_norm")(mixed)
    if batch.only is not None:
      hidden = take_place(hidden, batch.only)
    hidden += mixed
    inner = Mlp(config, name="mlp", **lora)(norm(name="mlp_norm")(hidden))
    if config.sandwich_norms:
      inner = norm(name="mlp_output_norm")(inner)
    return hidden + inner, present
