"""Which implementation makes the sums of attention: what the edges carry decides."""

from __future__ import annotations

import jax

from gatrec_jax.models.attention.edges import Edges, Sums
from gatrec_jax.models.attention.logits import Logits, Terms
from gatrec_jax.models.attention.segment import segment_sums


def attention_sums(
  logits: Logits,
  values: jax.Array,
  terms: Terms,
  edges: Edges,
  *,
  heads: int,
  keep: jax.Array | None,
  chunk: int,
) -> Sums:
  """The sums of attention. Args: as `segment_sums`."""
  return segment_sums(logits, values, terms, edges, heads=heads, keep=keep, chunk=chunk)
