"""What the suites of launch.benchmark share: timing, counting, and the table."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from gatrec_jax import runs
from gatrec_jax.errors import InputError
from launch.benchmarks.peers.process import Process
from launch.cli.grid import Table, amount

if TYPE_CHECKING:
  from launch.benchmarks.hardware import Rates

Json = dict[str, Any]
HEADER = (
  "",
  "ours, s",
  "compile, s",
  "peer, s",
  "× as fast",
  "peak, MiB",
  "peer peak, MiB",
  "share of bound",
  "bound by",
)


@dataclasses.dataclass(frozen=True)
class Counts:
  """A lower bound on the work of a computation, from first principles.

  Attributes: bytes: read from and written to memory. flops: additions and multiplications.
  """

  bytes: float
  flops: float


@dataclasses.dataclass
class Figure:
  """One line of a table.

  Attributes:
    name: what was measured. seconds: of each timed run. compile_seconds: before the first run.
    counts: its lower bound; None if it was not counted.
    compiled: `flops` and `bytes` from XLA's cost analysis of the program (loop bodies count once),
      and `temporary_mb` and `argument_mb` from its memory analysis.
    peak_mb: peak resident memory during the runs.
    peer_seconds, peer_peak_mb: of the peer; empty and None without one.
  """

  name: str
  seconds: list[float]
  compile_seconds: float = 0.0
  counts: Counts | None = None
  compiled: Json = dataclasses.field(default_factory=dict)
  peak_mb: float | None = None
  peer_seconds: list[float] = dataclasses.field(default_factory=list)
  peer_peak_mb: float | None = None


def measure(
  name: str,
  run: Callable[[], Any],
  *,
  repeats: int,
  counts: Counts | None = None,
  peer: Callable[[], Json] | None = None,
  compiled: Json | None = None,
) -> Figure:
  """Times repeated runs of a function.

  Args:
    name: of the figure. run: returns arrays, which are waited for. One call before the timed ones
      compiles.
    repeats: timed runs. With a peer, half of them come before it and half after it.
    counts: the lower bound. compiled: XLA's analysis, as in `Figure`.
    peer: returns `seconds` (of several runs) and optionally `peak_memory_mb`.
  """
  runs.reset_peak_memory()
  begun = time.perf_counter()
  jax.block_until_ready(run())
  first = time.perf_counter() - begun
  before = -(-repeats // 2) if peer else repeats
  seconds = [_timed(run) for _ in range(before)]
  figure = Figure(name, seconds, counts=counts, compiled=compiled or {})
  figure.peak_mb = runs.peak_memory_mb()
  if peer is not None:
    time.sleep(0.5)  # our threads spin for a while before they sleep
    answer = peer()
    figure.peer_seconds, figure.peer_peak_mb = answer["seconds"], answer.get("peak_memory_mb")
    time.sleep(0.5)
    seconds += [_timed(run) for _ in range(repeats - before)]
  figure.compile_seconds = max(first - statistics.median(seconds), 0.0)
  return figure


def _timed(run: Callable[[], Any]) -> float:
  begun = time.perf_counter()
  jax.block_until_ready(run())
  return time.perf_counter() - begun


def analysis(compiled: jax.stages.Compiled) -> Json:
  """XLA's analysis of a compiled program, as in `Figure.compiled`."""
  found: Json = {}
  with contextlib.suppress(NotImplementedError, TypeError):
    cost = compiled.cost_analysis() or {}
    found |= {"flops": cost.get("flops"), "bytes": cost.get("bytes accessed")}
  with contextlib.suppress(NotImplementedError, AttributeError):
    memory = compiled.memory_analysis()
    found |= {
      "temporary_mb": memory.temp_size_in_bytes / 2**20,
      "argument_mb": memory.argument_size_in_bytes / 2**20,
    }
  return found


def peer_python(flags: Mapping[str, Any]) -> str | None:
  """The Python that --compare and --peer_python ask for, or None without them.

  Raises: InputError if it does not exist, or would be this one, which lacks the package.
  """
  python, package = flags["peer_python"], flags["compare"] or "torch"
  if not (flags["compare"] or python):
    return None
  if python is None and importlib.util.find_spec(package) is None:
    raise InputError(
      f"this Python has no {package}; `peer_python` names one that has it",
      field="compare",
      value=package,
    )
  python = python or sys.executable
  if shutil.which(python) is None:
    raise InputError(
      f"no such program; name a Python that has {package}", field="peer_python", value=python
    )
  return python


