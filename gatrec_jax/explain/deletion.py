"""The vectors of a user and of her items as if she had not rated some of these: exactly, and by
re-running only what that changes.

Of light layers (attention without weight matrices), at most two. Without the edges between a user
u and the items D, the first layer changes at u and at D alone; the second at u, at all of u's items
and at users of D, whose vectors no score of u contains. Items that u has not rated stay as they
are, and so does everything that other users send.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jraph
import numpy as np

from gatrec_jax.config.convolutions import LightConvolution
from gatrec_jax.config.schema import ModelConfig
from gatrec_jax.ops.attention import segment_softmax
from gatrec_jax.ops.numeric import unit

Array = jax.Array

_NONE = -1e30  # the logarithm of a weight of 0
_SMALLEST = 32  # arrays are padded to powers of two from here on: few shapes, few compilations


class Surroundings(NamedTuple):
  """A user's edges and those of her items, padded.

  Attributes:
    user: [] int32, the node.
    items: [h] int32, nodes of her items; of padding 0.
    there: [h] bool, False for padding.
    features: [h, F] float32, of the edges between them and her.
    senders: [e] int32, the other users of these items, of padding 0; slot: [e] int32 ascending,
      whose of the h items, of padding h; sent: [e, F] float32, features of these edges.
  """

  user: Array
  items: Array
  there: Array
  features: Array
  senders: Array
  slot: Array
  sent: Array


class Changed(NamedTuple):
  """Attributes: user: [B, D] float32, her vectors. items: [B, h, D], those of her items."""

  user: Array
  items: Array


def surroundings(graph: jraph.GraphsTuple, user: int) -> Surroundings:
  """Args: graph: of `bipartite_graph`, without self-loops, numpy arrays. user: the node."""
  senders, receivers = graph.senders, graph.receivers

  def edges_into(node: int) -> slice:
    return slice(*np.searchsorted(receivers, [node, node + 1]))

  own = edges_into(user)
  items = senders[own]
  into = [edges_into(item) for item in items]
  places = np.concatenate([np.arange(part.start, part.stop) for part in into] or [[]]).astype(int)
  slot = np.repeat(np.arange(len(items)), [part.stop - part.start for part in into])
  others = senders[places] != user
  places, slot = places[others], slot[others]
  size, width = padded_size(len(items)), padded_size(len(places))

  def pad(values: np.ndarray, length: int, fill: int = 0) -> np.ndarray:
    widths = [(0, length - len(values))] + [(0, 0)] * (values.ndim - 1)
    return np.pad(values, widths, constant_values=fill)

  return Surroundings(
    np.int32(user),
    pad(items, size),
    pad(np.ones(len(items), bool), size),
    pad(graph.edges[own], size),
    pad(senders[places], width),
    pad(slot.astype(np.int32), width, len(items)),
    pad(graph.edges[places], width),
  )


def padded_size(count: int) -> int:
  """The next power of two, at least 32."""
  return max(_SMALLEST, 1 << max(count - 1, 0).bit_length())


def can_delete(settings: ModelConfig) -> bool:
  """Whether `vectors_without` is exact for such a network."""
  convolution = settings.convolution
  return (
    isinstance(convolution, LightConvolution)
    and convolution.layers <= 2
    and not convolution.self_loops
  )


def vectors_without(
  params: Any, states: Sequence[Array], around: Surroundings, kept: Array, *, settings: ModelConfig
) -> Changed:
  """The final vectors of a user and of her items, for each of B sets of ratings that stay.

  Equal to those of the whole network run on the graph without the other edges (in both directions),
  up to rounding. Traceable.

  Args:
    params: of the network. states: its features and what each layer gave on the whole graph, L + 1
      arrays [N, D].
    around: of the user. kept: [B, h] bool, which of her ratings stay; padding may be anything.
    settings: of the network; `can_delete` holds for them.
  """
  kept = kept & around.there
  bare = params["ids"] if "ids" in params else jnp.zeros_like(states[0])
  has_others = (
    jax.ops.segment_sum(
      jnp.ones_like(around.slot), around.slot, len(around.items), indices_are_sorted=True
    )
    > 0
  )
  # The id of a node without edges counts 0.
  start = states[0][around.user]
  user = jnp.where(kept.any(axis=1)[:, None], start, start - bare[around.user])
  whole = [state[around.items] for state in states]
  lonely = jnp.where(has_others[:, None], whole[0], whole[0] - bare[around.items])
  of_user, of_kept, of_deleted = [user], [whole[0]], [lonely]
  for layer in range(settings.convolution.num_layers):
    logit = _logits(params, layer, settings, states[0].shape[1], around.features.shape[1])
    # Her items send what they were on the whole graph: the first layer changes only those that
    # are deleted, and these send her nothing.
    incoming = logit(whole[layer], of_user[-1][:, None], around.features)
    incoming = jax.nn.softmax(jnp.where(kept, incoming, _NONE), axis=1) * kept
    received = jnp.matmul(incoming, whole[layer], precision=jax.lax.Precision.HIGHEST)
    if layer == 0:
      of_kept.append(whole[1])
    else:
      mass, mean = _from_others(logit, states[layer], whole[layer], around)
      outgoing = logit(of_user[-1][:, None], whole[layer], around.features)
      share = jax.nn.sigmoid(outgoing - mass)[..., None]
      of_kept.append(share * of_user[-1][:, None] + (1 - share) * mean)
    of_deleted.append(_from_others(logit, states[layer], of_deleted[-1], around)[1])
    of_user.append(received)
  items = [
    jnp.where(kept[..., None], stays, goes) for stays, goes in zip(of_kept, of_deleted, strict=True)
  ]
  return Changed(_combined(of_user, settings), _combined(items, settings))


def _logits(params: Any, layer: int, settings: ModelConfig, width: int, num_features: int) -> Any:
  """(senders [..., D], receivers [..., D], features [..., F]) -> [...], as in `attention_light`."""
  own = params.get(f"attention_{layer}", {})
  source = own.get("source_vector", jnp.zeros((1, width)))[0]
  target = own.get("target_vector", jnp.zeros((1, width)))[0]
  edge = own.get("edge_vector", jnp.ones((num_features, 1)))[:, 0]

  def logit(senders: Array, receivers: Array, features: Array) -> Array:
    total = jnp.sum(senders * source, axis=-1) + jnp.sum(receivers * target, axis=-1)
    return jax.nn.leaky_relu(total, settings.convolution.attention_slope) + jnp.sum(
      features * edge, axis=-1
    )

  return logit


def _from_others(
  logit: Any, senders: Array, receivers: Array, around: Surroundings
) -> tuple[Array, Array]:
  """What the other users send the items: the logarithm of their weights' sum [h] and the weighted
  mean [h, D] of their states.

  Args: logit: of the layer. senders: [N, D] states. receivers: [h, D] states of the items.
  """
  count, inside = len(around.items), around.slot < len(around.items)
  place = jnp.minimum(around.slot, count - 1)
  logits = logit(senders[around.senders], receivers[place], around.sent)
  logits = jnp.where(inside & around.there[place], logits, _NONE)
  weights = segment_softmax(logits[:, None], around.slot, count + 1, where=inside)
  mean = jax.ops.segment_sum(
    weights * senders[around.senders], around.slot, count + 1, indices_are_sorted=True
  )[:count]
  largest = jax.ops.segment_max(logits, around.slot, count + 1, indices_are_sorted=True)
  largest = jnp.maximum(largest, _NONE)
  mass = jax.ops.segment_sum(
    jnp.where(inside, jnp.exp(logits - largest[around.slot]), 0.0),
    around.slot,
    count + 1,
    indices_are_sorted=True,
  )
  return jnp.where(mass > 0, largest + jnp.log(jnp.maximum(mass, 1e-30)), _NONE)[:count], mean


def _combined(states: Sequence[Array], settings: ModelConfig) -> Array:
  nodes = sum(states) / len(states) if settings.convolution.combine == "mean" else states[-1]
  return unit(nodes) if settings.score == "cosine" else nodes
