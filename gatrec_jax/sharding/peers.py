"""What the processes of a run tell each other while they read data, each a part of it.

JAX's distributed runtime is what they wait by. The contents go through files in a folder that all
of them see, as checkpoints do: they may be larger than what devices hold, and a 64-bit number
stays one.
"""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import jax
import numpy as np

from gatrec_jax.errors import InputError

if TYPE_CHECKING:
  import pyarrow as pa


class Peers(Protocol):
  """The processes that share the rows of a data set. All of them make the same calls in the same
  order.

  Attributes: index, count: of this process, and of all.
  """

  index: int
  count: int

  def gather(self, table: pa.Table) -> list[pa.Table]:
    """The table of each process, by their indices."""

  def exchange(self, tables: Sequence[pa.Table]) -> list[pa.Table]:
    """The tables that each process has for this one. Args: tables: one for each process."""

  def raise_together(self, error: InputError | None) -> None:
    """Raises the error of the first process that has one, in all of them."""


class Alone:
  """The peers of a process that reads everything itself."""

  index, count = 0, 1

  def gather(self, table: pa.Table) -> list[pa.Table]:
    return [table]

  def exchange(self, tables: Sequence[pa.Table]) -> list[pa.Table]:
    return list(tables)

  def raise_together(self, error: InputError | None) -> None:
    if error is not None:
      raise error


class Processes:
  """All processes of `jax.distributed`, which see one folder."""

  def __init__(self, folder: pathlib.Path) -> None:
    """Args: folder: for the files; made here, and removed by `close`."""
    self.index, self.count = jax.process_index(), jax.process_count()
    self._folder, self._round = folder, 0
    folder.mkdir(parents=True, exist_ok=True)

  def gather(self, table: pa.Table) -> list[pa.Table]:
    self._write(f"{self.index}", table)
    self._wait()
    return [self._read(f"{other}") for other in range(self.count)]

  def exchange(self, tables: Sequence[pa.Table]) -> list[pa.Table]:
    for other, table in enumerate(tables):
      self._write(f"{self.index}-{other}", table)
    self._wait()
    return [self._read(f"{other}-{self.index}") for other in range(self.count)]

  def raise_together(self, error: InputError | None) -> None:
    import pyarrow as pa

    own = [""] * 3 if error is None else [error.message, error.field or "", str(error.value or "")]
    for table in self.gather(pa.table({"error": own})):
      message, field, value = table["error"].to_pylist()
      if message:
        raise InputError(message, field=field or None, value=value or None)

  def close(self) -> None:
    """Removes the folder, which nothing that was returned may be read from any more."""
    self._wait()
    if self.index == 0:
      # On NFS, what another process still maps may be left.
      shutil.rmtree(self._folder, ignore_errors=True)
    self._wait()

  def _wait(self) -> None:
    from jax.experimental import multihost_utils

    self._round += 1
    multihost_utils.sync_global_devices(f"gatrec data {self._round}")

  def _write(self, name: str, table: pa.Table) -> None:
    import pyarrow as pa

    path = self._folder / f"{self._round}-{name}.arrow"
    with pa.ipc.new_file(str(path), table.schema) as file:
      file.write_table(table)

  def _read(self, name: str) -> pa.Table:
    """Mapped, so that only what is used becomes memory."""
    import pyarrow as pa

    path = self._folder / f"{self._round - 1}-{name}.arrow"
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def own_folder(workdir: pathlib.Path) -> pathlib.Path:
  """The folder that this process writes to: the run folder, or for all but the first of several
  processes a subfolder of it."""
  index = jax.process_index()
  return workdir / "processes" / str(index) if index else workdir


def common_folder(folder: pathlib.Path) -> pathlib.Path:
  """The run folder of all processes, where checkpoints lie. Args: folder: of `own_folder`."""
  return folder.parent.parent if jax.process_index() else folder


ALONE = Alone()


def sum_of(peers: Peers, values: Any) -> Any:
  """The sums over all processes of a number or of each number of an array of one length."""
  return np.sum(_gathered(peers, values), axis=0)


def any_of(peers: Peers, flags: Any) -> Any:
  """Whether a flag, or each flag of an array of one length, is set in any process."""
  return np.any(_gathered(peers, flags), axis=0)


def place_of(peers: Peers, count: int) -> tuple[int, int]:
  """How many rows come before those of this process, and how many there are in all, where this
  process has `count` and the processes follow each other."""
  counts = [int(other) for other in _gathered(peers, count)]
  return sum(counts[: peers.index]), sum(counts)


def _gathered(peers: Peers, values: Any) -> list[np.ndarray]:
  import pyarrow as pa

  own = np.asarray(values)
  if peers.count == 1:
    return [own]
  tables = peers.gather(pa.table({"values": own.reshape(-1)}))
  return [table["values"].to_numpy().reshape(own.shape) for table in tables]
