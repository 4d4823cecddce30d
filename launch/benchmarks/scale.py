"""Suite `scale`: a training step on graphs of 10⁵ to 2.5 · 10⁷ ratings, and its memory on eight
devices.

Each graph is measured in a process of its own, so that peaks do not mix. The eight devices are
simulated on this CPU; only the memory that XLA's analysis gives for each of them is reported.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
from collections.abc import Mapping
from typing import Any

from gatrec_jax.runs.log import Log
from launch.benchmarks.hardware import device_rates
from launch.benchmarks.measure import Figure, Json, suite_results
from launch.benchmarks.peers.process import ROOT, Process

RATINGS = (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000, 25_000_000)
WIDTH, LAYERS, BATCH = 64, 2, 8192
MESH_RATINGS, DEVICES = 5_000_000, 8


def run_scale(flags: Mapping[str, Any], *, log: Log) -> Json:
  """Time and memory of a step for each size, and the prediction for 10⁹ ratings."""
  figures, notes = [], []
  for ratings in RATINGS:
    log.info(f"scale: {ratings:,} ratings")
    with _child() as child:
      answer = child.ask("step", ratings=ratings, repeats=flags["repeats"])
    figure = Figure(
      f"{ratings:,} ratings, {answer['nodes']:,} nodes",
      answer["seconds"],
      answer["compile_seconds"],
      peak_mb=answer["peak_mb"],
    )
    figures.append(figure)
    step = statistics.median(answer["seconds"])
    predicted = predicted_bytes(ratings, answer["nodes"])
    notes.append(
      f"{ratings:,}: {1e9 * step / (2 * ratings * LAYERS):.0f} ns per edge and layer, peak "
      f"{answer['peak_mb'] / 1024:.2f} GiB; the formula predicts {predicted / 2**30:.2f} GiB on "
      f"the device, and an idle process takes {answer['idle_mb'] / 1024:.2f} GiB"
    )
  log.info(f"scale: {MESH_RATINGS:,} ratings on one device and on {DEVICES}")
  memory = {}
  for devices in (1, DEVICES):
    with _child(devices) as child:
      memory[devices] = child.ask("memory", ratings=MESH_RATINGS, devices=devices)
  one, many = memory[1], memory[DEVICES]
  for name in ("arguments", "temporaries", "together"):
    notes.append(
      f"{MESH_RATINGS:,} ratings, {name} of a step's program per device: "
      f"{one[name] / 2**20:.0f} MiB on one, {many[name] / 2**20:.0f} MiB on {DEVICES} "
      f"(1/{one[name] / many[name]:.1f})"
    )
  notes.append(
    f"{MESH_RATINGS:,} ratings, sharded arrays (edges, node tables, optimizer) per device: "
    f"{one['sharded'] / 2**20:.0f} MiB on one, {many['sharded'] / 2**20:.0f} MiB on {DEVICES} "
    f"(1/{one['sharded'] / many['sharded']:.1f})"
  )
  pod = predicted_bytes(10**9, 8_600_000, devices=256)
  notes.append(
    f"formula: {FORMULA}; 10⁹ ratings, 8.6 · 10⁶ nodes on 256 devices: {pod / 2**30:.1f} GiB each"
  )
  results = suite_results(
    f"a step of {LAYERS} layers, 1 head, d {WIDTH}, batch {BATCH}, by graph size",
    figures,
    rates=device_rates("float32"),
    repeats=flags["repeats"],
    notes=notes,
  )
  return results | {"memory": {str(devices): found for devices, found in memory.items()}}


FORMULA = "(97 R + 3.5 · 256 N) ÷ devices + 21 R + 8 · 256 N bytes, R ratings, N nodes"


def predicted_bytes(ratings: int, nodes: int, *, devices: int = 1) -> float:
  """Bytes that a step needs on each device.

  The constants come from the sizes of its arguments, and from XLA's analysis of its temporaries on
  graphs of 1, 5 and 10 million ratings. Sharded are the edges (two per rating: 12 bytes each, as
  much again in the order of `blocks`, copies in the loop over steps, and gathered chunks) and the
  node tables (parameters, gradient, two moments). Replicated are the positives with the tables for
  negatives (11 bytes per rating, and the loop's copies), and the rows that attention reads and
  aggregates for all nodes.
  """
  table = 4 * WIDTH * nodes
  return (97 * ratings + 3.5 * table) / devices + 21 * ratings + 8 * table


@contextlib.contextmanager
def _child(devices: int = 1) -> Any:
  flags = os.environ.get("XLA_FLAGS", "")
  environment = {
    "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
  }
  if devices > 1:
    environment |= {
      "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={devices}",
      "JAX_PLATFORMS": "cpu",
    }
  command = [sys.executable, "-m", "launch.benchmarks.peers.gatrec_step"]
  with Process(command, what="measuring a step", environment=environment) as process:
    yield process
