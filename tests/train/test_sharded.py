"""Training on a mesh: the results of one device, sharded arrays, checkpoints for any mesh."""

import contextlib
import dataclasses
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.programs import environment_of_devices

from gatrec_jax.config.fields import replaced
from gatrec_jax.config.schema import ModelConfig, TrainConfig
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.evaluate.ranking import full_ranking
from gatrec_jax.models.base import make_inputs
from gatrec_jax.models.gat.recommender import GatRecommender
from gatrec_jax.models.inputs import Batch
from gatrec_jax.ops import propagation
from gatrec_jax.ops.negatives import draw_negatives
from gatrec_jax.ops.top_k import top_items_by
from gatrec_jax.runs.checkpoints import newest
from gatrec_jax.runs.log import SILENT
from gatrec_jax.serve.run import make_serving_state
from gatrec_jax.sharding import placement
from gatrec_jax.sharding.mesh import parse_mesh
from gatrec_jax.train.loop import learn
from gatrec_jax.train.sharded import OnMesh, Place, place_inputs
from gatrec_jax.train.state import TrainState

# No number of users, nodes or edges is a multiple of the devices: everything has to be padded.
USERS, ITEMS, TEXT = 37, 29, 5
NODES, CUT = USERS + ITEMS, 72
FEW = 8  # rows that are looked up
MESHES = ("1x1", "1x2x1", "2x2x2", "1x8x1")
MOVED = (("1x1", 2), ("2x2x2", 4), ("1x1", 6))  # the meshes of a resumed run, until which epoch
# The paper's kind: a table of texts, hybrid loss, the plateau; with dropout of edges.
HYBRID = (
  replaced(
    ModelConfig(), dict(layer_widths=(3,), heads=(2,), attention_dropout=0.1, edge_dropout=0.2)
  ),
  TrainConfig(epochs=6, evaluate_every=2, patience=9, batch_size=64, learning_rate=0.02),
)
# The best preset's kind, where a batch is all users.
SOFTMAX = (
  replaced(
    ModelConfig(),
    dict(
      node_features="sum",
      feature_width=4,
      convolution="light",
      layers=1,
      attention="v1",
      combine="mean",
      edge_features=("relevance",),
      score="cosine",
      loss="softmax",
      relevance="graded",
      user_power=0.25,
    ),
  ),
  TrainConfig(),
)


def ratings():
  """Training and test rows."""
  rng = np.random.default_rng(0)
  table = rng.integers(1, 6, (USERS, ITEMS)) * (rng.random((USERS, ITEMS)) < 0.5)
  user, item = np.nonzero(table)
  rows = Interactions(
    user.astype(np.int32),
    item.astype(np.int32),
    table[user, item].astype(np.float32),
    np.zeros(len(user), np.int64),
    tuple(map(str, range(USERS))),
    tuple(map(str, range(ITEMS))),
  )
  test = rng.random(len(user)) < 0.25
  return rows.take(~test), rows.take(test)


def prepared(settings):
  """Recommender, inputs and configuration."""
  recommender = GatRecommender(settings[0], USERS, ITEMS)
  text = np.random.default_rng(1).normal(size=(NODES, TEXT)).astype(np.float32)
  inputs = make_inputs(recommender, ratings()[0], text=text)
  return recommender, inputs, settings[1]


def measures(params, recommender, inputs, mesh):
  """Metrics of full ranking: {name: mean}."""
  train, test = ratings()
  users = np.arange(USERS)
  items, _ = top_items_by(
    recommender.score,
    make_serving_state(params, inputs, recommender=recommender),
    users,
    num_items=ITEMS,
    seen=train,
    k=5,
    mesh=mesh,
  )
  evaluation = full_ranking(items, users, train=train, test=test, ks=(5,), num_bootstrap=0)
  return {name: value.mean for name, value in evaluation.summary.items()}


def trained(folder, mesh, *, until=None):
  """Trains on a mesh, or resumes what is in the folder; returns the metrics of the model."""
  recommender, inputs, config = prepared(HYBRID)
  mesh = parse_mesh(mesh)
  params, _ = learn(
    inputs,
    recommender=recommender,
    config=config,
    workdir=folder,
    log=SILENT,
    mesh=mesh,
    until=until,
    validate=lambda params: measures(params, recommender, inputs, mesh)["ndcg@5"],
  )
  return measures(params, recommender, inputs, mesh)


