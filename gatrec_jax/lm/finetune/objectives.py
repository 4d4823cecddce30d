"""Objectives of fine-tuning: per-example losses from the decoder's hidden states.

All objectives have the same signature, so a training step accepts any of them. They take `hidden`,
the decoder's hidden states [B, T, D]; `head`, which maps hidden states [..., D] to logits [..., V]
float32; and the rows. They return unreduced losses and a bool mask of the same shape.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gatrec_jax.lm.finetune import losses as lm_losses
from gatrec_jax.lm.finetune.packing import LabelRows, TokenRows

HEAD_TOKENS = 256  # tokens of each row that the output head processes at once

Head = Callable[[jax.Array], jax.Array]
Objective = Callable[[jax.Array, Head, Any], tuple[jax.Array, jax.Array]]


def next_token(hidden: jax.Array, head: Head, rows: TokenRows) -> tuple[jax.Array, jax.Array]:
  """−log p of each target token, [B, T], for completion examples.

  The head processes a piece of each row at a time and is recomputed in the backward pass, because
  the logits of whole rows would be by far the largest array of a step.
  """
  batch, length, width = hidden.shape
  size = min(length, HEAD_TOKENS)
  pieces = -(-length // size)
  filled = pieces * size - length
  # A token is predicted by the hidden state before it; the first token is not predicted.
  before = jnp.pad(hidden[:, :-1], ((0, 0), (1, filled), (0, 0)))
  targets = jnp.pad(rows.tokens, ((0, 0), (0, filled)))

  @jax.checkpoint
  def losses(piece: tuple[jax.Array, jax.Array]) -> jax.Array:
    return lm_losses.target_losses(head(piece[0]), piece[1])

  before = before.reshape(batch, pieces, size, width).swapaxes(0, 1)
  targets = targets.reshape(batch, pieces, size).swapaxes(0, 1)
  values = jax.lax.map(losses, (before, targets)).swapaxes(0, 1).reshape(batch, -1)
  return values[:, :length], rows.where & (jnp.arange(length) > 0)


def label_cross_entropy(
  hidden: jax.Array, head: Head, rows: LabelRows
) -> tuple[jax.Array, jax.Array]:
  """Cross-entropy, [B], of the most relevant label (the first if several are)."""
  label = jnp.argmax(jnp.where(rows.where, rows.relevance, -jnp.inf), axis=1)
  losses = lm_losses.label_loss(label_logits(hidden, head, rows), label, where=rows.where)
  return losses, rows.where.any(axis=1)


def softmax(hidden: jax.Array, head: Head, rows: LabelRows) -> tuple[jax.Array, jax.Array]:
  """`losses.listwise_softmax_loss`, [B], of the labels after each prompt; relevance ≥ 0."""
  return _listwise(lm_losses.listwise_softmax_loss, hidden, head, rows)


def listnet(hidden: jax.Array, head: Head, rows: LabelRows) -> tuple[jax.Array, jax.Array]:
  """`losses.listnet_loss`, [B], of the labels after each prompt."""
  return _listwise(lm_losses.listnet_loss, hidden, head, rows)


def ranknet(hidden: jax.Array, head: Head, rows: LabelRows) -> tuple[jax.Array, jax.Array]:
  """`losses.ranknet_loss`, [B], of the labels after each prompt."""
  return _listwise(lm_losses.ranknet_loss, hidden, head, rows)


def label_logits(hidden: jax.Array, head: Head, rows: LabelRows) -> jax.Array:
  """Logits of the labels after each prompt, [B, L] float32."""
  last = jnp.maximum(rows.lengths - 1, 0)[:, None, None]
  logits = head(jnp.take_along_axis(hidden, last, axis=1)[:, 0])
  return jnp.take_along_axis(logits, rows.labels, axis=1)


def _listwise(
  loss: Callable[..., jax.Array], hidden: jax.Array, head: Head, rows: LabelRows
) -> tuple[jax.Array, jax.Array]:
  losses = loss(label_logits(hidden, head, rows), rows.relevance, where=rows.where)
  return losses, rows.where.any(axis=1)
