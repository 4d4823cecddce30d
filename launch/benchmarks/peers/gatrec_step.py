"""Times this library's training step in a fresh process, on a random graph.

Each line of JSON on standard input is a job, answered by one line of JSON:

  {"job": "step", "ratings", "repeats"}      -> seconds, compile_seconds, peak_mb, idle_mb, nodes
  {"job": "memory", "ratings", "devices"}    -> bytes per device: of the program, of shards
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from typing import Any


def _prepared(ratings: int) -> tuple[Any, Any, Any]:
  import numpy as np

  from gatrec_jax.config.overrides import with_fields
  from gatrec_jax.config.presets import get_preset
  from gatrec_jax.models.base import make_inputs
  from gatrec_jax.models.registry import make_recommender
  from launch.benchmarks.graphs import random_ratings
  from launch.benchmarks.scale import BATCH, LAYERS, WIDTH

  train = random_ratings(ratings, seed=0)
  config = with_fields(
    get_preset("paper"),
    {
      "node_features": "ids",
      "feature_width": WIDTH,
      "layer_widths": (WIDTH,) * LAYERS,
      "heads": (1,) * LAYERS,
      "batch_size": BATCH,
      "attention_impl": "segment",
    },
  )
  recommender = make_recommender(config.model, num_users=train.num_users, num_items=train.num_items)
  text = np.zeros((train.num_users + train.num_items, 1), np.float32)
  inputs = make_inputs(recommender, train, text=text)
  return recommender, inputs, config.train


def step(ratings: int, repeats: int) -> dict[str, Any]:
  """Times one step: an epoch of at most two batches, divided by their number."""
  import jax
  import jax.numpy as jnp

  from gatrec_jax import runs
  from gatrec_jax import train as training
  from launch.benchmarks.measure import measure
  from launch.benchmarks.scale import BATCH

  jax.block_until_ready(jnp.zeros(()))
  idle = runs.peak_memory_mb()
  recommender, inputs, config = _prepared(ratings)
  inputs = dataclasses.replace(inputs, user=inputs.user[: 2 * BATCH], item=inputs.item[: 2 * BATCH])
  steps = training.steps_per_epoch(config, len(inputs.user))
  held = [training.start_training(inputs, recommender=recommender, config=config)]

  def run() -> Any:
    held[0], losses = training.train_epochs(
      held[0], inputs, recommender=recommender, config=config, num_epochs=1
    )
    return losses

  figure = measure("step", run, repeats=repeats)
  return {
    "seconds": [seconds / steps for seconds in figure.seconds],
    "compile_seconds": figure.compile_seconds,
    "peak_mb": figure.peak_mb,
    "idle_mb": idle,
    "nodes": int(inputs.text.shape[0]),
  }


def memory(ratings: int, devices: int) -> dict[str, Any]:
  """Bytes of one step's compiled program per device, and of the arrays that the mesh shards."""
  import jax

  from gatrec_jax.sharding.mesh import make_mesh
  from gatrec_jax.train import epochs
  from gatrec_jax.train.hyperparameters import split_dynamic
  from gatrec_jax.train.sharded import OnMesh, place_inputs

  recommender, inputs, config = _prepared(ratings)
  mesh = make_mesh(graph=devices)
  placed = OnMesh.of(recommender)
  on_devices = place_inputs(inputs, mesh, recommender=recommender)
  with jax.set_mesh(mesh):
    state = epochs.start_training(on_devices, recommender=placed, config=config)
    dynamic, static, settings = split_dynamic(placed, config)
    program = epochs._run_epochs.lower(
      state, on_devices, dynamic, recommender=static, config=settings, num_epochs=1, most_epochs=1
    ).compile()
  found = program.memory_analysis()
  graph = on_devices.own.graph
  sharded = [graph.senders, graph.receivers, graph.edges, *jax.tree.leaves(state)]

  def of_device(array: jax.Array) -> int:
    return math.prod(array.sharding.shard_shape(array.shape)) * array.itemsize

  return {
    "arguments": found.argument_size_in_bytes,
    "temporaries": found.temp_size_in_bytes,
    "together": found.argument_size_in_bytes + found.temp_size_in_bytes,
    "sharded": sum(map(of_device, sharded)),
  }


def main() -> None:
  """Answers jobs until the input ends."""
  jobs = {"step": step, "memory": memory}
  for line in sys.stdin:
    arguments = json.loads(line)
    try:
      answer = jobs[arguments.pop("job")](**arguments)
    except Exception as error:  # reported to the caller, which decides
      answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
  main()
