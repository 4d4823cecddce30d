"""Flax modules of the graph attention network: node features, convolutions, final vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import jraph

from gatrec_jax.config.convolutions import FullConvolution, LightConvolution, NoConvolution
from gatrec_jax.config.schema import ModelConfig
from gatrec_jax.errors import InputError
from gatrec_jax.ops.attention import Edges, attention_light, attention_v1, attention_v2
from gatrec_jax.ops.neighbors import Subgraph
from gatrec_jax.ops.numeric import drop, is_off, unit

_TEXT_SLOPE = 0.2  # of the hidden layer between text vectors and features
_kernel_init = nn.initializers.glorot_uniform()
# PyTorch's default for a linear map, as in the authors' residuals: uniform in ± 1/√fan_in.
_residual_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Dropout(nn.Module):
  """`nn.Dropout`, with the same random draws, for a rate that may be traced."""

  rate: Any

  @nn.compact
  def __call__(self, values: jax.Array, *, deterministic: bool) -> jax.Array:
    if deterministic or is_off(self.rate):
      return values
    return drop(self.make_rng("dropout"), values, self.rate)


class GraphAttention(nn.Module):
  """One multi-head attention convolution, heads concatenated: [N, D_in] -> [N, heads * width].

  Parameters are laid out as in PyTorch Geometric's GATv2Conv (v2) and GATConv (v1). Version `none`
  is the plain mean of the neighbors, without attention or edge features.
  """

  width: int
  heads: int
  version: str = "v2"
  slope: float = 0.2
  dropout: Any = 0.0
  chunk: int = 0
  dtype: str = "float32"

  @nn.compact
  def __call__(
    self, nodes: jax.Array, edges: Edges, *, deterministic: bool = True
  ) -> tuple[jax.Array, jax.Array]:
    """Args: nodes: [N, D_in] float. Returns: [N, H * D] and the attention weights [E, H]."""
    shape = (self.heads, self.width)
    num_features = edges.features.shape[1]
    keep = None
    if not (deterministic or is_off(self.dropout)):
      keep = _keep(self.make_rng("dropout"), self.dropout, (edges.senders.shape[0], self.heads))
    sources = nn.DenseGeneral(
      shape,
      kernel_init=_kernel_init,
      name="source",
      use_bias=self.version == "v2",
      dtype=self.dtype,
    )(nodes)
    common = dict(slope=self.slope, keep=keep, chunk=self.chunk)
    if self.version == "v2":
      targets = nn.DenseGeneral(shape, kernel_init=_kernel_init, name="target", dtype=self.dtype)(
        nodes
      )
      out, weights = attention_v2(
        sources,
        targets,
        edges,
        vector=self.param("vector", _kernel_init, shape),
        edge_kernel=self._of_edges("edge_kernel", _flat_glorot, (num_features, *shape)),
        **common,
      )
    elif self.version == "v1":
      out, weights = attention_v1(
        sources,
        edges,
        source_vector=self.param("source_vector", _kernel_init, shape),
        target_vector=self.param("target_vector", _kernel_init, shape),
        edge_vector=self._of_edges("edge_vector", _kernel_init, (num_features, self.heads)),
        **common,
      )
    elif self.version == "none":  # the mean of the neighbors
      alike = jnp.zeros(shape)
      out, weights = attention_v1(
        sources,
        edges,
        source_vector=alike,
        target_vector=alike,
        edge_vector=jnp.zeros((num_features, self.heads)),
        **common,
      )
    else:
      raise ValueError(f"version={self.version}: must be v1, v2 or none")
    out = out.reshape(out.shape[0], -1).astype(jnp.float32)
    return out + self.param("bias", nn.initializers.zeros, (out.shape[1],)), weights

  def _of_edges(self, name: str, init: Any, shape: tuple[int, ...]) -> jax.Array:
    """A parameter with a row for each edge feature; no parameter without features, since Orbax
    does not keep empty arrays."""
    return self.param(name, init, shape) if shape[0] else jnp.zeros(shape)


class LightAttention(nn.Module):
  """A convolution with attention and without weight matrices: [N, D] -> [N, D].

  It is initialized to the mean of the neighbors, weighted by the relevance of their edges if that
  is a feature; with `attention` = none it stays this mean.
  """

  attention: str
  slope: float = 0.2
  dropout: Any = 0.0
  chunk: int = 0
  dtype: str = "float32"

  @nn.compact
  def __call__(
    self, nodes: jax.Array, edges: Edges, *, deterministic: bool = True
  ) -> tuple[jax.Array, jax.Array]:
    """Args: nodes: [N, D] float. Returns: [N, D] and the attention weights [E, 1]."""
    width, num_features = nodes.shape[1], edges.features.shape[1]
    keep = None
    if not (deterministic or is_off(self.dropout)):
      keep = _keep(self.make_rng("dropout"), self.dropout, (edges.senders.shape[0], 1))
    shapes = {
      "source_vector": (1, width),
      "target_vector": (1, width),
      "edge_vector": (num_features, 1),
    }
    zeros, ones = nn.initializers.zeros, nn.initializers.ones
    vectors = {
      name: jnp.full(shape, float(name == "edge_vector"))
      if self.attention == "none" or not shape[0]
      else self.param(name, ones if name == "edge_vector" else zeros, shape)
      for name, shape in shapes.items()
    }
    out, weights = attention_light(
      nodes[:, None, :].astype(self.dtype),
      edges,
      **vectors,
      slope=self.slope,
      keep=keep,
      chunk=self.chunk,
    )
    return out[:, 0].astype(jnp.float32), weights


class GatNetwork(nn.Module):
  """Vectors of all users and items from their texts and the rating graph.

  Each layer of a `FullConvolution` is attention → LayerNorm → LeakyReLU → + residual (linear where
  widths differ), as in Ebrat et al. 2025; a `LightConvolution` has `LightAttention` alone. The
  final vectors are those of the last layer, or the mean of the features and all layers. With
  `score` = cosine they have length 1, so that scores are dot products either way.

  The module can be used alone: `GatNetwork(ModelConfig(node_features="ids"), U, I)` needs no text.
  """

  config: ModelConfig
  num_users: int
  num_items: int

  @nn.compact
  def __call__(
    self,
    text: jax.Array | None,
    graph: jraph.GraphsTuple,
    *,
    where: jax.Array | None = None,
    trained: jax.Array | None = None,
    layout: Any = None,
    part: Subgraph | None = None,
    deterministic: bool = True,
    return_attention: bool = False,
    return_states: bool = False,
    known: Sequence[jax.Array] | None = None,
  ) -> Any:
    """Computes the final vectors.

    Args:
      text: [U + I, D_text] float32 text vectors, 0 for a node without text; None if the node
        features are `ids`. With `known`: [B, D_text], of users who were not in training.
      graph: from `bipartite_graph`, sorted by receiver; edges after the first n_edge[0] are
        padding.
      where: [E] bool, edges that count; or float ≥ 0, how many times each counts; None = all once.
      trained: [N] bool, nodes whose ids count; None = those that an edge leads to. Without `part`.
      layout: of these edges, for another implementation of attention (ops/attention/selection.py).
      part: a subgraph of L levels drawn from `graph`; only it is computed, without `where`.
      deterministic: False applies the dropouts; needs a "dropout" PRNG key.
      return_attention: also return the attention weights.
      return_states: also return the features and the output of each layer.
      known: states of the items, [I, D_l] for each layer's input, from a run with `return_states`;
        only B new users are computed, the last nodes of a `graph` of I + B nodes that has edges to
        them alone.
    Returns:
      [U + I, D] float32. Followed, in a tuple, with `return_attention` by one [E, H] array per
      layer, rows in the order of the graph's edges, and with `return_states` by L + 1 arrays
      [U + I, D_l]. For a `part`, vectors are those of its M seeds, and attention weights those
      of the edges to nodes whose vectors a later layer needs. With `known`: [B, D].
    """
    config, convolution = self.config, self.config.convolution
    if part is not None:
      graph, where, layout = part.graph, part.where, None
    elif len(graph.n_edge) > 1:
      there = jnp.arange(graph.senders.shape[0]) < graph.n_edge[0]
      where = there if where is None else where * there
    if known is None:
      nodes = self._features(text, graph, where, part, trained)
    else:
      nodes = self._features_of_new(text, graph, where)
    edges = Edges(graph.senders, graph.receivers, graph.edges, where, layout)
    if not isinstance(convolution, NoConvolution):
      edges = self._drop_edges(edges, part, deterministic=deterministic)
    attention, found = [], [nodes]
    for layer in range(convolution.num_layers):
      if part is not None:  # each layer needs one level less than the one before
        nodes, count = nodes[: part.nodes_to[-1 - layer]], part.edges_to[-1 - layer]
        edges = jax.tree.map(lambda of_edge, count=count: of_edge[:count], edges)
      nodes = Dropout(convolution.feature_dropout)(nodes, deterministic=deterministic)
      senders = nodes if known is None else jnp.concatenate([known[layer], nodes])
      out, weights = self._attention(layer)(senders, edges, deterministic=deterministic)
      out = out[-len(nodes) :]
      nodes = (
        out if isinstance(convolution, LightConvolution) else self._activated(layer, out, nodes)
      )
      attention.append(weights)
      found.append(nodes)
    if part is not None:
      nodes, *found = (state[: part.nodes_to[0]] for state in (nodes, *found))
    nodes = _combined(config)(found if convolution.combine == "mean" else found[-1:])
    more = (tuple(attention),) * return_attention + (tuple(found),) * return_states
    return (nodes, *more) if more else nodes

  def _drop_edges(self, edges: Edges, part: Subgraph | None, *, deterministic: bool) -> Edges:
    """The edges with `edge_dropout` in their `where`; self-loops are never dropped."""
    rate = self.config.convolution.edge_dropout
    if deterministic or is_off(rate):
      return edges
    kept = jax.random.bernoulli(self.make_rng("dropout"), 1 - rate, edges.senders.shape)
    ends = (edges.senders, edges.receivers)
    kept |= jnp.equal(*(ends if part is None else (part.nodes[end] for end in ends)))
    return edges._replace(where=kept if edges.where is None else kept * edges.where)

  def _attention(self, layer: int) -> GraphAttention | LightAttention:
    convolution = self.config.convolution
    common = (
      convolution.attention,
      convolution.attention_slope,
      convolution.attention_dropout,
      convolution.edge_chunk,
      self.config.compute_dtype,
    )
    name = f"attention_{layer}"
    if isinstance(convolution, LightConvolution):
      return LightAttention(*common, name=name)
    return GraphAttention(
      convolution.layer_widths[layer], convolution.heads[layer], *common, name=name
    )

  def _activated(self, layer: int, out: jax.Array, nodes: jax.Array) -> jax.Array:
    """LayerNorm, LeakyReLU and the residual of a full layer."""
    convolution: FullConvolution = self.config.convolution
    out = nn.LayerNorm(epsilon=1e-5, name=f"norm_{layer}")(out)
    out = nn.leaky_relu(out, convolution.activation_slope)
    if nodes.shape[1] != out.shape[1]:
      nodes = nn.Dense(
        out.shape[1],
        kernel_init=_residual_init,
        name=f"residual_{layer}",
        dtype=self.config.compute_dtype,
      )(nodes).astype(jnp.float32)
    return out + nodes

  def _features(
    self,
    text: jax.Array | None,
    graph: jraph.GraphsTuple,
    where: jax.Array | None,
    part: Subgraph | None,
    trained: jax.Array | None,
  ) -> jax.Array:
    """[U + I, D] vectors of layer 0; [T, D] of a `part`.

    The id of a node without edges was never trained and counts 0, so that its text alone describes
    it.
    """
    kind, parts = self.config.node_features, []
    if text is None and kind != "ids":
      raise InputError(
        "needs text vectors; without them use ids", field="node_features", value=kind
      )
    if kind == "table":
      table = self.param("table", lambda _: jnp.asarray(text, jnp.float32))
      return table if part is None else table[part.nodes]
    if kind in ("projected", "sum"):
      parts.append(self._projected(text if part is None else text[part.nodes]))
    if kind in ("ids", "sum"):
      ids = self._ids()
      if part is None:
        has_edges = _receives(graph, where, len(ids)) if trained is None else trained
      else:
        ids, has_edges = ids[part.nodes], part.has_edges
      parts.append(jnp.where(has_edges[:, None], ids, 0.0))
    return sum(parts[1:], parts[0])

  def _features_of_new(
    self, text: jax.Array, graph: jraph.GraphsTuple, where: jax.Array | None
  ) -> jax.Array:
    """[B, D] vectors of layer 0 for new users, the last nodes of the graph.

    They have no trained row: a `table` has their text in its place, and `ids` have the mean row of
    the known users.
    """
    kind, parts = self.config.node_features, []
    if kind == "table":
      return text
    if kind in ("projected", "sum"):
      parts.append(self._projected(text))
    if kind in ("ids", "sum"):
      receives = _receives(graph, where, self.num_items + len(text))[-len(text) :]
      mean = self._ids()[: self.num_users].mean(axis=0)
      parts.append(jnp.where(receives[:, None], mean, 0.0))
    return sum(parts[1:], parts[0])

  def _projected(self, text: jax.Array) -> jax.Array:
    """[N, D] features from text vectors, by a linear map or one with a hidden layer."""
    config = self.config
    dense = partial(nn.Dense, kernel_init=_kernel_init, dtype=config.compute_dtype)
    if config.text_hidden:
      text = nn.leaky_relu(dense(config.text_hidden, name="hidden")(text), _TEXT_SLOPE)
    return dense(config.feature_width, name="projection")(text).astype(jnp.float32)

  def _ids(self) -> jax.Array:
    shape = (self.num_users + self.num_items, self.config.feature_width)
    return self.param("ids", nn.initializers.normal(0.1), shape)


def _combined(config: ModelConfig) -> Callable[[Sequence[jax.Array]], jax.Array]:
  """The mean of states [N, D], of length 1 if scores are cosines. Its gradient computes them again
  instead of keeping more tables of nodes."""

  def combined(states: Sequence[jax.Array]) -> jax.Array:
    mean = sum(states[1:], states[0]) / len(states)
    return unit(mean) if config.score == "cosine" else mean

  return jax.checkpoint(combined)


def _receives(graph: jraph.GraphsTuple, where: jax.Array | None, num_nodes: int) -> jax.Array:
  """[N] bool, nodes that an edge leads to."""
  there = jnp.ones(graph.receivers.shape, bool) if where is None else where > 0
  count = jraph.segment_sum(
    there.astype(jnp.int32), graph.receivers, num_nodes, indices_are_sorted=True
  )
  return count > 0


def _keep(key: jax.Array, rate: Any, shape: tuple[int, ...]) -> jax.Array:
  """Dropout multipliers: 0 with probability `rate`, else 1 / (1 - rate). Consumes `key`."""
  return jax.random.bernoulli(key, 1 - rate, shape) / (1 - rate)


def _flat_glorot(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Glorot over [F, H * D], as a flat linear map would be drawn."""
  return _kernel_init(key, (shape[0], shape[1] * shape[2])).reshape(shape)
