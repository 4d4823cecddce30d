"""The graph attention recommender: node features, attention layers, scores."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import jraph

from gatrec_jax.config.schema import ModelConfig
from gatrec_jax.ops.attention import Edges, attention_light, attention_v1, attention_v2
from gatrec_jax.ops.neighbors import Subgraph
from gatrec_jax.ops.numeric import drop, is_off, unit

_kernel_init = nn.initializers.glorot_uniform()
# Of a plain linear map in PyTorch, which the authors' residuals are: uniform in ± 1/√fan_in.
_residual_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Dropout(nn.Module):
  """Flax's layer of that name, with the same draws, for a rate that may be traced."""

  rate: Any

  @nn.compact
  def __call__(self, values: jax.Array, *, deterministic: bool) -> jax.Array:
    if deterministic or is_off(self.rate):
      return values
    return drop(self.make_rng("dropout"), values, self.rate)


class GraphAttention(nn.Module):
  """One multi-head attention convolution, heads concatenated: [N, D_in] -> [N, heads * width].

  Parameters are laid out as in PyTorch Geometric's GATv2Conv (v2) and GATConv (v1). Version `none`
  is the plain mean over the neighbors, without attention or edge features.
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
    else:
      alike = jnp.zeros(shape)
      out, weights = attention_v1(
        sources,
        edges,
        source_vector=alike,
        target_vector=alike,
        edge_vector=jnp.zeros((num_features, self.heads)),
        **common,
      )
    out = out.reshape(out.shape[0], -1).astype(jnp.float32)
    return out + self.param("bias", nn.initializers.zeros, (out.shape[1],)), weights

  def _of_edges(self, name: str, init: Any, shape: tuple[int, ...]) -> jax.Array:
    """A parameter with a row for each edge feature; without features none (Orbax keeps no empty
    arrays)."""
    return self.param(name, init, shape) if shape[0] else jnp.zeros(shape)


class LightAttention(nn.Module):
  """A convolution with attention and without weight matrices: [N, D] -> [N, D].

  Begins as the mean of the neighbors, weighted by their edges' grades where these are a feature;
  `attention` = none keeps it there.
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

  Each `full` layer is convolution → LayerNorm → LeakyReLU → + residual (linear where widths
  differ), as in Ebrat et al. 2025; a `light` one is `LightAttention` alone. The result is the last
  layer's, or the mean over the features and all layers. `score` = cosine makes the final vectors
  unit vectors, so that a dot product scores in either case.
  """

  config: ModelConfig
  num_users: int
  num_items: int

  @nn.compact
  def __call__(
    self,
    text: jax.Array,
    graph: jraph.GraphsTuple,
    *,
    new_text: jax.Array | None = None,
    where: jax.Array | None = None,
    layout: Any = None,
    part: Subgraph | None = None,
    deterministic: bool = True,
    return_attention: bool = False,
    return_states: bool = False,
  ) -> Any:
    """The final vectors.

    Args:
      text: [U + I, D_text] float32 text vectors, 0 for a node without text.
      graph: of `bipartite_graph`, with U + I + B nodes, receiver-sorted; what n_edge has behind its
        first entry are padding edges.
      new_text: [B, D_text] text vectors of users that were not there in training (the graph's last
        B nodes), or None where B = 0.
      where: [E] bool, edges that are there; or float ≥ 0, how often each is; None = all once.
      layout: of these edges for another implementation of attention (`models.attention.layout`).
      part: of L levels, drawn from `graph`: it alone is looked at; no `new_text` and `where` then.
      deterministic: False applies the dropouts; needs a "dropout" PRNG key.
      return_attention: also return the attention weights.
      return_states: also return the features and what each layer gave.
    Returns:
      [U + I + B, D] float32; behind it, as a tuple, with `return_attention` one [E, H] array per
      layer, rows in the order of the graph's edges, and with `return_states` L + 1 arrays
      [U + I + B, D_l]. Of a `part` all of these are of its M seeds, or of the edges to those whose
      vectors a layer still needs.
    """
    config = self.config
    if part is not None:
      graph, where, layout = part.graph, part.where, None
    elif len(graph.n_edge) > 1:
      there = jnp.arange(graph.senders.shape[0]) < graph.n_edge[0]
      where = there if where is None else where * there
    nodes = self._features(text, new_text, graph, where, part)
    edges = Edges(graph.senders, graph.receivers, graph.edges, where, layout)
    if not (deterministic or is_off(config.edge_dropout)):
      kept = jax.random.bernoulli(
        self.make_rng("dropout"), 1 - config.edge_dropout, edges.senders.shape
      )
      ends = (edges.senders, edges.receivers)
      kept |= jnp.equal(*(ends if part is None else (part.nodes[end] for end in ends)))
      edges = edges._replace(where=kept if where is None else kept * where)
    attention, found = [], [nodes]
    for layer, (width, heads) in enumerate(zip(config.layer_widths, config.heads, strict=True)):
      if part is not None:  # with each layer behind us one level less is heard
        nodes, count = nodes[: part.nodes_to[-1 - layer]], part.edges_to[-1 - layer]
        edges = jax.tree.map(lambda of_edge, count=count: of_edge[:count], edges)
      nodes = Dropout(config.feature_dropout)(nodes, deterministic=deterministic)
      common = (
        config.attention,
        config.attention_slope,
        config.attention_dropout,
        config.edge_chunk,
        config.compute_dtype,
      )
      name = f"attention_{layer}"
      if config.convolution == "light":
        convolution = LightAttention(*common, name=name)
      else:
        convolution = GraphAttention(width, heads, *common, name=name)
      out, weights = convolution(nodes, edges, deterministic=deterministic)
      attention.append(weights)
      if config.convolution == "light":
        nodes = out
        found.append(nodes)
        continue
      out = nn.LayerNorm(epsilon=1e-5, name=f"norm_{layer}")(out)
      out = nn.leaky_relu(out, config.activation_slope)
      if nodes.shape[1] != out.shape[1]:
        nodes = nn.Dense(
          out.shape[1],
          kernel_init=_residual_init,
          name=f"residual_{layer}",
          dtype=config.compute_dtype,
        )(nodes).astype(jnp.float32)
      nodes = out + nodes
      found.append(nodes)
    if part is not None:
      nodes, *found = (state[: part.nodes_to[0]] for state in (nodes, *found))
    if config.combine == "mean":
      nodes = sum(found) / len(found)
    if config.score == "cosine":
      nodes = unit(nodes)
    more = (tuple(attention),) * return_attention + (tuple(found),) * return_states
    return (nodes, *more) if more else nodes

  def _features(
    self,
    text: jax.Array,
    new_text: jax.Array | None,
    graph: jraph.GraphsTuple,
    where: jax.Array | None,
    part: Subgraph | None,
  ) -> jax.Array:
    """[U + I + B, D] layer-0 vectors; [T, D] of a `part`. A new user has no trained row: its text
    stands for it (`table`), and the mean row of the known users where there is no text part
    (`ids`, `sum`). The id of a node without edges says nothing and counts 0: its text speaks
    alone."""
    config, parts = self.config, []
    kind, width = config.node_features, config.feature_width
    if kind == "table":
      table = self.param("table", lambda _: jnp.asarray(text, jnp.float32))
      if part is not None:
        return table[part.nodes]
      return table if new_text is None else jnp.concatenate([table, new_text])
    if kind in ("projected", "sum"):
      every_text = text if new_text is None else jnp.concatenate([text, new_text])
      if part is not None:
        every_text = text[part.nodes]
      parts.append(
        nn.Dense(width, kernel_init=_kernel_init, name="projection", dtype=config.compute_dtype)(
          every_text
        ).astype(jnp.float32)
      )
    if kind in ("ids", "sum"):
      ids = self.param("ids", nn.initializers.normal(0.1), (self.num_users + self.num_items, width))
      if new_text is not None:
        mean = jnp.broadcast_to(ids[: self.num_users].mean(axis=0), (new_text.shape[0], width))
        ids = jnp.concatenate([ids, mean])
      if part is not None:
        ids, has_edges = ids[part.nodes], part.has_edges
      else:
        there = jnp.ones(graph.receivers.shape, bool) if where is None else where > 0
        has_edges = (
          jraph.segment_sum(
            there.astype(jnp.int32), graph.receivers, len(ids), indices_are_sorted=True
          )
          > 0
        )
      parts.append(jnp.where(has_edges[:, None], ids, 0.0))
    return sum(parts[1:], parts[0])


def _keep(key: jax.Array, rate: Any, shape: tuple[int, ...]) -> jax.Array:
  """Dropout multipliers: 0 with probability `rate`, else 1 / (1 - rate). Consumes `key`."""
  return jax.random.bernoulli(key, 1 - rate, shape) / (1 - rate)


def _flat_glorot(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Glorot over [F, H * D], as a flat linear map would be drawn."""
  return _kernel_init(key, (shape[0], shape[1] * shape[2])).reshape(shape)
