"""Training, ranking, embedding and attention lower for GPUs and TPUs on machines without them."""

import dataclasses
import functools
import re

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.paths import LM_GOLDENS as ENCODERS
from helpers.programs import toy_ratings

from gatrec_jax.config.overrides import with_fields
from gatrec_jax.config.presets import get_preset
from gatrec_jax.evaluate import ranking
from gatrec_jax.lm.encoder import encode as encoder
from gatrec_jax.lm.encoder.load import load_encoder
from gatrec_jax.models.base import make_inputs
from gatrec_jax.models.registry import make_recommender
from gatrec_jax.ops.attention import Edges, attention_v2
from gatrec_jax.ops.attention.selection import make_layout
from gatrec_jax.ops.top_k import _best_of_batches
from gatrec_jax.serve import run as serving
from gatrec_jax.train import epochs, new_state
from gatrec_jax.train.hyperparameters import split_dynamic, split_settings

PLATFORMS = ("cuda", "tpu")
TRITON = "__gpu$xla.gpu.triton"
# Notes to the compiler on how arrays lie, which are no calls of anything.
ANNOTATIONS = {"Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape"}
USERS, ITEMS, TEXT = 12, 9, 5


def exported(function, platforms, *arguments, calls=(), **static):
  """The text of the module of a jitted function for other platforms.

  It calls nothing but `calls`: neither the host (callbacks), nor what only a CPU has (LAPACK).
  """
  allowed = [jax.export.DisabledSafetyCheck.custom_call(name) for name in calls]
  found = jax.export.export(function, platforms=platforms, disabled_checks=allowed)(
    *arguments, **static
  )
  assert found.platforms == platforms
  text = found.mlir_module()
  assert "stablehlo" in text and "callback" not in text and "lapack" not in text
  assert set(re.findall(r"custom_call @([\w$.]+)", text)) - ANNOTATIONS == set(calls)
  return text


@functools.cache
def prepared(preset, **fields):
  """A preset on a toy; the shapes of its training state, for nothing has to run here."""
  config = with_fields(get_preset(preset), fields)
  recommender = make_recommender(config.model, num_users=USERS, num_items=ITEMS)
  text = np.random.default_rng(1).normal(size=(USERS + ITEMS, TEXT)).astype(np.float32)
  inputs = make_inputs(recommender, toy_ratings(USERS, ITEMS), text=text)
  state = jax.eval_shape(lambda: new_state(inputs, recommender=recommender, config=config.train))
  return recommender, inputs, config.train, state


@pytest.mark.parametrize(
  ("preset", "fields"),
  [
    ("paper", {"attention_impl": "segment"}),
    ("paper", {"attention_impl": "dense", "compute_dtype": "bfloat16", "batch_size": 8}),
    ("best", {"attention_impl": "segment"}),
  ],
)
def test_training_lowers(preset, fields):
  """The paper's hybrid loss with its dropouts and plateau, and the softmax over items."""
  recommender, inputs, config, state = prepared(preset, **fields)
  dynamic, recommender, config = split_dynamic(recommender, config)
  text = exported(
    epochs._run_epochs,
    PLATFORMS,
    state,
    inputs,
    dynamic,
    recommender=recommender,
    config=config,
    num_epochs=2,
    most_epochs=2,
  )
  assert "stablehlo.while" in text  # epochs and steps are loops of one program
  assert ("bf16" in text) == (fields.get("compute_dtype") == "bfloat16")


def test_training_with_row_kernels_lowers_for_gpus():
  recommender, inputs, config, state = prepared("paper", attention_impl="segment")
  layout = make_layout(
    "pallas", jax.tree.map(np.asarray, inputs.own.graph), heads=4, width=64, platform="gpu"
  )
  own = inputs.own._replace(layout=jax.device_put(layout))
  inputs = dataclasses.replace(inputs, own=own)
  dynamic, recommender, config = split_dynamic(recommender, config)
  text = exported(
    epochs._run_epochs,
    ("cuda",),
    state,
    inputs,
    dynamic,
    recommender=recommender,
    config=config,
    num_epochs=1,
    most_epochs=1,
    calls=[TRITON],
  )
  # All degrees are of one class: forwards, by receiver and by sender in each of three layers.
  assert text.count(f"@{TRITON}") == 9


