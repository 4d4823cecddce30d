"""Exact vectors of a user and their items without some of the ratings, by a partial rerun.

This works for at most two light layers (attention without weight matrices). Without the edges
between a user u and a set of items D, the first layer changes only at u and D; the second changes
at u, at all items of u and at the users of D, whose vectors no score of u depends on. The vectors
of items that u has not rated stay the same, as does every message from other users.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

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
_MIN_SIZE = 32  # arrays are padded to powers of two from here on, so that few shapes are compiled


class Surroundings(NamedTuple):
  """The edges of a user and of the user's items, padded.

  Attributes:
    user: [] int32, the user's node.
    items: [h] int32, nodes of the user's items; 0 for padding.
    there: [h] bool, False for padding.
    features: [h, F] float32, features of the edges between the user and the items.
    senders: [e] int32, nodes of other users who rated the items; 0 for padding.
    slot: [e] int32 ascending, which of the h items each of them rated; h for padding.
    sent: [e, F] float32, features of the edges from these users to the items.
  """

  user: Array
  items: Array
  there: Array
  features: Array
  senders: Array
  slot: Array
  sent: Array


class Changed(NamedTuple):
  """Final vectors without some ratings.

  Attributes: user: [B, D] float32, of the user. items: [B, h, D] float32, of the user's items.
  """

  user: Array
  items: Array


class _Logit(Protocol):
  """Attention logits of edges."""

  def __call__(self, senders: Array, receivers: Array, features: Array) -> Array:
    """[...] from node states [..., D] of both ends and edge features [..., F]."""


def surroundings(graph: jraph.GraphsTuple, user: int) -> Surroundings:
  """Collects the edges that a change of the user's ratings can affect.

  Args: graph: from `bipartite_graph`, without self-loops, as numpy arrays. user: the node.
  """
  senders, receivers = graph.senders, graph.receivers

  def edges_into(node: int) -> slice:
    return slice(*np.searchsorted(receivers, [node, node + 1]))

  own = edges_into(user)
  items = senders[own]
  into = [edges_into(item) for item in items]
  places = np.concatenate([np.arange(own.start, own.stop) for own in into] or [[]]).astype(int)
  slot = np.repeat(np.arange(len(items)), [own.stop - own.start for own in into])
  others = senders[places] != user
  places, slot = places[others], slot[others]
  size, width = padded_size(len(items)), padded_size(len(places))

  def pad(values: np.ndarray, length: int, padding: int = 0) -> np.ndarray:
    widths = [(0, length - len(values))] + [(0, 0)] * (values.ndim - 1)
    return np.pad(values, widths, constant_values=padding)

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
  """The next power of two that is at least `count` and at least 32."""
  return max(_MIN_SIZE, 1 << max(count - 1, 0).bit_length())


def can_delete(settings: ModelConfig) -> bool:
  """Whether `vectors_without` is exact for networks with these settings."""
  convolution = settings.convolution
  return (
    isinstance(convolution, LightConvolution)
    and convolution.attention in ("v1", "none")
    and convolution.layers <= 2
    and not convolution.self_loops
  )


def vectors_without(
  params: Any, states: Sequence[Array], around: Surroundings, kept: Array, *, settings: ModelConfig
) -> Changed:
  """Computes the final vectors of a user and their items for B sets of kept ratings.

  They equal those of the whole network on a graph without the other edges (in both directions), up
  to rounding. Can be traced by JAX.

  Args:
    params: of the network.
    states: input features and the output of each layer on the whole graph, L + 1 arrays [N, D].
    around: of the user.
    kept: [B, h] bool, which ratings are kept; any value for padding.
    settings: of the network; `can_delete(settings)` must hold.
  """
  kept = kept & around.there
  bare = params["ids"] if "ids" in params else jnp.zeros_like(states[0])
  has_others = (
    jax.ops.segment_sum(
      jnp.ones_like(around.slot), around.slot, len(around.items), indices_are_sorted=True
    )
    > 0
  )
  # The id vector of a node without edges counts as 0.
  start = states[0][around.user]
  user = jnp.where(kept.any(axis=1)[:, None], start, start - bare[around.user])
  whole = [state[around.items] for state in states]
  lonely = jnp.where(has_others[:, None], whole[0], whole[0] - bare[around.items])
  of_user, of_kept, of_deleted = [user], [whole[0]], [lonely]
  for layer in range(settings.convolution.num_layers):
    logit = _logits(params, layer, settings, states[0].shape[1], around.features.shape[1])
    # The items send their states on the whole graph: the first layer changes only deleted items,
    # and those send nothing to the user.
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


def _logits(
  params: Any, layer: int, settings: ModelConfig, width: int, num_features: int
) -> _Logit:
  """The logits of a layer, as `attention_light` computes them."""
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
  logit: _Logit, senders: Array, receivers: Array, around: Surroundings
) -> tuple[Array, Array]:
  """Messages from the other users to the items.

  Args: logit: of the layer. senders: [N, D] states. receivers: [h, D] states of the items.
  Returns: [h] logarithm of the sum of their unnormalized weights, and [h, D] weighted mean of their
    states.
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
