"""Real processes over loopback: what they tell each other, the data that they read together, and
their training, which are those of one process."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from helpers.paths import ROOT

from gatrec_jax import runs
from gatrec_jax.config.models import BprMfConfig
from gatrec_jax.config.schema import DataConfig, TrainConfig
from gatrec_jax.errors import InputError
from gatrec_jax.models.base import make_inputs
from gatrec_jax.models.registry import make_recommender
from gatrec_jax.runs.log import SILENT
from gatrec_jax.sharding import placement
from gatrec_jax.sharding.mesh import make_mesh, start_processes
from gatrec_jax.sharding.peers import (
  ALONE,
  Processes,
  any_of,
  common_folder,
  own_folder,
  place_of,
  sum_of,
)
from gatrec_jax.stages.data import prepare
from gatrec_jax.train.epochs import train_epochs
from gatrec_jax.train.sharded import Place

BIG = 2**40  # beyond what devices hold without x64
TRAIN = TrainConfig(epochs=2, batch_size=64, learning_rate=0.05)


def data_set(folder):
  rng = np.random.default_rng(0)
  folder.mkdir()
  for number, size in enumerate((300, 0, 500, 250)):
    columns = {
      "user_id": pa.array([f"u{k}" for k in rng.integers(0, 60, size)], pa.string()),
      "item_id": rng.integers(0, 40, size),
      "rating": rng.integers(1, 6, size),
      "timestamp": rng.integers(2e11, 3e11, size),  # milliseconds
    }
    parquet.write_table(pa.table(columns), folder / f"part-{number}.parquet", row_group_size=50)


def talk(folder):
  """What the processes tell each other; the same in all of them but for `place` and `passed`."""
  peers = Processes(folder)
  index, count = peers.index, peers.count
  tables = peers.gather(pa.table({"number": BIG + np.arange(index)}))
  own = [pa.table({"word": [f"{index} to {other}"] * index}) for other in range(count)]
  passed = [word for table in peers.exchange(own) for word in table["word"].to_pylist()]
  with pytest.raises(InputError) as error:
    peers.raise_together(
      InputError("bad", field="shard", value=index) if index == count - 1 else None
    )
  peers.raise_together(None)
  found = {
    "gathered": [table["number"].to_numpy().tolist() for table in tables],
    "sum": sum_of(peers, [BIG, index]).tolist(),
    "any": any_of(peers, np.array([False, index == 1])).tolist(),
    "place": place_of(peers, index),
    "passed": passed,
    "error": str(error.value),
  }
  peers.close()
  assert index or not folder.exists()
  return found


def prepared_twice(folder):
  """The data stage, made and then made again, which one process alone has to."""
  data = DataConfig(dataset=str(folder / "data"), split="per_user")
  workdir = runs.open_workdir(own_folder(folder / "run"))
  first = prepare(data, workdir, log=SILENT)
  if jax.process_index() == jax.process_count() - 1:
    (workdir / "data" / "manifest.json").unlink()
  again = prepare(data, workdir, log=SILENT)
  assert first.facts == again.facts
  return again


def trained(prepared, mesh):
  """Losses and parameters of a few steps."""
  rows = prepared.interactions
  recommender = make_recommender(
    BprMfConfig(width=4), num_users=rows.num_users, num_items=rows.num_items
  )
  inputs = make_inputs(recommender, prepared.train, feedback=prepared.feedback)
  place = Place(mesh, recommender=recommender, inputs=inputs, config=TRAIN)
  state = place.init()
  with place.entered():
    state, losses = train_epochs(
      state, place.inputs, recommender=place.recommender, config=TRAIN, num_epochs=TRAIN.epochs
    )
  params = place.local(place.saved(state).params)
  placed = place.inputs.user
  own = sum(shard.data.size for shard in placed.addressable_shards) / placed.size
  return np.asarray(losses), params, own


def results(folder, mesh):
  """Everything that is compared."""
  prepared = prepared_twice(folder)
  losses, params, own = trained(prepared, mesh)
  rows, split = prepared.interactions, prepared.split
  return {
    **{name: getattr(rows, name) for name in ("user", "item", "rating", "timestamp")},
    **{name: getattr(split, name) for name in ("train", "valid", "test")},
    "user_ids": np.array(rows.user_ids),
    "item_ids": np.array(rows.item_ids),
    "said": np.array([*prepared.sentences, prepared.facts["content"]]),
    "losses": losses,
    "user_vectors": params["user"],
    "item_vectors": params["item"],
    "own": np.array(own),
  }


def in_process(folder, index, count, port):
  """The part that runs in processes of their own."""
  placement.TABLE_ROWS, placement.ROW_MULTIPLE = 32, 8
  start_processes(f"127.0.0.1:{port}", num_processes=count, process_id=index)
  found = talk(folder / f"talk-{count}")
  assert common_folder(own_folder(folder)) == folder
  assert own_folder(folder) == (folder / "processes" / str(index) if index else folder)
  place = folder / f"of-{count}"
  (place / "data").symlink_to(folder / "data") if not index else None
  arrays = results_of_processes(place, count)
  np.savez(folder / f"{count}-{index}.npz", **arrays, talk=np.array(repr(found)))


def results_of_processes(place, count):
  from jax.experimental import multihost_utils

  multihost_utils.sync_global_devices("the link is there")
  return results(place, make_mesh(graph=count))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
  """The folder of results of one process, of two, and of four."""
  folder = tmp_path_factory.mktemp("peers")
  data_set(folder / "data")
  environment = os.environ | {
    "JAX_PLATFORMS": "cpu",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
  }
  for count in (2, 4):
    (folder / f"of-{count}").mkdir()
    with socket.socket() as free:
      free.bind(("127.0.0.1", 0))
      port = free.getsockname()[1]
    processes = [
      subprocess.Popen(
        [sys.executable, __file__, str(folder), str(index), str(count), str(port)],
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
      )
      for index in range(count)
    ]
    try:
      errors = [process.communicate(timeout=500)[1] for process in processes]
    finally:
      for process in processes:
        process.kill()
    assert [process.returncode for process in processes] == [0] * count, "\n".join(errors)
  return folder


@pytest.fixture(scope="module")
def alone(found):
  """The results of this process, without others."""
  return results(found, None)


@pytest.mark.parametrize("count", (2, 4))
def test_all_processes_hear_the_same(found, count):
  for index in range(count):
    with np.load(found / f"{count}-{index}.npz") as ours:
      said = eval(str(ours["talk"]))
    assert said == {
      "gathered": [[BIG + k for k in range(other)] for other in range(count)],
      "sum": [count * BIG, sum(range(count))],
      "any": [False, True],
      "place": (sum(range(index)), sum(range(count))),
      "passed": [f"{other} to {index}" for other in range(count) for _ in range(other)],
      "error": f"shard={count - 1}: bad",
    }


@pytest.mark.parametrize("count", (2, 4))
def test_data_that_processes_read_together_are_those_of_one(found, alone, count):
  for index in range(count):
    with np.load(found / f"{count}-{index}.npz") as ours:
      for name, whole in alone.items():
        if name not in ("losses", "user_vectors", "item_vectors", "own"):
          assert ours[name].dtype == whole.dtype, name
          np.testing.assert_array_equal(ours[name], whole, err_msg=name)
  # Nothing is left of what they told each other.
  assert sorted(path.name for path in (found / f"of-{count}" / "run" / "processes").iterdir()) == [
    str(index) for index in range(1, count)
  ]


@pytest.mark.parametrize("count", (2, 4))
def test_processes_train_as_one_and_hold_a_part_of_the_positives(found, alone, count):
  assert alone["own"] == 1 and alone["losses"].shape[0] == TRAIN.epochs
  for index in range(count):
    with np.load(found / f"{count}-{index}.npz") as ours:
      assert ours["own"] == 1 / count
      for name in ("losses", "user_vectors", "item_vectors"):
        np.testing.assert_allclose(ours[name], alone[name], rtol=0, atol=1e-5, err_msg=name)


def test_a_process_alone_is_all_of_them():
  table = pa.table({"x": [1]})
  assert ALONE.gather(table) == [table] and ALONE.exchange([table]) == [table]
  assert place_of(ALONE, 3) == (0, 3) and sum_of(ALONE, 3) == 3
  with pytest.raises(InputError, match="^bad$"):
    ALONE.raise_together(InputError("bad"))


if __name__ == "__main__":
  in_process(Path(sys.argv[1]), *map(int, sys.argv[2:]))