@pytest.mark.parametrize("preset", ["paper", "best"])
def test_tables_and_top_items_lower(preset):
  """Dot products; and the channels of `best` with what fills in unrated items."""
  recommender, inputs, _, state = prepared(preset, attention_impl="segment")
  dynamic, taken = split_settings(recommender)
  # What fills in unrated items solves linear equations.
  calls = ["cusolver_potrf_ffi"] if preset == "best" else []
  exported(
    serving._make_serving_state,
    PLATFORMS,
    state.params,
    inputs,
    dynamic,
    recommender=taken,
    calls=calls,
  )
  serving_state = jax.eval_shape(
    lambda params: recommender.serving_state(params, inputs), state.params
  )
  users = jax.ShapeDtypeStruct((2, 4), jnp.int32)
  candidates = jax.ShapeDtypeStruct((2, 4, ITEMS), bool)
  text = exported(
    _best_of_batches, PLATFORMS, recommender.score, serving_state, users, candidates, k=3
  )
  assert "top_k" in text and "stablehlo.while" in text  # the batches of a call are a loop


def test_metrics_lower():
  shape = jax.ShapeDtypeStruct
  lists, hits = shape((4, 6), jnp.int32), shape((4, 6), bool)
  relevant = shape((4,), jnp.int32)
  counts, number = shape((ITEMS,), jnp.int32), shape((), jnp.int32)
  exported(ranking._full_metrics, PLATFORMS, hits, lists, relevant, counts, number, ks=(2, 5))
  exported(ranking._catalog_metrics, PLATFORMS, shape((2, ITEMS), jnp.int32))
  exported(ranking._judged_metrics, PLATFORMS, hits, hits, lists, relevant, counts, ks=(2, 5))
  exported(ranking._diversity_of_batch, PLATFORMS, shape((ITEMS, 4), jnp.float32), lists, ks=(2, 5))


@pytest.mark.parametrize(
  ("layout", "dtype"), [("bert", "float32"), ("bert", "bfloat16"), ("mpnet", "float32")]
)
def test_embedding_lowers(layout, dtype):
  model = load_encoder(ENCODERS / layout, dtype=dtype)
  text = exported(
    encoder.embed_tokens,
    PLATFORMS,
    model.params,
    jax.ShapeDtypeStruct((4, 32), jnp.int32),
    jax.ShapeDtypeStruct((4,), jnp.int32),
    config=model.config,
    head=model.head,
    dtype=model.dtype,
  )
  assert ("bf16" in text) == (dtype == "bfloat16")


@functools.partial(jax.jit, static_argnames="chunk")
def attention_and_gradients(parts, edges, chunk=0):
  def total(parts):
    sources, targets, vector, kernel = parts
    return attention_v2(sources, targets, edges, vector=vector, edge_kernel=kernel, chunk=chunk)[
      0
    ].sum()

  return jax.value_and_grad(total)(parts)


@pytest.mark.parametrize(
  ("name", "platform"),
  [
    ("segment", "cuda"),
    ("segment", "tpu"),
    ("dense", "cuda"),
    ("dense", "tpu"),
    ("pallas", "cuda"),
  ],
)
def test_attention_lowers(name, platform):
  graph = jax.tree.map(np.asarray, prepared("paper", attention_impl="segment")[1].own.graph)
  size = dict(heads=2, width=8, platform="gpu" if platform == "cuda" else platform)
  layout = make_layout(name, graph, **size)
  edges = Edges(graph.senders, graph.receivers, graph.edges, None, layout)
  num_nodes, features = USERS + ITEMS, graph.edges.shape[1]
  parts = tuple(
    jax.ShapeDtypeStruct(dims, jnp.float32)
    for dims in ((num_nodes, 2, 8), (num_nodes, 2, 8), (2, 8), (features, 2, 8))
  )
  text = exported(
    attention_and_gradients,
    (platform,),
    parts,
    edges,
    calls=[TRITON] if name == "pallas" else [],
    chunk=16 if name == "segment" else 0,
  )
  # Segments scatter; tiles are read in place and multiplied; rows are kernels alone.
  assert ("stablehlo.scatter" in text) == (name == "segment")
  assert ("stablehlo.while" in text) == (name != "pallas")
