"""The decoder: one network for all model families, configured by a `DecoderConfig`.

Layers are unrolled: a scan over stacked weights copies each layer's slice before use, which halves
the speed of decoding on a CPU. Kernels are [out, in], as in Hugging Face files.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from gatrec_jax.lm.decoder.attention import resolve_attention
from gatrec_jax.lm.decoder.blocks import Batch, Block, Projection, RmsNorm
from gatrec_jax.lm.decoder.cache import Cache
from gatrec_jax.lm.decoder.config import DecoderConfig
from gatrec_jax.lm.decoder.packed import Packed, dequantized

Params = Mapping[str, Any]


@flax.struct.dataclass
class Lora:
  """Low-rank adapters of some projections (Hu et al. 2021, eq. 3).

  Attributes:
    params: tree like the model's, with `{"a": [r, in], "b": [out, r]}` at each adapted projection.
    scale: α / r.
    dropout: share of the inputs of `a` that is dropped during training.
  """

  params: Params
  scale: float = flax.struct.field(pytree_node=False)
  dropout: float = flax.struct.field(pytree_node=False, default=0.0)


class Embedding(nn.Module):
  """Embedding table lookup, in a table that may be packed."""

  vocabulary: int
  width: int

  @nn.compact
  def __call__(self, tokens: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """tokens: [B, T] int32. Returns: [B, T, D] in `dtype`."""
    stored = self.get_variable("params", "embedding")
    if isinstance(stored, Packed):
      rows = dequantized(stored.rows(tokens.ravel()), dtype).T
      return rows.reshape(*tokens.shape, self.width)
    init = nn.with_logical_partitioning(nn.initializers.normal(1.0), ("vocab", "embed"))
    return self.param("embedding", init, (self.vocabulary, self.width))[tokens].astype(dtype)


class Decoder(nn.Module):
  """Maps token ids to hidden states; `logits_of` maps these to logits.

  Attributes:
    config: architecture and sizes. dtype: of the arithmetic.
    implementation: of attention, one of `attention.IMPLEMENTATIONS` except `auto`.
    remat: whether to recompute blocks in the backward pass instead of keeping activations.
    lora_scale, lora_dropout: of the `lora` collection, if there is one.
  """

  config: DecoderConfig
  dtype: Any = jnp.float32
  implementation: str = "xla"
  remat: bool = False
  lora_scale: float = 0.0
  lora_dropout: float = 0.0

  @nn.compact
  def __call__(
    self, tokens: jax.Array, batch: Batch, past: Cache | None = None
  ) -> tuple[jax.Array, tuple[tuple[jax.Array, jax.Array], ...]]:
    """Args: tokens: [B, T] int32. batch: their positions, lengths. past: cache of earlier tokens.

    Returns: [B, T, D] hidden states after the last norm, or [B, 1, D] with `batch.only`; and keys
      and values of each layer, as returned by `Attention`.
    """
    config = self.config
    hidden = Embedding(config.vocabulary, config.width, name="embed")(tokens, self.dtype)
    # The scale is rounded to the dtype first, as in the original implementation.
    hidden *= jnp.asarray(config.embedding_scale, self.dtype)
    block = nn.remat(Block) if self.remat else Block
    present = []
    for number, layer in enumerate(config.layers):
      earlier = None if past is None else (past.keys[number], past.values[number])
      whole = number + 1 < len(config.layers)  # the next layer needs all positions
      hidden, kept = block(
        config,
        layer,
        self.implementation,
        self.lora_scale,
        self.lora_dropout,
        name=f"layer_{number}",
      )(hidden, batch.replace(only=None) if whole else batch, earlier)
      present.append(kept)
    hidden = RmsNorm(config.epsilon, config.norm_offset, name="final_norm")(hidden)
    return hidden, tuple(present)


def init_params(key: jax.Array, config: DecoderConfig, dtype: str = "float32") -> dict[str, Any]:
  """Initializes random parameters; use `jax.eval_shape` to get their shapes without allocating.

  Args: key: is consumed. config: architecture and sizes. dtype: of the parameters.
  Returns: the nested dict of parameters.
  """
  return jax.tree.map(lambda leaf: leaf.astype(dtype), nn.unbox(_boxed_params(key, config)))


def logical_axes(config: DecoderConfig) -> dict[str, Any]:
  """Logical axis names of every parameter, for `sharding.mesh`.

  Returns: a tree like that of the parameters, of `PartitionSpec`s over `vocab`, `embed`, `heads`,
    `kv_heads` and `mlp`.
  """
  boxed = jax.eval_shape(lambda key: _boxed_params(key, config), jax.random.key(0))
  return nn.get_partition_spec(boxed)


def parameter_count(config: DecoderConfig) -> int:
  """Counts the parameters of a configuration without allocating any."""
  # Layers differ in their windows and positions alone: one says how many all of them have.
  one = dataclasses.replace(config, layers=config.layers[:1])
  shapes = jax.eval_shape(lambda key: init_params(key, one), jax.random.key(0))

  def count(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))

  return count(shapes) + (len(config.layers) - 1) * count(shapes["layer_0"])


def _boxed_params(key: jax.Array, config: DecoderConfig) -> dict[str, Any]:
  body_key, head_key = jax.random.split(key)
  tokens = jnp.zeros((1, 1), jnp.int32)
  batch = Batch(tokens, jnp.ones((1,), jnp.int32), None, None, None)
  params = dict(Decoder(config).init(body_key, tokens, batch)["params"])
  if not config.tied:
    hidden = jnp.zeros((1, config.width))
    params["head"] = _head(config.vocabulary).init(head_key, hidden)["params"]
  return params


def _head(features: int) -> Projection:
  return Projection(features, False, ("vocab", "embed"), out_dtype=jnp.float32)


def compute_dtype(params: Params) -> jnp.dtype:
  """Returns the dtype of the arithmetic: that of the norms, which are never quantized."""
  return params["final_norm"]["scale"].dtype


def run_decoder(
  params: Params,
  tokens: jax.Array,
  batch: Batch,
  *,
  config: DecoderConfig,
  past: Cache | None = None,
  lora: Lora | None = None,
  dropout_key: jax.Array | None = None,
  remat: bool = False,
  attention: str = "auto",
) -> tuple[jax.Array, tuple[tuple[jax.Array, jax.Array], ...]]:
  """Runs the decoder on a batch, with or without a cache. For use inside jitted functions.

  Args:
    params: from `init_params` or `load_decoder`.
    tokens: [B, T] int32. batch: their positions and lengths. past: cache of earlier tokens.
    config: architecture and sizes. lora: adapters. dropout_key: turns their dropout on; is
      consumed. remat, attention: see `Decoder` and `attention.resolve_attention`.
  Returns: hidden states, and keys and values of each layer, as `Decoder`.
  """
  dtype = compute_dtype(params)
  decoder = Decoder(
    config,
    dtype,
    resolve_attention(
      attention, head_size=config.head_size, softcap=config.attention_softcap, dtype=dtype
    ),
    remat,
    lora.scale if lora is not None else 0.0,
    lora.dropout if lora is not None else 0.0,
  )
  variables = {"params": {name: tree for name, tree in params.items() if name != "head"}}
  if lora is not None:
    variables["lora"] = lora.params
  rngs = None if dropout_key is None else {"dropout": dropout_key}
  return decoder.apply(variables, tokens, batch, past, rngs=rngs)


def hidden_states(
  params: Params,
  tokens: jax.Array,
  *,
  config: DecoderConfig,
  lengths: jax.Array | None = None,
  positions: jax.Array | None = None,
  segments: jax.Array | None = None,
  only: jax.Array | None = None,
  lora: Lora | None = None,
  dropout_key: jax.Array | None = None,
  remat: bool = False,
  attention: str = "auto",
) -> jax.Array:
  """Hidden states after the last norm. Arguments as in `forward`, and `only`.

  Args: only: [B] int32, the only position of each row that is needed; None for all.
  Returns: [B, T, D], or [B, 1, D] with `only`.
  """
  rows, length = tokens.shape
  if lengths is None:
    lengths = jnp.full((rows,), length, jnp.int32)
  if positions is None:
    positions = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), tokens.shape)
  batch = Batch(positions, lengths, segments, None, None, only)
  return run_decoder(
    params,
    tokens,
    batch,
    config=config,
    lora=lora,
    dropout_key=dropout_key,
    remat=remat,
    attention=attention,
  )[0]


def logits_of(
  params: Params, hidden: jax.Array, *, config: DecoderConfig, tokens: jax.Array | None = None
) -> jax.Array:
  """Logits of hidden states.

  Args: params: of the model. hidden: [..., D]. config: architecture and sizes. tokens: [L] int32
    ids whose logits are needed; None for the whole vocabulary.
  Returns: [..., V or L] float32.
  """
  kernel = params["embed"]["embedding"] if config.tied else params["head"]["kernel"]
  if tokens is not None:
    kernel = kernel.rows(tokens) if isinstance(kernel, Packed) else kernel[tokens]
  hidden = hidden.astype(compute_dtype(params))
  logits = _head(kernel.shape[0]).apply({"params": {"kernel": kernel}}, hidden)
  cap = config.final_softcap
  return logits if cap is None else cap * jnp.tanh(logits / cap)


@functools.partial(jax.jit, static_argnames=("config", "remat", "attention"))
def forward(
  params: Params,
  tokens: jax.Array,
  *,
  config: DecoderConfig,
  lengths: jax.Array | None = None,
  positions: jax.Array | None = None,
  segments: jax.Array | None = None,
  lora: Lora | None = None,
  dropout_key: jax.Array | None = None,
  remat: bool = False,
  attention: str = "auto",
) -> jax.Array:
  """Runs the decoder on whole sequences and returns the logits at every position.

  Args:
    params: from `init_params` or `load_decoder`.
    tokens: [B, T] int32 token ids, padded on the right.
    config: of the model.
    lengths: [B] int32, tokens of each row; None if all rows are full.
    positions: [B, T] int32; None for 0, 1, 2, …
    segments: [B, T] int32 for packed rows: tokens attend only within their segment; 0 is padding.
    lora: adapters. dropout_key: turns their dropout on; is consumed.
    remat: whether to recompute blocks in the backward pass instead of keeping activations.
    attention: `auto`, `xla`, `cudnn` or `pallas`.
  Returns: [B, T, V] float32; logits at padding are meaningless.
  """
  hidden = hidden_states(
    params,
    tokens,
    config=config,
    lengths=lengths,
    positions=positions,
    segments=segments,
    lora=lora,
    dropout_key=dropout_key,
    remat=remat,
    attention=attention,
  )
  return logits_of(params, hidden, config=config)
