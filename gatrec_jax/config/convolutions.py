"""Graph convolutions of the GAT: one settings class each, chosen by `convolution`."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from gatrec_jax.config.fields import Option, setting


@dataclasses.dataclass(frozen=True)
class NoConvolution(Option):
  """No layers: the node features themselves are scored. The control of every ablation."""

  selector: ClassVar[str] = "convolution"
  word: ClassVar[str] = "none"
  edge_features: ClassVar[tuple[str, ...]] = ()
  self_loops: ClassVar[bool] = False
  combine: ClassVar[str] = "last"
  fanouts: ClassVar[tuple[int, ...]] = ()
  num_layers: ClassVar[int] = 0


@dataclasses.dataclass(frozen=True)
class _GraphConvolution(Option):
  """Settings that the full and the light convolution share."""

  selector: ClassVar[str] = "convolution"
  attention: str = setting("v1", choices=("v1", "none"))
  attention_slope: float = setting(0.2, needs="attention=v1|v2", dynamic=False)
  edge_features: tuple[str, ...] = setting(("rating",))
  self_loops: bool = setting(False)
  combine: str = setting("last", choices=("last", "mean"))
  feature_dropout: float = setting(0.0, low=0, high=0.99)
  attention_dropout: float = setting(0.0, low=0, high=0.99)
  edge_dropout: float = setting(0.0, low=0, high=0.99)
  fanouts: tuple[int, ...] = setting(())
  attention_impl: str = setting("auto", choices=("auto", "segment", "dense", "pallas"))
  edge_chunk: int = setting(0, low=0)


@dataclasses.dataclass(frozen=True)
class FullConvolution(_GraphConvolution):
  """Attention with weight matrices, LayerNorm, LeakyReLU and a residual (Ebrat et al. 2025).

  Attributes:
    attention: `v2` (Brody et al. 2022), `v1` (Veličković et al. 2018), or `none` (the mean of the
      neighbors).
    attention_slope: LeakyReLU slope inside the attention.
    edge_features: columns of the edge features: `rating`, `time`, `relevance` (its logarithm;
      gatrec_jax/data/feedback.py).
    self_loops: add an edge from each node to itself, with the mean of its incoming features.
    combine: final vectors: those of the `last` layer, or the `mean` of the features and all layers.
    feature_dropout, attention_dropout, edge_dropout: shares dropped in training.
    fanouts: edges drawn for each node of a batch, and for each node that these lead to, nearest
      layer first; empty = the whole graph in every step.
    attention_impl: `segment`, `dense`, `pallas` (row kernels for GPUs), or `auto`: the first two,
      whichever is faster by the cost model of this device and graph. The result is the same.
    edge_chunk: edges that `segment` handles at once; 0 = chosen for the device.
    layer_widths: units per head, one entry a layer.
    heads: heads per layer, concatenated.
    activation_slope: LeakyReLU slope after LayerNorm.
  """

  word: ClassVar[str] = "full"
  attention: str = setting("v2", choices=("v1", "v2", "none"))
  edge_features: tuple[str, ...] = setting(("rating",), needs="attention=v1|v2")
  layer_widths: tuple[int, ...] = setting((64, 64, 64))
  heads: tuple[int, ...] = setting((4, 4, 1))
  activation_slope: float = setting(0.01, dynamic=False)

  @property
  def num_layers(self) -> int:
    return len(self.layer_widths)


@dataclasses.dataclass(frozen=True)
class LightConvolution(_GraphConvolution):
  """Attention alone, without weight matrices: one head, as wide as the features.

  Attributes:
    attention: `v1`, or `none` (the mean of the neighbors, weighted by the edges' relevance).
    layers: how many.
    drawn_edges: edges of each node that a step of training draws to stand for all; 0 = all edges,
      or a draw where there are more than 2^23 in both directions. Ranking reads the whole graph.
    The others: as in `FullConvolution`.
  """

  word: ClassVar[str] = "light"
  edge_features: tuple[str, ...] = setting(("relevance",))
  combine: str = setting("mean", choices=("last", "mean"))
  layers: int = setting(2, low=1)
  drawn_edges: int = setting(0, low=0, high=2**14)

  @property
  def num_layers(self) -> int:
    return self.layers


Convolution = FullConvolution | LightConvolution | NoConvolution
