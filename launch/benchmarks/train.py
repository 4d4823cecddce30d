"""Suite `train`: training steps and epochs, beside PyG and the authors' negative sampling.

ML-100K u1 with the paper's network, and ML-1M (random 80 %, seed 0) with LightGCN, a two-layer GAT
and `best`. Text vectors are random with MiniLM's width, since their values do not affect the time.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from gatrec_jax import train as training
from gatrec_jax.config.convolutions import FullConvolution
from gatrec_jax.config.overrides import with_fields
from gatrec_jax.config.presets import get_preset
from gatrec_jax.config.schema import Config
from gatrec_jax.data.feedback import Feedback
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.data.movielens import load_movielens
from gatrec_jax.models.base import make_inputs
from gatrec_jax.models.inputs import Inputs
from gatrec_jax.models.registry import make_recommender
from gatrec_jax.ops.attention import Edges
from gatrec_jax.runs.log import Log
from launch.benchmarks.graphs import attention_counts, matmul_flops, save_for_peer
from launch.benchmarks.hardware import device_rates
from launch.benchmarks.measure import (
  Counts,
  Figure,
  Json,
  measure,
  peer_device,
  peer_process,
  suite_results,
)

TEXT_WIDTH = 384
BATCH = 8192


def run_train(flags: Mapping[str, Any], *, log: Log) -> Json:
  """Times a step of each model; with a peer also an epoch of the paper's preset, which is a step
  and its negatives."""
  rates, repeats = device_rates("float32"), flags["repeats"]
  data_dir = flags["data_dir"] or ""
  figures: list[Figure] = []
  with peer_process(flags, "torch_graph.py") as peer, tempfile.TemporaryDirectory() as folder:
    about = peer.ask("hello") if peer else None

    def hand_over(train: Interactions, threshold: float) -> None:
      if peer is None:
        return
      path = os.path.join(folder, "ratings.npz")
      save_for_peer(
        path, train, liked=train.rating >= threshold, disliked=train.rating <= 2, text=_texts(train)
      )
      peer.ask("load", path=path, device=peer_device(about))

    def theirs(job: str, **arguments: Any) -> Callable[[], Json] | None:
      return (lambda: peer.ask(job, repeats=repeats, **arguments)) if peer else None

    log.info("ML-100K u1: the paper's preset")
    data = load_movielens("ml-100k", data_dir=data_dir, fold="u1")
    train = data.interactions.take(np.flatnonzero(~data.test_rows))
    hand_over(train, 4)
    paper = get_preset("paper")
    step = measured_step(
      "ML-100K u1, paper, one step",
      train,
      paper,
      repeats=repeats,
      threshold=4,
      peer=theirs("gat_step", widths=[64, 64, 64], heads=[4, 4, 1]),
    )
    figures.append(step)
    if peer:
      log.info("the authors' negative sampling")
      drawn = peer.ask("author_negatives", repeats=1)["seconds"]
      figures.append(
        dataclasses.replace(
          step,
          name="ML-100K u1, paper, one epoch (step and negatives)",
          counts=None,
          peer_seconds=[seconds + float(np.median(drawn)) for seconds in step.peer_seconds],
        )
      )
    log.info("ML-1M: LightGCN's step")
    train = _ml_1m_train(data_dir)
    hand_over(train, 1)
    light = with_fields(get_preset("lightgcn"), {"batch_size": BATCH})
    figures.append(
      measured_step(
        "ML-1M, LightGCN, 2 layers, d 64, batch 8192, one step",
        train,
        light,
        repeats=repeats,
        threshold=1,
        peer=theirs("lightgcn_step", layers=2, width=64, batch=BATCH),
      )
    )
    log.info("ML-1M: two-layer GAT")
    gat = with_fields(
      paper, {"node_features": "ids", "layer_widths": "64,64", "heads": "1,1", "batch_size": BATCH}
    )
    figures.append(
      measured_step(
        "ML-1M, GAT, 2 layers, 1 head, d 64, batch 8192, one step",
        train,
        gat,
        repeats=repeats,
        threshold=1,
        peer=theirs(
          "gat_step", widths=[64, 64], heads=[1, 1], features="ids", feature_width=64, batch=BATCH
        ),
      )
    )
    log.info("ML-1M: best")
    figures.append(
      measured_step(
        "ML-1M, best, one step (an epoch)", train, get_preset("best"), repeats=repeats, threshold=4
      )
    )
  return suite_results(
    "training",
    figures,
    rates=rates,
    repeats=repeats,
    peer=about,
    notes=[
      "a step: forward, backward, optimizer, and in ours the sampling of negatives",
      "peer: PyTorch Geometric; its epoch adds the authors' Python negative sampling, timed once",
    ],
  )


def measured_step(
  name: str,
  train: Interactions,
  config: Config,
  *,
  repeats: int,
  threshold: float,
  peer: Callable[[], Json] | None = None,
) -> Figure:
  """Times one training step, as `train_epochs` runs it.

  If an epoch has several steps, an epoch over two batches of the positives is timed and halved.

  Args: threshold: ratings at or above it are positives.
  """
  recommender = make_recommender(config.model, num_users=train.num_users, num_items=train.num_items)
  settings = config.train
  inputs = make_inputs(
    recommender,
    train,
    text=_texts(train) if config.model.reads_text else _no_texts(train),
    feedback=Feedback(threshold, min(2, threshold - 0.5)),
  )
  rows = recommender.num_rows(inputs)
  steps = min(training.steps_per_epoch(settings, rows), 2)
  if steps > 1:
    inputs = dataclasses.replace(
      inputs, user=inputs.user[: 2 * BATCH], item=inputs.item[: 2 * BATCH]
    )
  held = [training.start_training(inputs, recommender=recommender, config=settings)]

  def run() -> jax.Array:
    held[0], losses = training.train_epochs(
      held[0], inputs, recommender=recommender, config=settings, num_epochs=1
    )
    return losses

  figure = measure(name, run, repeats=repeats, peer=peer, counts=_counts(config, inputs))
  figure.seconds = [seconds / steps for seconds in figure.seconds]
  return figure


def _counts(config: Config, inputs: Inputs) -> Counts | None:
  """The least work of a GAT step with `full` layers: attention, linear maps, optimizer state."""
  model = config.model
  convolution = getattr(model, "convolution", None)
  if not isinstance(convolution, FullConvolution):
    return None
  graph, nodes = inputs.own.graph, inputs.text.shape[0]
  width = inputs.text.shape[1] if model.node_features == "table" else model.feature_width
  parameters, moved, flops, maps = nodes * width, 0.0, 0.0, []
  edges = Edges(graph.senders, graph.receivers, graph.edges)
  for units, heads in zip(convolution.layer_widths, convolution.heads, strict=True):
    part = attention_counts(edges, nodes, heads=heads, width=units, features=graph.edges.shape[1])
    moved, flops = moved + part.bytes, flops + part.flops
    products = 2 + (width != units * heads)
    maps += [(nodes, width, units * heads)] * products
    parameters += products * width * units * heads
    width = units * heads
  # The gradient, two moments and the parameter are read, and three of them are written.
  return Counts(moved + 7 * 4 * parameters, flops + matmul_flops(maps))


def _ml_1m_train(data_dir: str) -> Interactions:
  rows = load_movielens("ml-1m", data_dir=data_dir).interactions
  order = np.random.default_rng(0).permutation(len(rows))
  return rows.take(np.sort(order[: int(0.8 * len(rows))]))


def _texts(train: Interactions) -> np.ndarray:
  vectors = np.random.default_rng(0).normal(size=(train.num_users + train.num_items, TEXT_WIDTH))
  return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def _no_texts(train: Interactions) -> np.ndarray:
  return np.zeros((train.num_users + train.num_items, 1), np.float32)