def start_peer(python: str, script: str) -> Process:
  """Starts a script of the folder peers with that Python."""
  quiet = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
  where = Path(__file__).parent / "peers" / script
  return Process([python, str(where)], what=f"--peer_python={python}", environment=quiet)


@contextlib.contextmanager
def peer_process(flags: Mapping[str, Any], script: str) -> Iterator[Process | None]:
  """Yields the peer's process, or None if no peer was asked for. Raises: as `peer_python`."""
  python = peer_python(flags)
  if python is None:
    yield None
    return
  with start_peer(python, script) as process:
    yield process


def peer_device(about: Json | None) -> str:
  """`cuda` or `cpu`, the kind of our device. Raises InputError if only the peer lacks CUDA."""
  if jax.default_backend() not in ("gpu", "cuda"):
    return "cpu"
  if about is not None and not about["cuda"]:
    raise InputError("its torch has no CUDA; set JAX_PLATFORMS=cpu", field="compare", value="torch")
  return "cuda"


def plain(figure: Figure, rates: Rates) -> Json:
  """A figure and the values derived from it, ready for JSON."""
  tree = dataclasses.asdict(figure)
  tree["median_seconds"] = statistics.median(figure.seconds)
  if figure.peer_seconds:
    tree["peer_median_seconds"] = statistics.median(figure.peer_seconds)
    tree["times_as_fast"] = tree["peer_median_seconds"] / tree["median_seconds"]
  if figure.counts:
    by_bytes = figure.counts.bytes / rates.bandwidth
    by_flops = figure.counts.flops / rates.flops
    tree["bound_seconds"] = max(by_bytes, by_flops)
    tree["bound_by"] = "memory" if by_bytes > by_flops else "arithmetic"
    tree["share_of_bound"] = tree["bound_seconds"] / tree["median_seconds"]
  return tree


def table(results: Json) -> Table:
  """The table of a suite of figures."""
  machine = results["machine"]
  rows = [_row(tree) for tree in results["figures"]]
  notes = [
    f"median (minimum–maximum) of {results['repeats']} runs after one that compiles; seed 0",
    f"bound: bytes and FLOPs counted from first principles over {machine['bandwidth'] / 1e9:.3g} "
    f"GB/s {machine['bandwidth_source']} and {machine['flops'] / 1e12:.3g} TFLOP/s "
    f"{machine['flops_source']}",
    *results["notes"],
  ]
  return Table(f"{results['title']} · {machine['device']}", HEADER, rows, notes)


def _row(tree: Json) -> tuple[str, ...]:
  peer = tree["peer_seconds"]

  return (
    tree["name"],
    _spread(tree["seconds"]),
    amount(tree["compile_seconds"]),
    _spread(peer) if peer else "–",
    f"{tree['times_as_fast']:.2f}" if peer else "–",
    _megabytes(tree["peak_mb"]),
    _megabytes(tree["peer_peak_mb"]),
    f"{tree['share_of_bound']:.0%}" if tree.get("bound_by") else "–",
    tree.get("bound_by", "–"),
  )


def _megabytes(value: float | None) -> str:
  return "–" if value is None else f"{value:.0f}"


def _spread(seconds: Sequence[float]) -> str:
  middle = amount(statistics.median(seconds))
  if len(seconds) == 1:
    return middle
  return f"{middle} ({amount(min(seconds))}–{amount(max(seconds))})"


def suite_results(
  title: str,
  figures: Sequence[Figure],
  *,
  rates: Rates,
  repeats: int,
  notes: Sequence[str] = (),
  peer: Json | None = None,
) -> Json:
  """The results of a suite as plain values, for `table` and the JSON file."""
  about = (
    []
    if peer is None
    else ["peer: " + ", ".join(f"{name} {value}" for name, value in peer.items() if name != "cuda")]
  )
  return {
    "title": title,
    "machine": dataclasses.asdict(rates),
    "repeats": repeats,
    "peer": peer,
    "figures": [plain(figure, rates) for figure in figures],
    "notes": [*about, *notes],
  }
