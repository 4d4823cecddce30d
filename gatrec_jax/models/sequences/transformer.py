"""A causal transformer over rows of events, for SASRec."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gatrec_jax.ops.numeric import drop

Array = jax.Array
_ZEROS = nn.initializers.zeros


class Transformer(nn.Module):
  """Blocks of attention and of a feed-forward network, each after a normalization (pre-norm).

  Before training the blocks add nothing, so that a state is that of its own event.

  Attributes:
    blocks, heads: how many; the heads divide D.
  """

  blocks: int
  heads: int

  @nn.compact
  def __call__(self, vectors: Array, visible: Array, *, dropout: Any, key: Array) -> Array:
    """[B, T, D] states of the places.

    Args:
      vectors: [B, T, D] float32. visible: [B, T, T] bool, whether the first place may read the
        second one; a place that may read none has a state without meaning.
      dropout: of the input and of what each part adds; may be traced, 0 = none.
      key: of dropout; consumed.
    """
    width = vectors.shape[-1]
    keys = jax.random.split(key, 1 + 2 * self.blocks)
    vectors = drop(keys[0], vectors, dropout)
    for number in range(self.blocks):
      name = f"block_{number}"
      read = nn.LayerNorm(name=f"{name}_attention_norm")(vectors)
      added = Attention(self.heads, name=f"{name}_attention")(read, visible)
      vectors += drop(keys[1 + 2 * number], added, dropout)
      read = nn.LayerNorm(name=f"{name}_hidden_norm")(vectors)
      hidden = nn.gelu(nn.Dense(width, name=f"{name}_hidden")(read))
      added = nn.Dense(width, kernel_init=_ZEROS, name=f"{name}_output")(hidden)
      vectors += drop(keys[2 + 2 * number], added, dropout)
    return nn.LayerNorm(name="norm")(vectors)


class Attention(nn.Module):
  """Scaled dot-product attention with several heads (Vaswani et al. 2017).

  Attributes: heads: they divide D.
  """

  heads: int

  @nn.compact
  def __call__(self, vectors: Array, visible: Array) -> Array:
    """[B, T, D] float32. Args: as in `Transformer`."""
    width = vectors.shape[-1]
    shape = (self.heads, width // self.heads)
    query, key, value = (
      nn.DenseGeneral(shape, name=name)(vectors) for name in ("query", "key", "value")
    )
    logits = jnp.einsum("bqhd,bkhd->bhqk", query, key) / jnp.sqrt(shape[1])
    weights = jax.nn.softmax(jnp.where(visible[:, None], logits, -1e9), axis=-1)
    read = jnp.einsum("bhqk,bkhd->bqhd", weights, value)
    return nn.DenseGeneral(width, axis=(-2, -1), kernel_init=_ZEROS, name="output")(read)
