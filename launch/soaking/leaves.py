"""Compares what two folders hold, leaf by leaf: arrays, columns, values of JSON, lines, bytes."""

from __future__ import annotations

import hashlib
import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from gatrec_jax.runs import seals

# Differ between two runs of one command: time, memory, and what was still in a cache.
_UNEQUAL = re.compile(
  r"(^|_|\b)(seconds?|time|mb|memory|per_second|environment|started|cached|encoded|speed)($|_|\b)"
)
_IGNORED = frozenset((".lock", "compiled"))
# Orbax's files beside the arrays name times and processes.
_MARKS = frozenset(("_CHECKPOINT_METADATA", "commit_success.txt", "descriptor"))


def leaves(folder: pathlib.Path) -> dict[str, str]:
  """A hash of every leaf in a folder, by its name.

  A leaf is an array of a checkpoint, of a .npy or a .npz file, a column of a Parquet table, a value
  in JSON (also in a line of JSONL), or else the bytes of a file. Times, memory and the environment
  are left out, and so are compiled programs.
  """
  return dict(_in_folder(folder, ""))


def differing(ours: dict[str, str], whole: dict[str, str]) -> list[str]:
  """The names of leaves that differ, with "left over" or "missing" where only one side has them."""
  found = [f"{name}: left over" for name in sorted(ours.keys() - whole.keys())]
  found += [f"{name}: missing" for name in sorted(whole.keys() - ours.keys())]
  return found + sorted(name for name in ours.keys() & whole.keys() if ours[name] != whole[name])


def _in_folder(folder: pathlib.Path, start: str) -> Iterator[tuple[str, str]]:
  for path in sorted(folder.iterdir()):
    name = start + path.name
    if path.name in _IGNORED or path.name in _MARKS:
      continue
    if path.is_dir() and not path.is_symlink():
      yield name + "/", ""
      yield from (
        _of_arrays(path, name) if (path / "_METADATA").exists() else _in_folder(path, name + "/")
      )
    else:
      yield from _in_file(path, name)


def _of_arrays(path: pathlib.Path, name: str) -> Iterator[tuple[str, str]]:
  """The arrays of a saved pytree."""
  import jax
  import orbax.checkpoint as ocp

  from gatrec_jax.runs.paths import plain_path

  with plain_path(path) as plain, ocp.StandardCheckpointer() as checkpointer:
    tree = checkpointer.restore(plain)
  for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
    yield f"{name}{jax.tree_util.keystr(keys)}", _of_array(np.asarray(leaf))


def _in_file(path: pathlib.Path, name: str) -> Iterator[tuple[str, str]]:
  try:
    yield from _READERS.get(path.suffix, _of_bytes)(path, name)
  except Exception as error:  # whatever a reader of a damaged file raises is a difference
    yield name, f"cannot be read: {type(error).__name__}"


def _of_bytes(path: pathlib.Path, name: str) -> Iterator[tuple[str, str]]:
  content = path.read_bytes()
  try:  # Orbax's own JSON files have no suffix
    yield from _sealed(json.loads(content), name)
  except ValueError:
    yield name, hashlib.sha256(content).hexdigest()


def _of_json(path: pathlib.Path, name: str) -> Iterator[tuple[str, str]]:
  tree = json.loads(path.read_bytes())
  if isinstance(tree, dict) and {"digest", "files"} <= tree.keys():
    seals.require_intact(path)  # its own hash too
    del tree["digest"]
    tree["files"] = sorted(tree["files"])
  yield from _sealed(tree, name)


def _sealed(tree: Any, name: str) -> Iterator[tuple[str, str]]:
  """The values of a tree; of its own hash, which covers times too, whether it is right."""
  if isinstance(tree, dict) and "digest" in tree:
    if seals.unsealed(tree) is None:
      yield f"{name}: digest", "wrong"
    tree = {key: value for key, value in tree.items() if key != "digest"}
  yield from _in_json(tree, name)


def _of_json_lines(path: pathlib.Path, name: str) -> Iterator[tuple[str, str]]:
  content = path.read_bytes()
  if content and not content.endswith(b"\n"):
    yield f"{name}: end", "no line"
  for number, line in enumerate(content.splitlines(), 1):
    tree = json.loads(line)
    if not (isinstance(tree, dict) and _UNEQUAL.search(str(tree.get("name", "")))):
      yield from _sealed(tree, f"{name}: line {number}")


def _in_json(tree: Any, name: str) -> Iterator[tuple[str, str]]:
  if isinstance(tree, dict) and tree:
    for key, value in tree.items():
      if not _UNEQUAL.search(key):
        yield from _in_json(value, f"{name}: {key}")
  elif isinstance(tree, list) and any(isinstance(value, dict | list) for value in tree):
    for place, value in enumerate(tree):
      yield from _in_json(value, f"{name}: {place}")
  else:
    yield name, json.dumps(tree)


def _of_table(path: pathlib.Path, name: str) -> Iterator[tuple[str, str]]:
  import pyarrow.parquet as pq

  table = pq.read_table(path)
  for column in table.column_names:
    if not _UNEQUAL.search(column):
      values = repr((str(table.schema.field(column).type), table[column].to_pylist()))
      yield f"{name}: {column}", hashlib.sha256(values.encode()).hexdigest()


def _of_numpy(path: pathlib.Path, name: str) -> Iterator[tuple[str, str]]:
  yield name, _of_array(np.load(path, allow_pickle=False))


def _of_archive(path: pathlib.Path, name: str) -> Iterator[tuple[str, str]]:
  with np.load(path, allow_pickle=False) as arrays:
    for key in arrays.files:
      yield f"{name}: {key}", _of_array(arrays[key])


def _of_array(array: np.ndarray) -> str:
  values = np.ascontiguousarray(array).tobytes()
  return f"{array.dtype}{array.shape} {hashlib.sha256(values).hexdigest()}"


_READERS = {
  ".json": _of_json,
  ".jsonl": _of_json_lines,
  ".parquet": _of_table,
  ".npy": _of_numpy,
  ".npz": _of_archive,
}