def read_again(folder, mesh):
  """The last checkpoint, put on a mesh. Returns: all its numbers as read back from there, and
  [whole shape, shape on each device] of what is sharded."""
  recommender, inputs, config = prepared(HYBRID)
  on = parse_mesh(mesh)
  place = Place(on, recommender=recommender, inputs=inputs, config=config)
  like = place.like()
  _, trees, _ = newest(
    folder / "checkpoints",
    {"params": like.params, "training": {"optimizer": like.opt_state, "step": like.step}},
    log=SILENT,
  )
  training = trees["training"]
  state = place.put(TrainState(trees["params"], training["optimizer"], training["step"]))
  shapes = {"restored": shapes_of_shards(state)}
  if on is not None:
    shapes["first"] = shapes_of_shards(place.init())
    placed = place_inputs(inputs, on, recommender=recommender)
    shapes["inputs"] = shapes_of_shards((placed.text, placed.own.graph))
    rows = dataclasses.replace(placed, text=None, own=None)
    shapes["rows"] = shapes_of_shards(rows)
    shapes["whole"] = {
      jax.tree_util.keystr(path): [leaf.shape, leaf.dtype.itemsize]
      for path, leaf in jax.tree_util.tree_leaves_with_path(rows)
      if leaf.is_fully_replicated
    }
  return [np.asarray(leaf) for leaf in jax.tree.leaves(place.saved(state))], shapes


def softmax_step(mesh, drawn_edges=0):
  """Loss and gradient, by path and in all numbers, for drawn parameters.

  Not a curve: at the start the gradient of a light layer's `target_vector` is 0, of which Adam
  makes a step by the sign of what rounding leaves.
  """
  settings = replaced(SOFTMAX[0], {"drawn_edges": drawn_edges})
  recommender, inputs, config = prepared((settings, SOFTMAX[1]))
  rng, on = np.random.default_rng(2), parse_mesh(mesh)
  like = jax.eval_shape(recommender.init, inputs, jax.random.key(0))
  params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), like)
  if on is not None:
    recommender, inputs = (
      OnMesh.of(recommender),
      place_inputs(inputs, on, recommender=recommender),
    )
    params = placement.put_tables(params, on)

  def loss(params, inputs):
    batch = Batch(jnp.arange(USERS), jnp.arange(USERS) != 3, jnp.int32(0))
    return recommender.loss(params, batch, jax.random.key(0), inputs=inputs)

  with contextlib.nullcontext() if on is None else jax.set_mesh(on):
    value, gradient = jax.jit(jax.value_and_grad(loss))(params, inputs)
  gradient = jax.tree.map(np.asarray, gradient)
  padding = [leaf[shape.shape[0] :] for leaf, shape in zip(*map(jax.tree.leaves, (gradient, like)))]
  assert not any(rows.any() for rows in padding)
  return {"loss": np.asarray(value)} | {
    jax.tree_util.keystr(path): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(placement.unpad(gradient, like))
  }


def shapes_of_shards(tree):
  """{path: [whole shape, shape on each device]} of the sharded arrays."""
  return {
    jax.tree_util.keystr(path): [leaf.shape, leaf.addressable_shards[0].data.shape]
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    if hasattr(leaf, "sharding") and not leaf.is_fully_replicated
  }


def looked_up(mesh):
  """The collective operations of a program that looks up positives and draws negatives of a few
  rows: the numbers of elements of their results."""
  recommender, inputs, _ = prepared(HYBRID)
  on = parse_mesh(mesh)
  placed = place_inputs(inputs, on, recommender=recommender)

  def draw(inputs, rows):
    user = inputs.user[rows]
    return user, inputs.item[rows], draw_negatives(jax.random.key(0), inputs.sampler, user, num=1)

  with jax.set_mesh(on):
    text = jax.jit(draw).lower(placed, jnp.arange(FEW)).compile().as_text()
  results = re.findall(r"= (.+?) all-(?:reduce|gather)(?:-start)?\(", text)
  shapes = [shape for result in results for shape in re.findall(r"\[([\d,]*)\]", result)]
  return [math.prod(int(size) for size in shape.split(",") if size) for shape in shapes]


def on_eight_devices(folder):
  """The part that runs in its own process, where the CPU is eight devices."""
  assert len(jax.devices()) == 8
  placement.TABLE_ROWS, placement.ROW_MULTIPLE = 32, 8
  metrics, shapes = {}, {}
  for mesh in ("1x1", "2x2x2"):
    metrics[mesh] = trained(folder / mesh, mesh)
  for mesh, until in MOVED:
    metrics["moved"] = trained(folder / "moved", mesh, until=until)
  for mesh in MESHES:
    leaves, shapes[mesh] = read_again(folder / "2x2x2", mesh)
    np.savez(folder / f"state {mesh}.npz", *leaves)
  for mesh in ("1x8x1", "2x2x2"):
    shapes[mesh]["collective"] = looked_up(mesh)
  for mesh in ("1x1", "1x8x1"):
    np.savez(folder / f"softmax {mesh}.npz", **softmax_step(mesh))
  for mesh in ("1x1", "2x2x2"):
    np.savez(folder / f"drawn {mesh}.npz", **softmax_step(mesh, drawn_edges=3))
  propagation._DENSE_SHARE = 2.0  # lists of targets instead of a matrix
  np.savez(folder / "softmax 2x2x2.npz", **softmax_step("2x2x2"))
  (folder / "found.json").write_text(json.dumps([metrics, shapes]))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
  """Results of eight devices: the folder, the metrics by run, the shapes by mesh."""
  folder = tmp_path_factory.mktemp("on_mesh")
  done = subprocess.run(
    [sys.executable, __file__, str(folder)],
    env=environment_of_devices(),
    timeout=600,
    capture_output=True,
    text=True,
  )
  assert not done.returncode, done.stderr
  return folder, *json.loads((folder / "found.json").read_text())


