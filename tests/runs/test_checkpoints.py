"""Checkpoints: latest and best are kept, damage and other shapes are told."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gatrec_jax.errors import DamagedFile, InputError
from gatrec_jax.runs.checkpoints import (
  Checkpoints,
  best,
  epochs,
  latest,
  newest,
  read_best,
  restore,
  verify,
)
from gatrec_jax.runs.log import SILENT, Recorder


def trees(x):
  return {"params": {"w": jnp.full((3, 2), x, jnp.float32)}, "training": {"step": jnp.int32(x)}}


def saved(folder, *epochs_and_values, make=trees, meta=None):
  store = Checkpoints(folder)
  for epoch, value in epochs_and_values:
    store.save(epoch, make(epoch), value=value, meta=meta or {})
  store.close()
  return folder


LIKE = jax.eval_shape(lambda: trees(0))


def test_latest_and_best_are_kept_and_restored_exactly(tmp_path):
  meta = {"best": 0.5, "minus": -float("inf"), "pair": (1, 2)}
  folder = saved(tmp_path / "c", (1, 0.1), (2, 0.5), (3, 0.3), (5, 0.2), meta=meta)
  assert (latest(folder), best(folder), epochs(folder)) == (5, 2, [2, 5])
  restored, found = restore(folder, 2, LIKE)
  np.testing.assert_array_equal(restored["params"]["w"], 2.0)
  assert int(restored["training"]["step"]) == 2
  assert found == {"best": 0.5, "minus": -float("inf"), "pair": [1, 2]}
  only, _ = restore(folder, 5, {"params": LIKE["params"]})
  np.testing.assert_array_equal(only["params"]["w"], 5.0)


def test_best_among_negative_values(tmp_path):
  folder = saved(tmp_path / "c", (1, -0.9), (2, -0.4), (3, -0.6))
  assert (latest(folder), best(folder)) == (3, 2)


def test_of_equal_values_the_earlier_is_the_best_and_is_kept(tmp_path):
  folder = saved(tmp_path / "c", (1, 0.5), (2, 0.5), (10, 0.5), (11, 0.4))
  assert (latest(folder), best(folder)) == (11, 1)
  np.testing.assert_array_equal(restore(folder, 1, LIKE)[0]["params"]["w"], 1.0)


def test_empty(tmp_path):
  assert latest(tmp_path) is None and best(tmp_path / "nowhere") is None
  assert newest(tmp_path, LIKE, log=SILENT) is None


@pytest.mark.parametrize(
  "like",
  [
    {"params": {"w": jax.ShapeDtypeStruct((4, 2), jnp.float32)}},
    {"params": {"w": jax.ShapeDtypeStruct((3, 2), jnp.bfloat16)}},
    {"params": {"v": jax.ShapeDtypeStruct((3, 2), jnp.float32)}},
    {"params": {}},
  ],
)
def test_another_structure_or_shape_is_one_clear_line(tmp_path, like):
  with pytest.raises(InputError, match="not a checkpoint of this configuration"):
    restore(saved(tmp_path / "c", (1, 0.0)), 1, like)


def big(x):
  return {"params": {"w": jax.random.normal(jax.random.key(x), (40, 30)), "b": jnp.ones(3)}}


def damaged_forms(path):
  """A flipped bit in the middle of a file, half of it, no file."""
  whole = path.read_bytes()
  place = len(whole) // 2
  if whole:
    yield whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :]
  yield whole[:place]
  yield None


def test_no_damage_changes_what_is_read(tmp_path):
  """Whatever happens to a file, the reader gets the arrays that were saved, or one clear line."""
  folder, like = saved(tmp_path / "c", (1, 0.0), make=big), jax.eval_shape(lambda: big(0))
  refused = 0
  for path in sorted(one for one in folder.rglob("*") if one.is_file()):
    whole = path.read_bytes()
    for form in damaged_forms(path):
      path.unlink(missing_ok=True)
      if form is not None:
        path.write_bytes(form)
      try:
        found = restore(folder, best(folder), like)[0]
        jax.tree.map(np.testing.assert_array_equal, found, big(1))
      except InputError as error:
        assert "\n" not in str(error) and str(folder / "1") in str(error)
        refused += 1
    path.write_bytes(whole)
  assert refused > 10


def test_verify_reads_what_only_training_does(tmp_path):
  folder = saved(tmp_path / "c", (1, 0.5), (2, 0.4))
  assert verify(folder) == 2 * len(jax.tree.leaves(LIKE)) and verify(tmp_path / "nowhere") == 0
  files = [path for path in (folder / "2" / "training").rglob("*") if path.is_file()]
  largest = max(files, key=lambda path: path.stat().st_size)
  whole = largest.read_bytes()
  for form in damaged_forms(largest):
    largest.unlink() if form is None else largest.write_bytes(form)
    with pytest.raises(DamagedFile, match=f"{folder / '2'}: damaged"):
      verify(folder)
    largest.write_bytes(whole)
  assert restore(folder, 1, {"params": LIKE["params"]})


def test_a_damaged_last_checkpoint_is_left_and_training_goes_on_from_the_one_before(tmp_path):
  folder, lines = saved(tmp_path / "c", (1, 0.5), (2, 0.4)), []
  (folder / "2" / "training" / "manifest.ocdbt").write_bytes(b"")
  epoch, found, _ = newest(folder, LIKE, log=Recorder(lines))
  assert epoch == 1 and epochs(folder) == [1] and int(found["training"]["step"]) == 1
  assert len(lines) == 1 and "going on from epoch 1" in lines[0]


def test_a_damaged_best_checkpoint_cannot_be_made_again(tmp_path):
  folder = saved(tmp_path / "c", (1, 0.5), (2, 0.4))
  (folder / "1" / "metrics" / "metrics").write_text('{"value": 0.1, "epoch": 1.0}')
  with pytest.raises(InputError, match="metrics"):
    newest(folder, LIKE, log=SILENT)
  with pytest.raises(InputError, match="metrics"):
    Checkpoints(folder)
  assert epochs(folder) == [1, 2]


def test_a_checkpoint_is_removed_whole_or_not_at_all(tmp_path, monkeypatch):
  """A kill while files are deleted leaves no half of a checkpoint among the others."""
  folder = tmp_path / "c"
  with monkeypatch.context() as patch:
    patch.setattr("shutil.rmtree", lambda *_, **__: None)  # the process ends before it deletes
    saved(folder, (1, 0.1), (2, 0.2), (3, 0.3))
  assert epochs(folder) == [3] and (folder / ".removed" / "1").is_dir()
  assert newest(folder, LIKE, log=SILENT)[0] == 3
  saved(folder, (4, 0.4))
  assert [path.name for path in folder.iterdir()] == ["4"]


def test_what_is_removed_is_not_cleared_while_orbax_still_moves_it_there(tmp_path, monkeypatch):
  busy = []
  clear = Checkpoints._clear

  def observed(store):
    busy.append(store._manager.is_saving_in_progress())
    clear(store)

  store = Checkpoints(tmp_path / "checkpoints")
  monkeypatch.setattr(Checkpoints, "_clear", observed)
  for epoch in range(1, 6):
    store.save(epoch, trees(epoch), value=epoch, meta={})
  store.close()
  assert len(busy) >= 6 and not any(busy)


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
