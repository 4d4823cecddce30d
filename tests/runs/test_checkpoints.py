"""Checkpoints: latest and best are kept, damage and other shapes are told."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gatrec_jax.errors import InputError
from gatrec_jax.runs.checkpoints import Checkpoints, read_best


def trees(x):
  return {"params": {"w": jnp.full((3, 2), x, jnp.float32)}, "training": {"step": jnp.int32(x)}}


def test_latest_and_best_are_kept_and_restored_exactly(tmp_path):
  store = Checkpoints(tmp_path / "c")
  for epoch, value in ((1, 0.1), (2, 0.5), (3, 0.3), (5, 0.2)):
    store.save(epoch, trees(epoch), value=value, meta={"best": value, "minus": -float("inf")})
  store.close()
  again = Checkpoints(tmp_path / "c")
  assert (again.latest(), again.best()) == (5, 2)
  assert sorted(p.name for p in (tmp_path / "c").iterdir() if p.name.isdigit()) == ["2", "5"]
  like = jax.eval_shape(lambda: trees(0))
  restored, meta = again.restore(2, like)
  np.testing.assert_array_equal(restored["params"]["w"], 2.0)
  assert int(restored["training"]["step"]) == 2 and meta["best"] == 0.5
  assert meta["minus"] == -float("inf")
  only, _ = again.restore(5, {"params": like["params"]})
  np.testing.assert_array_equal(only["params"]["w"], 5.0)
  again.close()


def test_best_among_negative_values(tmp_path):
  store = Checkpoints(tmp_path / "c")
  for epoch, value in ((1, -0.9), (2, -0.4), (3, -0.6)):
    store.save(epoch, trees(epoch), value=value, meta={})
  store.wait()
  assert (store.latest(), store.best()) == (3, 2)
  store.close()


def test_of_equal_values_the_earlier_is_the_best_and_is_kept(tmp_path):
  store = Checkpoints(tmp_path / "c")
  for epoch, value in ((1, 0.5), (2, 0.5), (10, 0.5), (11, 0.4)):
    store.save(epoch, trees(epoch), value=value, meta={})
  store.close()
  again = Checkpoints(tmp_path / "c")
  assert (again.latest(), again.best()) == (11, 1)
  restored, _ = again.restore(1, jax.eval_shape(lambda: trees(0)))
  np.testing.assert_array_equal(restored["params"]["w"], 1.0)
  again.close()


def test_empty(tmp_path):
  store = Checkpoints(tmp_path / "c")
  assert store.latest() is None and store.best() is None
  store.close()


@pytest.mark.parametrize(
  "like",
  [
    {"params": {"w": jax.ShapeDtypeStruct((4, 2), jnp.float32)}},
    {"params": {"v": jax.ShapeDtypeStruct((3, 2), jnp.float32)}},
  ],
)
def test_another_structure_or_shape_is_one_clear_line(tmp_path, like):
  store = Checkpoints(tmp_path / "c")
  store.save(1, trees(1), value=0.0, meta={})
  store.wait()
  with pytest.raises(InputError, match="not a checkpoint of this configuration"):
    store.restore(1, like)
  store.close()


def test_a_damaged_checkpoint_is_one_clear_line(tmp_path):
  store = Checkpoints(tmp_path / "c")
  store.save(1, trees(1), value=0.0, meta={})
  store.wait()
  for path in (tmp_path / "c" / "1" / "params").rglob("*"):
    if path.is_file():
      path.write_bytes(b"")
  with pytest.raises(InputError, match="damaged"):
    store.restore(1, jax.eval_shape(lambda: trees(0)))
  store.close()


def test_an_array_that_ends_early_is_one_clear_line(tmp_path):
  """As a reader finds it while training removes a checkpoint: Orbax raises a bare Exception."""
  big = {"params": {"w": jax.random.normal(jax.random.key(0), (300, 300))}}
  store = Checkpoints(tmp_path / "c")
  store.save(1, big, value=0.0, meta={})
  store.close()
  files = (tmp_path / "c" / "1" / "params").rglob("d/*")
  (values,) = [path for path in files if path.stat().st_size > 100_000]
  values.write_bytes(values.read_bytes()[:50_000])
  with pytest.raises(InputError, match="damaged"):
    read_best(tmp_path / "c", jax.eval_shape(lambda: big))


def test_a_reader_does_not_disturb_a_writer(tmp_path):
  """Each save makes the former best obsolete, so that readers meet its removal."""
  folder, failures, done = tmp_path / "c", [], threading.Event()
  store = Checkpoints(folder)
  store.save(1, trees(1), value=1.0, meta={})
  store.wait()

  def write():
    try:
      for epoch in range(2, 30):
        store.save(epoch, trees(epoch), value=float(epoch), meta={})
      store.close()
    except Exception as error:
      failures.append(error)
    finally:
      done.set()

  writer, like, seen = threading.Thread(target=write), jax.eval_shape(lambda: trees(0)), []
  writer.start()
  try:
    while not done.is_set():
      seen.append(float(read_best(folder, {"params": like["params"]})["params"]["w"][0, 0]))
  finally:
    writer.join()
  assert not failures
  assert seen == sorted(seen) and len(seen) > 1
  assert float(read_best(folder, {"params": like["params"]})["params"]["w"][0, 0]) == 29


def test_a_reader_writes_nothing(tmp_path):
  folder = tmp_path / "c"
  store = Checkpoints(folder)
  store.save(1, trees(1), value=1.0, meta={})
  store.close()
  (folder / "2.orbax-checkpoint-tmp-7").mkdir()  # another process is saving
  before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
  assert float(read_best(folder, {"params": trees(0)["params"]})["params"]["w"][0, 0]) == 1
  assert before == sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
  assert read_best(tmp_path, {}) is None
