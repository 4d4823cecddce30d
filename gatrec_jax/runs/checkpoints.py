"""Checkpoints through Orbax: the latest (to go on from) and the best (to serve)."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import time
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import SingleDeviceSharding

from gatrec_jax.errors import InputError
from gatrec_jax.runs.paths import plain_path

_WAITS = (0.0, 0.1, 0.2, 0.4)  # seconds before a checkpoint that cannot be read is tried again
_SPARE_BYTES = 1 << 20  # metadata of a checkpoint, and room for the logs beside it


class Checkpoints:
  """The checkpoints of one run, by epoch.

  Saving is asynchronous; `wait` returns when everything is on disk. A process killed during a save
  leaves the earlier checkpoints readable.
  """

  def __init__(self, folder: pathlib.Path, *, read_only: bool = False) -> None:
    """Opens or creates `folder`. Remains of interrupted saves are removed.

    Args: read_only: nothing is created, removed or saved, so that another process may be saving.
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
    self._folder = folder.absolute()
    if not read_only:
      folder.mkdir(parents=True, exist_ok=True)
    self._link = contextlib.ExitStack()
    self._plain = self._link.enter_context(plain_path(folder))
    self._ocp = ocp
    self._manager = ocp.CheckpointManager(
      self._plain,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=keep,
        best_fn=value,
        best_mode="max",
        create=False,
        cleanup_tmp_directories=not read_only,
      ),
    )

  def save(
    self, epoch: int, trees: Mapping[str, Any], *, value: float, meta: dict[str, Any]
  ) -> None:
    """Saves named pytrees and the plain dictionary `meta` under `epoch`.

    Args:
      epoch: at least 1, larger than any before.
      trees: pytrees of arrays by name; the arrays may be donated once this returns.
      value: higher is better; decides which checkpoint is the best.
      meta: plain values.
    Raises:
      InputError: the disk is full. This is checked first, so that nothing is half-written.
    """
    needed = sum(leaf.nbytes for leaf in jax.tree.leaves(dict(trees))) + _SPARE_BYTES
    if (free := shutil.disk_usage(self._folder).free) < needed:
      raise InputError(
        f"{self._folder}: the disk is full ({free / 1e6:.1f} MB free, a checkpoint needs "
        f"{needed / 1e6:.1f} MB); make room and run again, it resumes from the last checkpoint"
      )
    ocp = self._ocp
    items = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
    args = ocp.args.Composite(**items, meta=ocp.args.JsonSave(meta))
    self._manager.save(epoch, args=args, metrics={"value": value, "epoch": float(epoch)})

  def latest(self) -> int | None:
    """The last saved epoch, None where there is none."""
    return self._manager.latest_step()

  def best(self) -> int | None:
    """The epoch with the highest value, None where there is none."""
    return self._manager.best_step()

  def restore(self, epoch: int, like: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The named pytrees and the meta of `epoch`.

    Args:
      epoch: one that is there.
      like: by name, what to restore: pytrees of arrays or ShapeDtypeStructs with the expected
        structure and shapes, and with where it is to lie, which is one device where nothing is
        said, on whatever devices it was saved. Names that were saved and are not asked for are not
        read.
    Raises:
      InputError: the checkpoint has another structure, other shapes, or cannot be read.
    """
    ocp = self._ocp
    items = {
      name: ocp.args.StandardRestore(jax.tree.map(_placed, tree)) for name, tree in like.items()
    }
    try:
      restored = self._manager.restore(
        epoch, args=ocp.args.Composite(**items, meta=ocp.args.JsonRestore())
      )
    # Orbax raises a bare Exception where an array cannot be read.
    except Exception as error:
      message = str(error).replace(str(self._plain), str(self._folder))
      reason = " ".join(message.split())[:200] or repr(error)
      raise InputError(
        f"{self._folder / str(epoch)}: not a checkpoint of this configuration, or damaged "
        f"({reason}); use another `workdir` or delete the checkpoints folder"
      ) from error
    return {name: restored[name] for name in like}, restored["meta"]

  def wait(self) -> None:
    """Returns when every save is on disk."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits, then releases threads and files."""
    self._manager.close()
    self._link.close()


def read_best(folder: pathlib.Path, like: Mapping[str, Any]) -> dict[str, Any] | None:
  """The named pytrees of the best checkpoint; None where there is no checkpoint.

  Nothing is written, and training may go on in the same folder: where it replaces the checkpoint
  meanwhile, the new one is read.

  Args: like: as in `Checkpoints.restore`.
  Raises: InputError: as `Checkpoints.restore`.
  """
  for wait in _WAITS:
    try:
      return _best_now(folder, like)
    # It may be one that training is just removing.
    except (InputError, FileNotFoundError):
      time.sleep(wait)
  try:
    return _best_now(folder, like)
  except FileNotFoundError as error:
    raise InputError(f"{folder}: cannot be read ({error}); run again") from error


def _best_now(folder: pathlib.Path, like: Mapping[str, Any]) -> dict[str, Any] | None:
  checkpoints = Checkpoints(folder, read_only=True)
  try:
    best = checkpoints.best()
    return None if best is None else checkpoints.restore(best, like)[0]
  finally:
    checkpoints.close()


def _placed(leaf: Any) -> jax.ShapeDtypeStruct:
  """Shape, dtype and sharding of a leaf to be restored."""
  sharding = getattr(leaf, "sharding", None)
  if sharding is None:
    sharding = SingleDeviceSharding(jax.local_devices()[0])
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
