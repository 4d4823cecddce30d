"""The programs that read a run folder, with what each of them leaves to be compared."""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

# Beside these, two processes that read the same give the same values.
_VARYING = ("second", "memory", "environment", "lists_per_second", "digest", "files", "started")
RUN, REASONS = "run", "reasons.jsonl"
_TABLE = ("--dataset=ratings.csv", "--item_metadata=items.jsonl")
_DATA = (*_TABLE, "--encoder=lexical")
_TRAIN = (
  *_DATA,
  "--preset=tiny",
  "--set=epochs=2",
  "--set=evaluate_every=1",
  "--set=layer_widths=16",
  "--set=heads=1",
  "--bootstrap=20",
)
_COMPARE = (*_DATA, "--models=popularity,ease", "--split_seeds=0", "--bootstrap=20")


class Reader(NamedTuple):
  """A call of a program.

  Attributes:
    program: its name. flags: with paths within the folder that holds everything.
    reads: beginnings of the `artifact`s that it reads.
    outputs: files and folders that it writes.
    makes: whether the first call makes what later calls read.
  """

  program: str
  flags: tuple[str, ...]
  reads: tuple[str, ...]
  outputs: tuple[str, ...] = ()
  makes: bool = False


# Everything that a run is read from.
_OF_RUN = tuple(
  f"{RUN}/{name}"
  for name in ("config", "data", "profiles", "embeddings", "checkpoints", "results", "user_values")
)
READERS: Mapping[str, Reader] = {
  "train": Reader(
    "train",
    (*_TRAIN, f"--workdir={RUN}"),
    (*_OF_RUN, f"{RUN}/recommendations", f"{RUN}/metrics"),
    (RUN,),
    makes=True,
  ),
  "rerank": Reader(
    "rerank",
    (f"--workdir={RUN}", "--top_candidates=4", "--history=3"),
    (*_OF_RUN, f"{RUN}/rerank", f"{RUN}/out_of_fold", "cache/builtin"),
    (f"{RUN}/rerank",),
    makes=True,
  ),
  "explain --out": Reader(
    "explain",
    (f"--workdir={RUN}", "--users=1,2,3", "--top_n=2", f"--out={REASONS}"),
    (REASONS,),
    (REASONS,),
    makes=True,
  ),
  "search": Reader(
    "train",
    (*_DATA, "--model=ease", "--bootstrap=20", "--search=2", "--workdir=searched"),
    ("searched",),
    ("searched",),
    makes=True,
  ),
  "compare": Reader(
    "compare",
    (*_COMPARE, "--workdir=compared", "--json_out=out.json"),
    ("compared",),
    ("out.json",),
    makes=True,
  ),
  "write_profiles": Reader(
    "write_profiles",
    (*_TABLE, "--llm=model", "--test_share=0.2", "--batch_size=4", "--workdir=written"),
    ("written",),
    ("written/written",),
    makes=True,
  ),
  "recommend": Reader(
    "recommend", (f"--workdir={RUN}", "--users=1,2", "--out=out.csv"), _OF_RUN, ("out.csv",)
  ),
  "recommend --liked": Reader(
    "recommend", (f"--workdir={RUN}", "--liked=3,5", "--out=out.csv"), _OF_RUN, ("out.csv",)
  ),
  "recommend --export_embeddings": Reader(
    "recommend", (f"--workdir={RUN}", "--export_embeddings=vectors"), _OF_RUN, ("vectors",)
  ),
  "explain": Reader(
    "explain", (f"--workdir={RUN}", "--users=1", "--top_n=2"), (*_OF_RUN, "cache/author")
  ),
  "evaluate": Reader(
    "evaluate",
    (f"--workdir={RUN}", "--bootstrap=20", "--json_out=out.json"),
    _OF_RUN,
    ("out.json",),
  ),
  "evaluate --recommendations": Reader(
    "evaluate",
    (f"--recommendations={RUN}/recommendations.parquet", "--bootstrap=20", "--json_out=out.json"),
    (f"{RUN}/recommendations", f"{RUN}/results", f"{RUN}/config", f"{RUN}/data"),
    ("out.json",),
  ),
  "compare --runs": Reader(
    "compare",
    (f"--runs={RUN},compared/random-0/ease-0", "--json_out=out.json"),
    (f"{RUN}/results", f"{RUN}/user_values", f"{RUN}/config", "compared"),
    ("out.json",),
  ),
}


def artifact(file: str) -> str:
  """The kind of thing that a file belongs to: "run/data", "run/results", "cache/builtin"."""
  parts = pathlib.PurePosixPath(file).parts
  if parts[0] in (RUN, "cache") and len(parts) > 1:
    return f"{parts[0]}/{pathlib.PurePosixPath(parts[1]).stem}"
  return parts[0]


def contents(place: pathlib.Path, reader: Reader) -> dict[str, Any]:
  """What a call left, by file, without times and other values that vary between processes."""
  found: dict[str, Any] = {}
  for name in reader.outputs:
    path = place / name
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
      if not any(part.startswith(".") for part in file.relative_to(place).parts):
        found[file.relative_to(place).as_posix()] = _content(file)
  return {name: value for name, value in found.items() if value is not None}


def _content(path: pathlib.Path) -> Any:
  reads: dict[str, Callable[[pathlib.Path], Any]] = {
    ".json": lambda path: _steady(json.loads(path.read_text("utf-8"))),
    # Lines that were damaged may be made again at the end.
    ".jsonl": lambda path: sorted(
      json.dumps(_steady(json.loads(line))) for line in path.read_text("utf-8").split("\n")[:-1]
    ),
    ".parquet": _table,
    ".npy": lambda path: hashlib.sha256(np.load(path).tobytes()).hexdigest(),
    ".csv": lambda path: path.read_text("utf-8"),
    ".txt": lambda path: path.read_text("utf-8"),
  }
  # Checkpoints are compared by what is computed from them.
  if "checkpoints" in path.parts or path.suffix not in reads or path.name == "metrics.jsonl":
    return None
  return reads[path.suffix](path)


def _table(path: pathlib.Path) -> Any:
  import pyarrow.parquet as pq

  return _steady(pq.read_table(path).to_pylist())


def _steady(tree: Any) -> Any:
  """Without values that vary."""
  if isinstance(tree, dict):
    return {
      name: _steady(value)
      for name, value in tree.items()
      if not any(word in name for word in _VARYING)
    }
  if isinstance(tree, list):
    return [_steady(value) for value in tree]
  return "nan" if isinstance(tree, float) and np.isnan(tree) else tree
