"""A disk that is full: the path is named, and what was written before is whole."""

import contextlib
import json
import resource

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.programs import call, error_line

from gatrec_jax import runs
from gatrec_jax.errors import InputError
from gatrec_jax.evaluate.files import write_recommendations
from gatrec_jax.runs.checkpoints import Checkpoints, read_best
from gatrec_jax.runs.folder import MetricsFile
from gatrec_jax.runs.log import SILENT
from gatrec_jax.runs.resumable import in_chunks


@contextlib.contextmanager
def files_up_to(size):
  """Writing beyond `size` bytes of a file fails, as on a full disk (EFBIG instead of ENOSPC)."""
  former = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, former[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, former)


def test_json_is_written_whole_or_not_at_all(tmp_path):
  path = tmp_path / "a.json"
  runs.write_json(path, {"a": 1})
  with files_up_to(100), pytest.raises(InputError, match=f"^{path}: the disk is full"):
    runs.write_json(path, {"a": "x" * 1000})
  assert runs.read_json(path) == {"a": 1}
  assert [one.name for one in tmp_path.iterdir()] == ["a.json"]


def test_lists_are_written_whole_or_not_at_all(tmp_path):
  path = tmp_path / "lists.parquet"
  ids = {"user_ids": ["1"], "item_ids": [str(item) for item in range(500)]}
  items = np.arange(500)[None]
  with files_up_to(100), pytest.raises(InputError, match=f"^{path}: the disk is full"):
    write_recommendations(path, users=np.array([0]), items=items, scores=0.5 * items, **ids)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [0, 30, 100, 130])
def test_chunks_go_on_where_the_disk_was_full(tmp_path, size):
  path, keys = tmp_path / "part.jsonl", [f"key {number}" for number in range(7)]

  def make(places):
    return [{"scores": [0.5] * place} for place in places]

  def run(where):
    return in_chunks(where, keys, make, chunk=2, name="job", log=SILENT)

  expected = run(tmp_path / "other.jsonl")
  with files_up_to(size), pytest.raises(InputError, match=f"^{path}: the disk is full"):
    run(path)
  left = path.read_bytes()
  assert left.count(b"\n") % 2 == 0 and (not left or left.endswith(b"\n"))
  assert run(path) == expected
  assert path.read_bytes() == (tmp_path / "other.jsonl").read_bytes()


def test_metrics_name_their_file(tmp_path):
  path = tmp_path / "metrics.jsonl"
  file = MetricsFile(path, after_step=0)
  file.write(1, loss=0.5)
  with files_up_to(path.stat().st_size), pytest.raises(InputError, match=f"^{path}: the disk"):
    file.write(2, loss=0.25)
  assert json.loads(path.read_text().splitlines()[0])["value"] == 0.5


def test_a_checkpoint_keeps_the_one_before(tmp_path):
  tree = {"params": {"a": jnp.zeros(100_000)}}
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(1, tree, value=0.5, meta={})
  checkpoints.wait()
  noise = jnp.asarray(np.random.default_rng(0).random(100_000))
  with files_up_to(1000), pytest.raises(InputError) as error:
    checkpoints.save(2, {"params": {"a": noise}}, value=1.0, meta={})
    checkpoints.wait()
  assert str(error.value).startswith(f"{tmp_path}: the disk is full")
  np.testing.assert_array_equal(read_best(tmp_path, tree)["params"]["a"], tree["params"]["a"])


def test_a_program_ends_in_one_line(tmp_path):
  flags = ("--dataset=demo", "--preset=popularity", f"--workdir={tmp_path / 'run'}")
  with files_up_to(4000):
    done = call("train", *flags, cwd=tmp_path, check=1)
  line = error_line(done)
  assert str(tmp_path / "run") in line and "the disk is full" in line
  assert call("train", *flags, cwd=tmp_path, check=0).stderr.count("error") == 0
