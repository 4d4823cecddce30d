"""launch.soak: a killed program ends as an uninterrupted one, and what differs is found."""

import json
import os

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.programs import call, error_line

from gatrec_jax.runs.checkpoints import Checkpoints
from launch.soaking.leaves import differing, leaves
from launch.soaking.subjects import STARTS, SUBJECTS
from launch.soaking.trials import Place


def write_everything(folder, *, value=1.5, seconds=1.0):
  """A file of every kind with a value, and with times, which do not count."""
  folder.mkdir()
  store = Checkpoints(folder / "checkpoints")
  arrays = {"params": {"w": jnp.full((3, 2), value)}, "training": {"step": jnp.int32(2)}}
  store.save(2, arrays, value=0.5, meta={"seconds": seconds, "best": 0.5})
  store.close()
  table = pa.table({"user": ["a", "b"], "gain": [1.0, value], "train_seconds": [seconds] * 2})
  pq.write_table(table, folder / "table.parquet")
  tree = {"metrics": [{"mean": value}], "seconds": seconds, "environment": {"started": seconds}}
  (folder / "results.json").write_text(json.dumps(tree))
  rows = [{"name": "loss", "value": value}, {"name": "seconds", "value": seconds}]
  (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  np.save(folder / "vectors.npy", np.float32([0, value]))
  np.savez(folder / "some.npz", a=np.arange(3), b=np.float32([value]))
  (folder / "ids.txt").write_text(f"a\n{value}\n")
  (folder / "cache").mkdir()
  (folder / "cache" / ".lock").write_text(str(seconds))
  return leaves(folder)


def test_leaves_are_equal_but_for_times(tmp_path):
  first = write_everything(tmp_path / "a")
  assert differing(write_everything(tmp_path / "b", seconds=2.0), first) == []
  assert len(first) > 15


def test_every_kind_of_leaf_that_differs_is_named(tmp_path):
  first = write_everything(tmp_path / "a")
  assert differing(write_everything(tmp_path / "b", value=np.nextafter(1.5, 2)), first) == [
    "ids.txt",
    "metrics.jsonl: line 1: value",
    "results.json: metrics: 0: mean",
    "table.parquet: gain",
  ]  # the others are float32
  found = differing(
    write_everything(tmp_path / "c", value=float(np.nextafter(1.5, 2, dtype="f"))), first
  )
  assert {"checkpoints/2/params['w']", "vectors.npy", "some.npz: b"} <= set(found)


def test_what_is_left_over_missing_or_damaged_is_named(tmp_path):
  first = write_everything(tmp_path / "a")
  (tmp_path / "a" / ".results.json.12.tmp").write_text("")
  (tmp_path / "a" / "checkpoints" / "3.orbax-checkpoint-tmp").mkdir()
  (tmp_path / "a" / "ids.txt").unlink()
  (tmp_path / "a" / "vectors.npy").write_bytes(b"")
  with open(tmp_path / "a" / "metrics.jsonl", "a") as out:
    out.write('{"name": "loss"}')
  assert differing(leaves(tmp_path / "a"), first) == [
    ".results.json.12.tmp: left over",
    "checkpoints/3.orbax-checkpoint-tmp/: left over",
    "metrics.jsonl: end: left over",
    "metrics.jsonl: line 3: name: left over",
    "ids.txt: missing",
    "vectors.npy",
  ]


def test_a_killed_program_is_counted_and_a_planted_difference_is_found(tmp_path):
  flags = ("--programs=prepare", "--workdir=soak")
  done = call("soak", *flags, "--kills=1", cwd=tmp_path, check=0)
  state = json.loads((tmp_path / "soak/soak.json").read_text())["programs"]["prepare"]
  assert sum(state["kills"].values()) >= 1 and state["problems"] == {} and state["seconds"] > 0
  assert "prepare 0: SIG" in done.stdout

  again = call("soak", *flags, "--kills=1", cwd=tmp_path, check=0)
  assert "prepare 0" not in again.stdout and "prepare" in again.stdout
  line = error_line(call("soak", *flags, "--seed=1", cwd=tmp_path, check=1))
  assert "begun with seed 0; use another --workdir" in line

  place = Place(tmp_path / "soak")
  whole = leaves(place.folder)
  (name,) = (name for name in whole if name.startswith("run/data/manifest.json: facts: train"))
  trial = place.trial(SUBJECTS["prepare"], whole | {name: "0"}, 0.2, np.random.default_rng(0))
  assert trial.problems == [name] and set(trial.signals) <= {"SIGKILL", "SIGTERM", "SIGINT"}


def test_a_soak_in_which_something_differed_ends_with_an_error(tmp_path):
  state = {"commit": "", "seed": 0, "programs": {}}
  one = {"trials": 4, "kills": {"SIGKILL": 6}, "readers": 1, "problems": {"2": ["run/a"]}}
  state["programs"]["prepare"] = one | {"seconds": 1.0}
  (tmp_path / "soak.json").write_text(json.dumps(state))
  env = {"PATH": os.environ["PATH"]}
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr("gatrec_jax.runs.folder._git_commit", lambda: "")
    flags = ("--programs=prepare", "--kills=6", f"--workdir={tmp_path}")
    done = call("soak", *flags, cwd=tmp_path, check=1, env=env)
  assert "something differs or went wrong in prepare" in error_line(done)


def test_wrong_requests_are_refused_in_one_line(tmp_path):
  for flags, words in (
    (["--programs=x"], "--programs=x: must be one of all, train"),
    (["--kills=0"], "--kills=0: must be at least 1"),
  ):
    assert words in error_line(call("soak", *flags, cwd=tmp_path, check=1))
  assert not (tmp_path / "runs").exists()


def test_every_subject_begins_with_a_start_that_there_is():
  assert {subject.start for subject in SUBJECTS.values()} <= set(STARTS)
  assert {start.base for start in STARTS.values()} <= {None, *STARTS}
