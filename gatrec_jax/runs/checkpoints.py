"""Checkpoints through Orbax: the latest (to go on from) and the best (to serve).

Beside its arrays a checkpoint holds, with a hash of itself, the hash of each array, the value that
it is ranked by, and what the caller says. All of it is checked when a checkpoint is read. Orbax
writes under a temporary name, so a folder whose name is a number is complete.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import logging
import os
import pathlib
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding

from gatrec_jax.errors import DamagedFile, InputError
from gatrec_jax.runs.folder import writing
from gatrec_jax.runs.log import Log
from gatrec_jax.runs.paths import plain_path
from gatrec_jax.runs.seals import sealed, unsealed

# Seconds. A checkpoint that cannot be read may be one that another process is removing: it is
# damaged if nothing changes during the pauses.
_PATIENCE, _PAUSES = 60.0, (0.05, 0.1, 0.2, 0.4)
_SPARE_BYTES = 1 << 20  # metadata of a checkpoint, and room for the logs beside it
_META, _REMOVED = "meta", ".removed"


class Checkpoints:
  """Writes the checkpoints of one run, by epoch.

  Saving is asynchronous; `wait` returns when everything is on disk. A process killed during a save
  leaves the earlier checkpoints readable.

  Attributes: folder: of all checkpoints, for the functions that read.
  """

  def __init__(self, folder: pathlib.Path) -> None:
    """Opens or creates `folder`. Remains of interrupted saves are removed.

    Raises: DamagedFile, as `newest`.
    """
    # Orbax takes seconds to import and only checkpoints need it.
    import orbax.checkpoint as ocp
    from orbax.checkpoint import checkpoint_managers

    def value(metrics: dict[str, float]) -> tuple[float, float]:
      # Of equal values the earlier one wins, as in training that stops when nothing improves.
      return metrics["value"], -metrics.get("epoch", 0.0)

    keep = checkpoint_managers.AnyPreservationPolicy(
      [checkpoint_managers.LatestN(1), checkpoint_managers.BestN(get_metric_fn=value, n=1)]
    )
    self.folder = folder.absolute()
    for epoch in epochs(self.folder):
      _require_same_value(self.folder, epoch)
    self._ocp = ocp
    self.folder.mkdir(parents=True, exist_ok=True)
    self._link = contextlib.ExitStack()
    self._manager = ocp.CheckpointManager(
      self._link.enter_context(plain_path(self.folder)),
      options=ocp.CheckpointManagerOptions(
        preservation_policy=keep,
        best_fn=value,
        best_mode="max",
        create=False,
        cleanup_tmp_directories=True,
        # Deleted in place, a checkpoint would be damaged for a reader, or for good after a kill.
        todelete_subdir=_REMOVED,
      ),
    )
    self._clear()

  def save(
    self, epoch: int, trees: Mapping[str, Any], *, value: float, meta: Mapping[str, Any]
  ) -> None:
    """Saves named pytrees and the plain dictionary `meta` under `epoch`.

    Args:
      epoch: at least 1, larger than any before.
      trees: pytrees of arrays by name; the arrays may be donated once this returns. On a mesh,
        every process holds them whole.
      value: higher is better; decides which checkpoint is the best.
      meta: plain values.
    Raises:
      InputError: the disk is full. This is checked first, so that nothing is half-written.
    """
    needed = sum(leaf.nbytes for leaf in jax.tree.leaves(dict(trees))) + _SPARE_BYTES
    if (free := shutil.disk_usage(self.folder).free) < needed:
      raise InputError(
        f"{self.folder}: the disk is full ({free / 1e6:.1f} MB free, a checkpoint needs "
        f"{needed / 1e6:.1f} MB); make room and run again, it resumes from the last checkpoint"
      )
    ocp = self._ocp
    items = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
    about = sealed(
      {
        "epoch": epoch,
        "value": value,
        "meta": dict(meta),
        "arrays": {name: _hashes(tree) for name, tree in trees.items()},
      }
    )
    args = ocp.args.Composite(**items, **{_META: ocp.args.JsonSave(about)})
    self.wait()  # as Orbax would; what is no longer kept may still be on its way to be removed
    with writing(self.folder):
      self._manager.save(epoch, args=args, metrics={"value": value, "epoch": float(epoch)})

  def wait(self) -> None:
    """Returns when every save is on disk."""
    with writing(self.folder):
      self._manager.wait_until_finished()
    self._clear()

  def close(self) -> None:
    """Waits, then releases threads and files."""
    with writing(self.folder):
      self._manager.close()
    self._link.close()
    self._clear()

  def _clear(self) -> None:
    """Deletes the checkpoints that are no longer kept."""
    if jax.process_index() == 0:
      shutil.rmtree(self.folder / _REMOVED, ignore_errors=True)


def epochs(folder: pathlib.Path) -> list[int]:
  """The epochs of the complete checkpoints in a folder, ascending; [] where it is missing."""
  if not folder.is_dir():
    return []
  return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())


def latest(folder: pathlib.Path) -> int | None:
  """The last saved epoch, None where there is none."""
  return max(epochs(folder), default=None)


def best(folder: pathlib.Path) -> int | None:
  """The epoch with the highest value, the earlier one of equals; None where there is none.

  Raises: DamagedFile: what a checkpoint says about itself is damaged.
  """
  values = {epoch: _about(folder, epoch)["value"] for epoch in epochs(folder)}
  return max(values, key=lambda epoch: (values[epoch], -epoch), default=None)


def restore(
  folder: pathlib.Path, epoch: int, like: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """The named pytrees and the meta of `epoch`, checked against their hashes. Nothing is written.

  Args:
    folder: of all checkpoints.
    epoch: one that is there.
    like: by name, what to restore: pytrees of arrays or ShapeDtypeStructs with the expected
      structure and shapes, and with where it is to lie, which is one device where nothing is said,
      on whatever devices it was saved. Names that were saved and are not asked for are not read.
  Raises:
    InputError: the checkpoint has another structure or other shapes.
    DamagedFile: it cannot be read, or is not what was saved.
  """
  about = _about(folder, epoch)
  found = {}
  for name, tree in like.items():
    wanted, saved = _names(tree), about["arrays"].get(name, {})
    if {path: saved.get(path, "").partition(" ")[0] for path in wanted} != wanted or len(
      wanted
    ) != len(saved):
      raise InputError(
        f"{folder / str(epoch)}: not a checkpoint of this configuration (its {name} have other "
        "names or shapes); use another `workdir`, or delete the checkpoints folder to train anew"
      )
    found[name] = _read(folder / str(epoch) / name, tree)
    if _hashes(found[name]) != saved:
      raise _damaged(folder, epoch, f"the arrays of {name} are not those that were saved")
  return found, about["meta"]


def newest(
  folder: pathlib.Path, like: Mapping[str, Any], *, log: Log
) -> tuple[int, dict[str, Any], dict[str, Any]] | None:
  """The last checkpoint, to go on from; None where there is none.

  Every checkpoint is checked. Where the last one is damaged and the one before it is not, which
  training can go on from as well, the damaged one is removed, and `log` says so.

  Args: like: as in `restore`, all that was saved.
  Returns: epoch, named pytrees, meta.
  Raises: InputError, DamagedFile: as `restore`.
  """
  there = epochs(folder)
  damage: dict[int, DamagedFile] = {}
  result = None
  for epoch in reversed(there):
    try:
      _require_same_value(folder, epoch)
      found = epoch, *restore(folder, epoch, like)
      result = result or found
    except DamagedFile as error:
      damage[epoch] = error
  if damage and (result is None or min(damage) < result[0] or jax.process_count() > 1):
    raise damage[min(damage)]
  for epoch, error in damage.items():
    log.info(f"removed {str(error).partition(';')[0]}; going on from epoch {result[0]}")
    shutil.rmtree(folder / str(epoch))
  return result


def read_best(folder: pathlib.Path, like: Mapping[str, Any]) -> dict[str, Any] | None:
  """The named pytrees of the best checkpoint; None where there is no checkpoint.

  Nothing is written, and training may go on in the same folder: where it replaces the checkpoint
  meanwhile, the new one is read.

  Args: like: as in `restore`.
  Raises: InputError, DamagedFile: as `restore`.
  """
  until = time.monotonic() + _PATIENCE
  former: list[pathlib.Path] = []
  unchanged = 0
  while True:
    there = _files(folder)
    unchanged = unchanged + 1 if there == former else 0
    former = there
    try:
      chosen = best(folder)
      return None if chosen is None else restore(folder, chosen, like)[0]
    except InputError:
      if unchanged == len(_PAUSES) or time.monotonic() > until:
        raise
      time.sleep(_PAUSES[unchanged])


def verify(folder: pathlib.Path) -> int:
  """Checks all arrays of all checkpoints in a folder, also those that only training reads.

  Returns: the number of arrays. Raises: DamagedFile, as `restore`.
  """
  count = 0
  for epoch in epochs(folder):
    _require_same_value(folder, epoch)
    for name, saved in _about(folder, epoch)["arrays"].items():
      path = folder / str(epoch) / name
      # Without the caller's classes a saved tuple is read as a list, which changes names alone.
      found = _hashes(_read(path, _saved_tree(path)))
      if sorted(found.values()) != sorted(saved.values()):
        raise _damaged(folder, epoch, f"the arrays of {name} are not those that were saved")
      count += len(saved)
  return count


def _saved_tree(path: pathlib.Path) -> Any:
  """The structure of a saved pytree, as ShapeDtypeStructs. Raises DamagedFile."""
  import orbax.checkpoint as ocp

  logger = logging.getLogger("absl")
  former = logger.level
  logger.setLevel(logging.ERROR)  # of items of a checkpoint Orbax says that they are none
  try:
    with plain_path(path) as plain, ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
      tree = reader.metadata(plain).item_metadata.tree
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)
  except Exception:  # whatever Orbax raises for what it cannot read
    raise _damaged(
      path.parent.parent, int(path.parent.name), f"its {path.name} cannot be read"
    ) from None
  finally:
    logger.setLevel(former)


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
  """Everything in the folders of complete checkpoints."""
  found: list[pathlib.Path] = []
  for epoch in epochs(folder):
    for parent, folders, files in os.walk(folder / str(epoch)):
      found += [pathlib.Path(parent, name) for name in (*folders, *files)]
  return found


def _about(folder: pathlib.Path, epoch: int) -> dict[str, Any]:
  """What a checkpoint says about itself. Raises DamagedFile."""
  content = None
  with contextlib.suppress(OSError, ValueError, RecursionError):
    # The file of Orbax's JsonSave, read without its manager, which other processes may disturb.
    content = unsealed(json.loads((folder / str(epoch) / _META / "metadata").read_text("utf-8")))
  if content is None or content.get("epoch") != epoch:
    raise _damaged(folder, epoch, "what it says about itself is missing or not what was saved")
  return content


def _require_same_value(folder: pathlib.Path, epoch: int) -> None:
  """Raises DamagedFile where Orbax would rank a checkpoint by another value."""
  metrics = None
  with contextlib.suppress(OSError, ValueError, RecursionError):
    metrics = json.loads((folder / str(epoch) / "metrics" / "metrics").read_text("utf-8"))
  value = _about(folder, epoch)["value"]
  if metrics != {"value": value, "epoch": float(epoch)}:
    raise _damaged(folder, epoch, "its metrics are missing or not those that were saved")


def _damaged(folder: pathlib.Path, epoch: int, what: str) -> DamagedFile:
  return DamagedFile(
    f"{folder / str(epoch)}: damaged ({what}); restore it from a copy, or delete the checkpoints "
    "folder and run launch.train with this `workdir` again to train anew"
  )


def _read(path: pathlib.Path, like: Any) -> Any:
  """One saved pytree. Raises DamagedFile where Orbax cannot read it."""
  import orbax.checkpoint as ocp

  with plain_path(path) as plain, _collected_in_silence():
    try:
      with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        return checkpointer.restore(
          plain, args=ocp.args.StandardRestore(jax.tree.map(_placed, like))
        )
    # Orbax raises a bare Exception where an array cannot be read, with the whole specification.
    except Exception as error:
      if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        raise
    time.sleep(_PAUSES[0])  # for reads that are still going on
    gc.collect(1)
  raise _damaged(path.parent.parent, int(path.parent.name), f"its {path.name} cannot be read")


@contextlib.contextmanager
def _collected_in_silence() -> Iterator[None]:
  """Where one array cannot be read, Orbax drops the coroutines that read the others, and Python
  would print a traceback for each when it collects them, or when its read ends."""
  former = sys.unraisablehook
  sys.unraisablehook = lambda _: None
  try:
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
      yield
  finally:
    sys.unraisablehook = former


def _placed(leaf: Any) -> jax.ShapeDtypeStruct:
  """Shape, dtype and sharding of a leaf to be restored."""
  sharding = getattr(leaf, "sharding", None)
  if sharding is None:
    sharding = SingleDeviceSharding(jax.local_devices()[0])
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _form(leaf: Any) -> str:
  return f"{leaf.dtype}{list(leaf.shape)}".replace(" ", "")


def _names(tree: Any) -> dict[str, str]:
  """Dtype and shape of each leaf, by path."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(path): _form(leaf) for path, leaf in leaves}


def _hashes(tree: Any) -> dict[str, str]:
  """Dtype, shape and hash of each leaf, by path."""
  return {
    jax.tree_util.keystr(path): f"{_form(leaf)} {hashlib.sha256(_bytes_of(leaf)).hexdigest()[:32]}"
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def _bytes_of(leaf: jax.Array) -> bytes | memoryview:
  """The values of an array that this process holds whole."""
  here = leaf if leaf.is_fully_addressable else leaf.addressable_data(0)
  return np.ascontiguousarray(here).reshape(-1).view(np.uint8).data
