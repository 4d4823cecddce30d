"""Suite `attention`: graph attention by each implementation on random graphs, and by PyG."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.data.graph import bipartite_graph
from gatrec_jax.ops.attention import Edges, attention_v2
from gatrec_jax.ops.attention.pallas import supports
from gatrec_jax.ops.attention.selection import choose, estimated_seconds, make_layout
from gatrec_jax.runs.log import Log
from launch.benchmarks.graphs import attention_counts, random_ratings, save_for_peer
from launch.benchmarks.hardware import device_rates
from launch.benchmarks.measure import (
  Figure,
  Json,
  analysis,
  measure,
  peer_device,
  peer_process,
  suite_results,
)

# (ratings, heads, D); the first graph has half of all pairs, the last is for accelerators only.
SIZES = ((2_500, 4, 64), (80_000, 4, 64), (80_000, 1, 64), (800_000, 1, 64), (800_000, 4, 64))
DEVICE_SIZES = (*SIZES, (5_000_000, 4, 64))


def run_attention(flags: Mapping[str, Any], *, log: Log) -> Json:
  """Attention version 2 with one edge feature, both directions, forward and backward."""
  rates = device_rates("float32")
  figures: list[Figure] = []
  notes = []
  with peer_process(flags, "torch_graph.py") as peer, tempfile.TemporaryDirectory() as folder:
    about = peer.ask("hello") if peer else None
    for ratings, heads, width in SIZES if jax.default_backend() == "cpu" else DEVICE_SIZES:
      train = random_ratings(ratings, seed=0)
      graph = bipartite_graph(train)
      size = dict(heads=heads, width=width, platform=jax.default_backend())
      chosen = choose("auto", graph, **size)
      segment, dense = estimated_seconds(graph, **size)
      case = f"{2 * ratings:,} edges, {heads} × {width}"
      notes.append(
        f"{case}: auto selects {chosen} (estimated: segment {segment:.3g} s, dense {dense:.3g} s)"
      )
      for name in _implementations(graph, size):
        log.info(f"attention: {case}, {name}")
        theirs = None
        if peer and name == chosen:
          path = os.path.join(folder, f"{ratings}.npz")
          some = train.rating >= 4
          text = np.zeros((train.num_users + train.num_items, 1), np.float32)
          save_for_peer(path, train, liked=some, disliked=~some, text=text)
          peer.ask("load", path=path, device=peer_device(about))

          def theirs(heads: int = heads, width: int = width) -> Json:
            return peer.ask(
              "attention", num_heads=heads, width=width, repeats=flags["repeats"], path=None
            )

        figures.append(
          _measured(
            f"{case}, {name}", name, graph, heads, width, repeats=flags["repeats"], peer=theirs
          )
        )
  return suite_results(
    "graph attention, forward and backward",
    figures,
    rates=rates,
    repeats=flags["repeats"],
    notes=[
      *notes,
      "dense is omitted where it is estimated to take more than four times as long as segment",
      "peer: GATv2Conv on the same graph, including its projections; ours excludes them",
    ],
    peer=about,
  )


def _implementations(graph: Any, size: Json) -> list[str]:
  """The implementations to measure: dense tiles only if there are not far too many of them."""
  segment, dense = estimated_seconds(graph, **size)
  names = ["segment"] + ["dense"] * (dense < 4 * segment)
  return names + ["pallas"] * (not supports(size["platform"], size["width"]))


def _measured(
  title: str,
  name: str,
  graph: Any,
  heads: int,
  width: int,
  *,
  repeats: int,
  peer: Callable[[], Json] | None,
) -> Figure:
  num_nodes, features = int(graph.n_node[0]), graph.edges.shape[1]
  layout = make_layout(name, graph, heads=heads, width=width, platform=jax.default_backend())
  host = Edges(graph.senders, graph.receivers, graph.edges, None, layout)
  edges = jax.tree.map(jnp.asarray, host)
  keys = jax.random.split(jax.random.key(0), 5)
  shape = (num_nodes, heads, width)
  parts = (
    jax.random.normal(keys[0], shape),
    jax.random.normal(keys[1], shape),
    jax.random.normal(keys[2], shape[1:]),
    jax.random.normal(keys[3], (features, *shape[1:])),
  )
  toward = jax.random.normal(keys[4], shape)

  def loss(parts: tuple[jax.Array, ...], edges: Edges, toward: jax.Array) -> jax.Array:
    sources, targets, vector, kernel = parts
    out, _ = attention_v2(sources, targets, edges, vector=vector, edge_kernel=kernel)
    return jnp.sum(out * toward)

  begun = time.perf_counter()
  compiled = jax.jit(jax.value_and_grad(loss)).lower(parts, edges, toward).compile()
  compiling = time.perf_counter() - begun
  figure = measure(
    title,
    lambda: compiled(parts, edges, toward),
    repeats=repeats,
    peer=peer,
    counts=attention_counts(host, num_nodes, heads=heads, width=width, features=features),
    compiled=analysis(compiled),
  )
  figure.compile_seconds += compiling
  return figure
