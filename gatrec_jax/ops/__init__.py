"""Pure JAX functions on arrays: attention, losses, negatives, sampling, propagation, ranking.

Nothing here reads a configuration object. `attention` is a namespace of its own.
"""

from gatrec_jax.ops import attention
from gatrec_jax.ops.attention import (
  Edges,
  attention_light,
  attention_v1,
  attention_v2,
  segment_softmax,
)
from gatrec_jax.ops.losses import bpr_loss, cosine_distance, hybrid_loss
from gatrec_jax.ops.negatives import NegativeSampler, draw_negatives, make_sampler
from gatrec_jax.ops.neighbors import Subgraph, draw_subgraph
from gatrec_jax.ops.numeric import drop, unit
from gatrec_jax.ops.propagation import (
  fold_in,
  layer_vectors,
  make_propagation,
  mean_of_layers,
  propagate,
)
from gatrec_jax.ops.scores import dot_product_scores, pair_scores, standardize, sum_of_standardized
from gatrec_jax.ops.softmax_loss import Targets, make_targets, softmax_loss
from gatrec_jax.ops.top_k import top_items, top_items_by

__all__ = [
  "Edges",
  "NegativeSampler",
  "Subgraph",
  "Targets",
  "attention",
  "attention_light",
  "attention_v1",
  "attention_v2",
  "bpr_loss",
  "cosine_distance",
  "dot_product_scores",
  "draw_negatives",
  "draw_subgraph",
  "drop",
  "fold_in",
  "hybrid_loss",
  "layer_vectors",
  "make_propagation",
  "make_sampler",
  "make_targets",
  "mean_of_layers",
  "pair_scores",
  "propagate",
  "segment_softmax",
  "softmax_loss",
  "standardize",
  "sum_of_standardized",
  "top_items",
  "top_items_by",
  "unit",
]