def curve(folder):
  """{(step, name): value} of a run."""
  lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
  values = {(line["step"], line["name"]): line["value"] for line in lines}
  assert len(values) == len(lines)
  return values


@pytest.mark.parametrize("run", ("2x2x2", "moved"))
def test_a_mesh_gives_the_losses_and_metrics_of_one_device(found, run):
  folder, metrics, _ = found
  curves = curve(folder / run), curve(folder / "1x1")
  losses = [value for (_, name), value in curves[1].items() if name == "loss"]
  assert len(losses) == HYBRID[1].epochs and losses[-1] < losses[0]
  assert curves[0] == pytest.approx(curves[1], rel=0, abs=1e-5)
  assert metrics[run] == pytest.approx(metrics["1x1"], rel=0, abs=1e-6)
  assert metrics[run]["ndcg@5"] > 0


@pytest.mark.parametrize(
  ("kind", "mesh"), [("softmax", "1x8x1"), ("softmax", "2x2x2"), ("drawn", "2x2x2")]
)
def test_a_mesh_gives_the_softmax_and_its_gradient_of_one_device(found, kind, mesh):
  with (
    np.load(found[0] / f"{kind} {mesh}.npz") as ours,
    np.load(found[0] / f"{kind} 1x1.npz") as whole,
  ):
    assert set(ours) == set(whole) and "loss" in whole
    for name in whole:
      assert np.abs(whole[name]).max() > 1e-4, name
      np.testing.assert_allclose(ours[name], whole[name], rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("mesh", MESHES)
def test_a_checkpoint_is_read_on_any_mesh_bit_for_bit(found, mesh):
  with (
    np.load(found[0] / f"state {mesh}.npz") as ours,
    np.load(found[0] / "state 1x1.npz") as whole,
  ):
    assert len(ours) == len(whole) > 20
    for name in whole:
      assert ours[name].shape == whole[name].shape
      assert ours[name].tobytes() == whole[name].tobytes()
    assert (NODES, TEXT) in [whole[name].shape for name in whole]


@pytest.mark.parametrize(("mesh", "devices"), (("1x2x1", 2), ("2x2x2", 2), ("1x8x1", 8)))
def test_tables_moments_and_edges_are_sharded(found, mesh, devices):
  shapes = found[2][mesh]
  assert not found[2]["1x1"]["restored"]
  serving_state = shapes["restored"]
  assert serving_state == shapes["first"]
  assert len(serving_state) == 3 and all(path.endswith("['table']") for path in serving_state)
  assert sum(".mu" in path or ".nu" in path for path in serving_state) == 2
  assert all(both == [[CUT, TEXT], [CUT // devices, TEXT]] for both in serving_state.values())
  edges = 2 * len(ratings()[0])
  assert edges % 8
  edges += -edges % devices
  assert sorted(shapes["inputs"].values()) == sorted(
    [
      [[CUT, TEXT], [CUT // devices, TEXT]],
      [[edges], [edges // devices]],
      [[edges], [edges // devices]],  # senders, receivers
      [[edges, 1], [edges // devices, 1]],
    ]
  )


@pytest.mark.parametrize(("mesh", "devices"), (("1x2x1", 2), ("2x2x2", 8), ("1x8x1", 8)))
def test_positives_and_what_negatives_are_drawn_from_are_divided_over_all_devices(
  found, mesh, devices
):
  shapes = found[2][mesh]
  liked = ratings()[0].rating >= 4
  forbidden = liked | (ratings()[0].rating <= 2)
  sizes = {
    ".user": liked.sum(),
    ".item": liked.sum(),
    ".start": USERS + 1,
    ".sampler.allowed_before": forbidden.sum() + 1,
    ".sampler.forbidden_through": forbidden.sum() + 1,
    ".sampler.user_start": USERS + 1,
    ".sampler.allowed_total": USERS,
    ".sampler.dislike_start": USERS + 1,
    ".sampler.dislikes": (forbidden & ~liked).sum(),
    ".later": USERS,
  }
  padded = {name: int(size + -size % devices) for name, size in sizes.items()}
  assert shapes["rows"] == {name: [[size], [size // devices]] for name, size in padded.items()}
  # What lies on every device are figures of items alone, fewer than `TABLE_ROWS` of them here.
  assert shapes["whole"] == {
    ".attributes": [[ITEMS, 0], 4],
    ".new": [[ITEMS], 1],
    ".sampler.mass_before": [[ITEMS + 1], 4],
    ".sampler.explicit_share": [[], 4],
  }


@pytest.mark.parametrize("mesh", ("1x8x1", "2x2x2"))
def test_looking_rows_up_exchanges_the_rows_and_not_the_tables(found, mesh):
  sizes = found[2][mesh]["collective"]
  assert sizes and max(sizes) <= FEW < USERS


if __name__ == "__main__":
  on_eight_devices(Path(sys.argv[1]))
