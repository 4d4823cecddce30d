"""Convolutions against PyTorch Geometric; the network's features, shapes and dropouts."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gatrec_jax.config.fields import replaced
from gatrec_jax.config.schema import ModelConfig
from gatrec_jax.data.graph import bipartite_graph
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.errors import InputError
from gatrec_jax.models.gat.network import GatNetwork, GraphAttention
from gatrec_jax.ops.attention import Edges
from gatrec_jax.ops.numeric import unit

GOLDEN = np.load(pathlib.Path(__file__).parent / "goldens" / "gatv2conv.npz")


def small_interactions():
  return Interactions(
    user=np.array([0, 0, 1, 2, 2], np.int32),
    item=np.array([0, 2, 1, 0, 3], np.int32),
    rating=np.array([5, 2, 4, 3, 5], np.float32),
    timestamp=np.arange(5, dtype=np.int64),
    user_ids=("a", "b", "c", "d"),
    item_ids=("1", "2", "3", "4", "5"),
  )


def edges_of_golden(loops):
  senders, receivers = GOLDEN["senders"], GOLDEN["receivers"]
  features = GOLDEN["features"]
  if loops:
    nodes = np.arange(len(GOLDEN["nodes"]))
    means = np.stack(
      [
        features[receivers == n].mean(axis=0) if (receivers == n).any() else np.zeros(2)
        for n in nodes
      ]
    )
    senders, receivers = np.append(senders, nodes), np.append(receivers, nodes)
    features = np.concatenate([features, means])
  order = np.argsort(receivers, kind="stable")
  return Edges(
    *(jax.device_put(a[order]) for a in (senders, receivers, features.astype(np.float32)))
  )


def params_of_golden(prefix):
  def get(name):
    return GOLDEN[f"{prefix}/{name}"]

  heads, width = get("bias").size // 3, 3
  shape = (-1, heads, width)
  if prefix.startswith("v2"):
    return {
      "source": {
        "kernel": get("lin_l.weight").T.reshape(shape),
        "bias": get("lin_l.bias").reshape(heads, width),
      },
      "target": {
        "kernel": get("lin_r.weight").T.reshape(shape),
        "bias": get("lin_r.bias").reshape(heads, width),
      },
      "edge_kernel": get("lin_edge.weight").T.reshape(shape),
      "vector": get("att")[0],
      "bias": get("bias"),
    }
  edge = get("lin_edge.weight").T.reshape(shape)
  return {
    "source": {"kernel": get("lin.weight").T.reshape(shape)},
    "source_vector": get("att_src")[0],
    "target_vector": get("att_dst")[0],
    "edge_vector": (edge * get("att_edge")[0]).sum(-1),
    "bias": get("bias"),
  }


@pytest.mark.parametrize("prefix", ["v2", "v2_loops", "v1", "v1_loops"])
def test_layer_equals_pytorch_geometric(prefix):
  layer = GraphAttention(width=3, heads=2, version=prefix[:2], chunk=16)
  edges, nodes = edges_of_golden("loops" in prefix), jax.device_put(GOLDEN["nodes"])
  params = jax.device_put(params_of_golden(prefix))
  # Shapes alone, and one compiled program: operation by operation, compiling takes longer.
  shapes = jax.eval_shape(layer.init, jax.random.key(0), nodes, edges)["params"]
  shapes = jax.tree.map(lambda leaf: leaf.shape, shapes)
  assert jax.tree.map(jnp.shape, params) == shapes

  def total(nodes):
    out, _ = layer.apply({"params": params}, nodes, edges)
    return jnp.sum(jnp.sin(out)), out

  gradient, out = jax.jit(jax.grad(total, has_aux=True))(nodes)
  np.testing.assert_allclose(out, GOLDEN[f"{prefix}/out"], atol=2e-5)
  np.testing.assert_allclose(gradient, GOLDEN[f"{prefix}/gradient"], atol=5e-5)


SMALL = dict(layer_widths=(4, 3), heads=(2, 1), feature_width=6, self_loops=True)
TEXT = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
RELEVANCE = np.float32([1.0, 0.05, 0.8, 0.25, 1.0])


def make(**fields):
  return GatNetwork(replaced(ModelConfig(), fields), 4, 5)


@functools.cache
def build(**fields):
  """A network, its parameters, texts and the graph; tests with the same fields share them.

  Full layers have random parameters, since compiling their initialization takes seconds.
  """
  model = make(**fields)
  convolution = model.config.convolution
  graph = bipartite_graph(
    small_interactions(),
    self_loops=convolution.self_loops,
    edge_features=convolution.edge_features,
    relevance=RELEVANCE,
  )
  graph, text = jax.device_put((graph, TEXT))
  if convolution.word == "light":
    return model, jax.jit(model.init)(jax.random.key(1), text, graph), text, graph
  shapes, rng = jax.eval_shape(model.init, jax.random.key(1), text, graph), np.random.default_rng(1)
  params = jax.tree.map(lambda leaf: jnp.float32(0.3 * rng.normal(size=leaf.shape)), shapes)
  return model, params, text, graph


@functools.partial(jax.jit, static_argnames=("model", "deterministic", "return_attention"))
def apply(model, variables, *given, rngs=None, **settings):
  """One program for each shape; operation by operation, compiling takes longer."""
  return model.apply(variables, *given, rngs=rngs, **settings)


@pytest.mark.parametrize("node_features", ["table", "projected", "ids", "sum"])
def test_features_and_shapes(node_features):
  model, variables, text, graph = build(node_features=node_features, **SMALL)
  out, attention = apply(model, variables, text, graph, return_attention=True)
  assert out.shape == (9, 3)
  assert [a.shape for a in attention] == [(19, 2), (19, 1)]  # 10 directed edges and 9 self-loops
  sums = jax.ops.segment_sum(attention[0], graph.receivers, 9)
  np.testing.assert_allclose(sums, 1, atol=1e-6)
  moved, _ = apply(model, variables, text + 1.0, graph, return_attention=True)
  reads_text = not np.allclose(moved, out)
  # A table starts as the text and is trained from there; afterwards the text is not read.
  assert reads_text == (node_features in ("projected", "sum"))


def test_a_table_starts_as_the_text():
  _, _, text, graph = build(convolution="none", feature_width=6)
  variables = make(convolution="none").init(jax.random.key(0), text, graph)
  np.testing.assert_array_equal(variables["params"]["table"], text)


def test_ids_need_no_text_and_other_features_say_that_they_do():
  model, variables, text, graph = build(node_features="ids", **SMALL)
  without = jax.eval_shape(model.init, jax.random.key(0), None, graph)
  assert jax.tree.map(jnp.shape, variables) == jax.tree.map(lambda leaf: leaf.shape, without)
  np.testing.assert_array_equal(
    apply(model, variables, None, graph), apply(model, variables, text, graph)
  )
  with pytest.raises(InputError, match="node_features=sum: needs text vectors"):
    jax.eval_shape(make(node_features="sum").init, jax.random.key(0), None, graph)


def test_without_a_convolution_the_features_are_scored_and_cosine_makes_them_unit_vectors():
  fields = dict(node_features="projected", feature_width=6, convolution="none")
  model, variables, text, graph = build(**fields)
  projection = variables["params"]["projection"]
  features = text @ projection["kernel"] + projection["bias"]
  np.testing.assert_allclose(apply(model, variables, text, graph), features, atol=1e-5)
  got = apply(make(score="cosine", **fields), variables, text, graph)
  np.testing.assert_allclose(got, unit(features), atol=1e-5)


def test_a_hidden_layer_makes_the_map_of_texts_nonlinear():
  fields = dict(node_features="projected", feature_width=6, text_hidden=5, convolution="none")
  model, variables, text, graph = build(**fields)
  hidden, projection = (variables["params"][name] for name in ("hidden", "projection"))
  assert hidden["kernel"].shape == (text.shape[1], 5)
  before = text @ hidden["kernel"] + hidden["bias"]
  assert (before < 0).any() and (before > 0).any()
  after = jnp.where(before > 0, before, 0.2 * before)
  features = after @ projection["kernel"] + projection["bias"]
  np.testing.assert_allclose(apply(model, variables, text, graph), features, atol=1e-5)


def test_dropouts_act_in_training_only_and_follow_the_key():
  plain, variables, text, graph = build(**SMALL)
  want, _ = apply(plain, variables, text, graph, return_attention=True)
  dropouts = ["feature_dropout", "attention_dropout", "edge_dropout"]
  every = make(**SMALL, **dict.fromkeys(dropouts, 0.5))
  got, _ = apply(every, variables, text, graph, return_attention=True)
  np.testing.assert_array_equal(got, want)
  for dropout in dropouts:
    model = make(**SMALL, **{dropout: 0.5})
    first, again, other = (
      apply(
        model, variables, text, graph, deterministic=False, rngs={"dropout": jax.random.key(seed)}
      )
      for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other) and not np.allclose(first, want)


def test_padding_changes_no_real_node():
  model, variables, text, graph = build(node_features="table", **SMALL)
  want, _ = apply(model, variables, text, graph, return_attention=True)
  padded = bipartite_graph(small_interactions(), self_loops=True, pad_to=(12, 40))
  params = variables["params"]
  table, text = (jnp.pad(one, ((0, 3), (0, 0))) for one in (params["table"], text))
  more = {"params": params | {"table": table}}
  got = apply(model, more, text, jax.device_put(padded))
  np.testing.assert_allclose(got[:9], want, atol=1e-6)


LIGHT = dict(
  convolution="light",
  combine="mean",
  layers=2,
  feature_width=6,
  node_features="ids",
  edge_features=("relevance",),
)


@pytest.mark.parametrize("attention", ["v1", "none"])
def test_light_layers_start_as_weighted_means_and_the_result_is_the_mean_of_layers(attention):
  model, variables, text, graph = build(attention=attention, **LIGHT)
  assert ("attention_0" in variables["params"]) == (attention == "v1")
  weights = np.zeros((9, 9))
  for user, item, relevance in zip([0, 0, 1, 2, 2], [0, 2, 1, 0, 3], [1, 0.05, 0.8, 0.25, 1]):
    weights[user, 4 + item] = weights[4 + item, user] = relevance
  # The ids of user 3 and item 4, without edges, count 0.
  ids = np.where(weights.any(axis=1, keepdims=True), variables["params"]["ids"], 0)
  assert not ids[3].any() and not ids[8].any() and ids[0].any()
  weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)
  want = (ids + weights @ ids + weights @ weights @ ids) / 3
  np.testing.assert_allclose(apply(model, variables, text, graph), want, atol=1e-6)


def test_every_vector_of_light_attention_has_a_gradient():
  model, variables, text, graph = build(attention="v1", **LIGHT)

  def total(params):
    return jnp.sum(jnp.sin(model.apply({"params": params}, text, graph)))

  gradient = jax.jit(jax.grad(total))(variables["params"])
  for name in ("source_vector", "target_vector", "edge_vector"):
    leaf = np.asarray(gradient["attention_0"][name])
    # Where all neighbors have the same weight, the target's term cancels in the softmax, but the
    # LeakyReLU has its corner at 0, where the two sides differ.
    assert np.isfinite(leaf).all()
    assert leaf.any() or name == "target_vector"


def test_full_layers_without_attention_take_the_mean_of_their_neighbors():
  model, variables, text, graph = build(attention="none", layer_widths=(3,), heads=(2,))
  _, (weights,) = apply(model, variables, text, graph, return_attention=True)
  degree = np.bincount(graph.receivers, minlength=9)
  np.testing.assert_allclose(weights, 1 / degree[graph.receivers][:, None] * [[1, 1]], atol=1e-6)
  assert set(variables["params"]["attention_0"]) == {"source", "bias"}


def test_unit_is_safe_at_zero():
  value, gradient = jax.jit(jax.value_and_grad(lambda v: unit(v).sum()))(jnp.zeros(3))
  assert value == 0 and not np.asarray(gradient).any()
  np.testing.assert_allclose(unit(jnp.array([3.0, 4.0])), [0.6, 0.8], atol=1e-6)


def test_an_unknown_kind_of_attention_is_not_taken_for_the_mean():
  _, _, text, graph = build(**SMALL)
  with pytest.raises(ValueError, match="version=v3: must be v1, v2 or none"):
    jax.eval_shape(make(**SMALL, attention="v3").init, jax.random.key(1), text, graph)
