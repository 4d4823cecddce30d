"""Meshes: where arrays lie, and that several devices give the numbers of one."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.paths import LM_GOLDENS, ROOT
from helpers.programs import environment_of_devices
from jax.sharding import PartitionSpec

from gatrec_jax.errors import InputError
from gatrec_jax.lm.decoder.model import forward, logical_axes
from gatrec_jax.lm.encoder.encode import encode
from gatrec_jax.lm.encoder.load import load_encoder
from gatrec_jax.lm.folders.load import load_decoder
from gatrec_jax.lm.inference.generate import generate
from gatrec_jax.lm.inference.sampling import Sampling
from gatrec_jax.lm.inference.scoring import score_continuations, score_labels
from gatrec_jax.sharding.mesh import make_mesh, parameter_sharding

GOLDENS = ROOT / "tests" / "lm" / "goldens" / "decoders"
# Eight heads of queries, four of keys and values, windows, sandwich norms.
FOLDER = GOLDENS / "gemma3_multimodal"
ENCODER = LM_GOLDENS / "bert"
PROMPTS = [[2, 5, 9], [2, *range(20, 33)], [4, 4, 8, 17, 10], [7]]
MESHES = ((2, 4), (1, 8))
SAMPLED = Sampling(temperature=3.0, top_k=40)


def results(model, *, everything):
  """Logits of a model, and where `everything` is asked for answers and scores, as arrays."""
  with np.load(FOLDER / "golden.npz", allow_pickle=False) as golden:
    logits = forward(model.params, golden["tokens"], config=model.config, lengths=golden["lengths"])
    logits = [np.asarray(row)[:n] for row, n in zip(logits, golden["lengths"], strict=True)]
  logits = np.concatenate(logits)
  if not everything:
    return {"logits": logits}
  tokens = [
    [*answer.tokens, -1] for answer in generate(model, PROMPTS, max_tokens=16, sampling=SAMPLED)
  ]
  continuations = [[[3, 4], [5], [6, 7, 8], [9] * 5]]
  return {
    "logits": logits,
    "tokens": np.concatenate(tokens),
    "labels": score_labels(model, PROMPTS, np.array([3, 50, 95])),
    "continuations": score_continuations(model, PROMPTS[:1], continuations)[0],
  }


def shapes_of_shards(params):
  """{path: [whole shape, shape on each device]}."""
  return {
    "/".join(key.key for key in path): [leaf.shape, leaf.addressable_shards[0].data.shape]
    for path, leaf in jax.tree_util.tree_leaves_with_path(params)
  }


def on_eight_devices(folder):
  """The part that runs in a process of its own, where the CPU is eight devices."""
  assert len(jax.devices()) == 8
  for data, model in MESHES:
    mesh = make_mesh(data=data, model=model)
    whole = load_decoder(FOLDER, mesh=mesh)
    np.savez(folder / f"{data}x{model}.npz", **results(whole, everything=data > 1))
    small = load_decoder(FOLDER, mesh=mesh, quantize="int8")
    shapes = shapes_of_shards(whole.params), shapes_of_shards(small.params)
    (folder / f"{data}x{model}.json").write_text(json.dumps(shapes))
  np.save(folder / "encoded.npy", encoded())


def encoded(devices=None):
  """Vectors of texts, which the devices share."""
  model = load_encoder(ENCODER)
  with np.load(ENCODER / "golden.npz", allow_pickle=False) as golden:
    texts = json.loads(str(golden["texts"])) * 2
  return encode(model, texts, max_tokens=16, devices=devices)[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """The folder of what eight devices gave."""
  folder = tmp_path_factory.mktemp("mesh")
  subprocess.run(
    [sys.executable, __file__, str(folder)], check=True, env=environment_of_devices(), timeout=300
  )
  return folder


@pytest.fixture(scope="module")
def several(folder):
  """What eight devices gave: mesh -> (results, shapes in float32 and in int8)."""
  found = {}
  for data, model in MESHES:
    with np.load(folder / f"{data}x{model}.npz", allow_pickle=False) as arrays:
      shapes = json.loads((folder / f"{data}x{model}.json").read_text())
      found[data, model] = dict(arrays), shapes
  return found


@pytest.fixture(scope="module")
def single():
  return results(load_decoder(FOLDER), everything=True)


@pytest.mark.parametrize("mesh", MESHES)
def test_eight_devices_equal_one(several, single, mesh):
  found, _ = several[mesh]
  assert found.keys() == (single.keys() if mesh == (2, 4) else {"logits"})
  for name in found:
    np.testing.assert_allclose(found[name], single[name], rtol=0, atol=1e-4, err_msg=name)
  with np.load(FOLDER / "golden.npz", allow_pickle=False) as golden:
    lengths = golden["lengths"]
    rows = [row[:n] for row, n in zip(golden["logits"], lengths, strict=True)]
  np.testing.assert_allclose(found["logits"], np.concatenate(rows), rtol=0, atol=1e-4)
  assert len(set(single["tokens"].tolist())) > 20


def test_eight_devices_encode_like_one(folder):
  single = encoded(jax.local_devices()[:1])
  np.testing.assert_allclose(np.load(folder / "encoded.npy"), single, atol=1e-6)


@pytest.mark.parametrize(("data", "model"), MESHES)
def test_parameters_are_cut(several, data, model):
  shapes, small = several[data, model][1]
  cut_rows = ("q/kernel", "k/kernel", "v/kernel", "gate/kernel", "up/kernel", "embedding")
  for path, (whole, part) in shapes.items():
    expected = list(whole)
    if path.endswith(cut_rows):
      expected[0] //= model
    elif path.endswith(("o/kernel", "down/kernel")):
      expected[1] //= model
    assert part == expected, path
  assert sum(whole != part for whole, part in shapes.values()) == 1 + 3 * 7
  for path, both in small.items():
    name = path.removesuffix("_int8")
    if path.endswith("kernel_scale"):  # lies with the rows that it belongs to
      name = name.removesuffix("_scale")
      assert both == [side[:1] for side in shapes[name]], path
    else:
      assert both == shapes[name], path


def test_axes_of_every_parameter_are_named():
  model = load_decoder(FOLDER)
  axes = logical_axes(model.config)

  def is_spec(node):
    return isinstance(node, PartitionSpec)

  ranks = jax.tree.map(lambda names: len(names), axes, is_leaf=is_spec)
  assert ranks == jax.tree.map(lambda leaf: leaf.ndim, model.params)


class FakeMesh:
  """Only the sizes of its axes; a real one needs that many devices."""

  shape = {"data": 2, "model": 4}


@pytest.mark.parametrize(
  ("names", "shape", "expected"),
  (
    (("heads", "embed"), (32, 12), ("model", None)),
    (("embed", "heads"), (12, 32), (None, "model")),
    (("vocab", "embed"), (97, 12), (None, None)),  # uneven: not cut
    (("mlp", "heads"), (8, 8), ("model", None)),  # an axis of the mesh is used once
    (("mlp", "heads"), (6, 8), (None, "model")),
    (("batch", None), (6, 5), ("data", None)),
    (("unknown", "embed"), (8, 8), (None, None)),
    ((), (), ()),
  ),
)
def test_where_arrays_lie(monkeypatch, names, shape, expected):
  monkeypatch.setattr("gatrec_jax.sharding.mesh.NamedSharding", lambda mesh, spec: spec)
  assert parameter_sharding(names, shape, FakeMesh()) == PartitionSpec(*expected)


def test_own_rules():
  mesh = make_mesh()

  def spec(rules):
    return parameter_sharding(("vocab", "embed"), (8, 8), mesh, rules).spec

  assert spec({"embed": "model"}) == PartitionSpec(None, "model")
  assert spec({"vocab": "pipeline"}) == PartitionSpec(None, None)


def test_meshes():
  mesh = make_mesh()
  assert mesh.shape == {"data": 1, "graph": 1, "model": 1}
  assert mesh.devices[0, 0, 0] == jax.devices()[0]
  devices = jax.devices()[:1]
  for data, model in ((2, 1), (1, 2), (0, 1), (1, -1)):
    with pytest.raises(InputError, match=f"a mesh of {data} × 1 × {model} devices .* 1 are here"):
      make_mesh(data=data, model=model, devices=devices)


if __name__ == "__main__":
  on_eight_devices(Path(sys.argv[1]))
