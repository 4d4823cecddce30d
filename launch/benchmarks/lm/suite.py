"""Suite `lm`: generation and scoring, beside transformers with PyTorch.

Our runs and the peer's alternate within one call, so that both see the same machine; one waits
while the other works.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gatrec_jax.errors import InputError
from gatrec_jax.runs.log import Log
from launch.benchmarks.measure import peer_python, start_peer
from launch.benchmarks.peers.process import ROOT, Process

if TYPE_CHECKING:
  from gatrec_jax.lm.folders.load import LanguageModel
  from launch.benchmarks.hardware import Rates

CONTINUATION_TOKENS = 12
# Threads spin for a while after their work before they sleep.
SETTLE_SECONDS = 0.5
_CACHED_FROM = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
Json = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Settings:
  """What is measured. Every field is a flag's value; `folder` is that of --llm or None."""

  folder: Path | None
  workdir: Path
  random_shape: str
  dtype: str
  peer_python: str | None
  prompt_tokens: int
  max_tokens: int
  batch_sizes: tuple[int, ...]
  continuations: int
  repeats: int

  def __post_init__(self) -> None:
    least = {"prompt_tokens": 1, "max_tokens": 2, "continuations": 1, "repeats": 1}
    for name, bound in least.items():
      if getattr(self, name) < bound:
        raise InputError(f"must be at least {bound}", field=name, value=getattr(self, name))
    if not self.batch_sizes or min(self.batch_sizes) < 1:
      given = ",".join(map(str, self.batch_sizes))
      raise InputError("must be at least 1, such as 1,8", field="batch_sizes", value=given)


def read_settings(flags: Mapping[str, Any]) -> Settings:
  """The settings in the flags of launch.benchmark. Raises InputError."""
  from gatrec_jax.lm.folders.decoder_source import resolve_decoder
  from gatrec_jax.lm.folders.load import DTYPES

  if flags["dtype"] not in DTYPES:
    raise InputError(f"must be one of {', '.join(DTYPES)}", field="dtype", value=flags["dtype"])
  try:
    batch_sizes = tuple(dict.fromkeys(map(int, flags["batch_sizes"])))
  except ValueError:
    given = ",".join(flags["batch_sizes"])
    raise InputError(
      "must be whole numbers, such as 1,8", field="batch_sizes", value=given
    ) from None
  folder = None
  if flags["llm"]:
    folder = resolve_decoder(flags["llm"]).folder
  same = ("random_shape", "dtype", "prompt_tokens", "max_tokens", "continuations", "repeats")
  return Settings(
    folder=folder,
    workdir=Path(flags["workdir"] or "runs/benchmark-lm"),
    batch_sizes=batch_sizes,
    peer_python=peer_python(flags),
    **{name: flags[name] for name in same},
  )


def run_lm_suite(flags: Mapping[str, Any], *, log: Log) -> Json:
  """The suite with the settings of the flags. Raises InputError."""
  return run_lm(read_settings(flags), log=log)


def run_lm(settings: Settings, *, log: Log) -> Json:
  """Runs all measurements of the suite.

  Args: settings: what to measure. log: for lines of progress.
  Returns: `settings`, `model`, `peer`, `machine`, `compile`, `generation` (one entry per batch
    size) and `continuations`, as plain values.
  Raises: InputError for a model that cannot be loaded, a prompt longer than its context, or a peer
    that does not work.
  """
  from gatrec_jax.lm.folders.load import read_config
  from launch.benchmarks.lm.random_folder import random_folder

  with contextlib.ExitStack() as stack:
    peer, about_peer = None, None
    if settings.peer_python:
      peer = stack.enter_context(start_peer(settings.peer_python, "transformers_lm.py"))
      about_peer = peer.ask("hello") | {"python": settings.peer_python}
    folder = settings.folder
    if folder is None:
      folder = settings.workdir / f"model-{settings.random_shape}"
      log.info(f"random weights: {folder}")
      folder = random_folder(folder, settings.random_shape)
    config = read_config(folder)
    needed = settings.prompt_tokens + max(settings.max_tokens, CONTINUATION_TOKENS)
    if needed > config.context:
      fits = config.context - needed + settings.prompt_tokens
      raise InputError(
        f"with the answer {needed} tokens, more than the model's context of {config.context}; "
        f"`prompt_tokens={fits}` fits",
        field="prompt_tokens",
        value=settings.prompt_tokens,
      )
    # Before this process takes the device, since an accelerator serves one process at a time.
    log.info("compiling, in two fresh processes")
    compiled = _compile_twice(settings, folder)
    return {
      "settings": _plain(settings, folder),
      "peer": about_peer,
      "compile": compiled,
      **_measure(settings, folder, peer, about_peer, log),
    }


def _measure(
  settings: Settings, folder: Path, peer: Process | None, about_peer: Json | None, log: Log
) -> Json:
  """The measurements that need the model in this process."""
  if peer is not None:  # it shares the accelerator's memory
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  import jax

  from gatrec_jax.lm.folders.load import load_decoder
  from launch.benchmarks.hardware import device_rates
  from launch.benchmarks.lm.timing import endless

  platform = jax.default_backend()
  if peer is not None:
    gpu = platform in ("gpu", "cuda")
    if gpu and not about_peer["cuda"]:
      raise InputError(
        "its torch has no CUDA, but JAX uses a GPU; set JAX_PLATFORMS=cpu to compare CPUs",
        field="peer_python",
        value=settings.peer_python,
      )
    about_peer["device"] = "cuda" if gpu else "cpu"
  log.info("peak rates of the device")
  rates = device_rates(settings.dtype)
  model = endless(load_decoder(folder, dtype=settings.dtype))
  if peer is not None:
    peer.ask("load", folder=str(folder), dtype=settings.dtype, device=about_peer["device"])
  generation = []
  for batch in settings.batch_sizes:
    log.info(f"generation, batch {batch}")
    generation.append(_generation(model, peer, settings, batch, rates))
  log.info(f"{settings.continuations} continuations")
  return {
    "model": {
      "name": model.name,
      "parameters": model.parameters,
      "dtype": model.dtype,
      "attention": model.attention,
    },
    "machine": dataclasses.asdict(rates),
    "generation": generation,
    "continuations": _continuations(model, peer, settings),
  }


def _compile_twice(settings: Settings, folder: Path) -> Json:
  """Compile times of a first start, and of a second one with JAX's persistent cache."""
  job = {
    "folder": str(folder),
    "dtype": settings.dtype,
    "batch_sizes": settings.batch_sizes,
    "prompt_tokens": settings.prompt_tokens,
    "max_tokens": settings.max_tokens,
  }
  results = {}
  with tempfile.TemporaryDirectory(prefix="gatrec-compiled-") as cache:
    environment = {
      "JAX_COMPILATION_CACHE_DIR": cache,
      _CACHED_FROM: os.environ.get(_CACHED_FROM, "0"),  # as the programs set it
      "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
    }
    for name in ("cold", "cached"):
      command = [sys.executable, "-m", "launch.benchmarks.peers.gatrec_lm"]
      with Process(command, what="measuring compile time", environment=environment) as child:
        results[name] = child.ask("compile", **job)
  return results


def _generation(
  model: LanguageModel, peer: Process | None, settings: Settings, batch: int, rates: Rates
) -> Json:
  """Times prefill and decoding of one batch size, alternating with the peer."""
  from launch.benchmarks.lm.timing import (
    decode_bytes,
    prefill_flops,
    random_rows,
    spread,
    time_generation,
  )

  most = settings.max_tokens
  prompts = random_rows(model.config.vocabulary, batch, settings.prompt_tokens, seed=batch)
  ours, theirs = _alternating(
    lambda: time_generation(model, prompts, max_tokens=most),
    (lambda: peer.ask("generate", prompts=prompts, max_tokens=most)) if peer else None,
    settings.repeats,
  )
  own = {
    "prefill_seconds": spread([one.prefill_seconds for one in ours]),
    "decode_seconds": spread([one.decode_seconds for one in ours]),
  }
  counts = {"prefill": batch * settings.prompt_tokens, "decode": batch * (most - 1)}
  slots = settings.prompt_tokens + most / 2  # on average over the steps
  step = own["decode_seconds"]["median"] / (most - 1)
  moved = decode_bytes(model, rows=batch, slots=slots) / step
  flops = prefill_flops(model.config, rows=batch, tokens=settings.prompt_tokens)
  result: Json = {
    "batch": batch,
    "ours": _with_rates(own, counts),
    "decode_bandwidth_share": moved / rates.bandwidth,
    "prefill_flops_share": flops / own["prefill_seconds"]["median"] / rates.flops,
    "peer": None,
    "greedy_tokens_agree": None,
  }
  if theirs:
    ways = {
      way: {
        name: spread([one[way][name] for one in theirs])
        for name in ("prefill_seconds", "decode_seconds")
      }
      for way in ("generate", "loop")
    }
    # Of each figure its faster way counts.
    best = {
      name: min(ways, key=lambda way: ways[way][name]["median"])
      for name in ("prefill_seconds", "decode_seconds")
    }
    chosen = {name: ways[way][name] for name, way in best.items()}
    result["peer"] = _with_rates(chosen, counts) | {
      "prefill_by": best["prefill_seconds"],
      "decode_by": best["decode_seconds"],
      "ways": ways,
    }
    result["greedy_tokens_agree"] = _agreement(ours[-1].tokens, theirs[-1]["generate"]["tokens"])
  return result


def _continuations(model: LanguageModel, peer: Process | None, settings: Settings) -> Json:
  """Times scoring continuations of one prefix: shared, separate, and by the peer."""
  from launch.benchmarks.lm.timing import random_rows, spread, time_separate, time_shared_prefix

  vocabulary = model.config.vocabulary
  prefix = random_rows(vocabulary, 1, settings.prompt_tokens, seed=101)[0]
  suffixes = random_rows(vocabulary, settings.continuations, CONTINUATION_TOKENS, seed=102)
  ours, theirs = _alternating(
    lambda: (time_shared_prefix(model, prefix, suffixes), time_separate(model, prefix, suffixes)),
    (lambda: peer.ask("continuations", prefix=prefix, continuations=suffixes)) if peer else None,
    settings.repeats,
  )
  shared, separate = (list(runs) for runs in zip(*ours, strict=True))
  result: Json = {
    "continuations": settings.continuations,
    "tokens": CONTINUATION_TOKENS,
    "prefix_tokens": settings.prompt_tokens,
    "ours_shared_seconds": spread([one.seconds for one in shared]),
    "ours_separate_seconds": spread([one.seconds for one in separate]),
    "shared_against_separate_max_difference": _difference(shared[-1].values, separate[-1].values),
    "peer": None,
    "ours_against_peer_max_difference": None,
  }
  if theirs:
    ways = {
      way: spread([one[way]["seconds"] for one in theirs])
      for way in ("separate", "batched")
      if all(one[way] for one in theirs)
    }
    best = min(ways, key=lambda way: ways[way]["median"])
    result["peer"] = {"seconds": ways[best], "by": best, "ways": ways}
    result["ours_against_peer_max_difference"] = _difference(
      shared[-1].values, theirs[-1]["separate"]["values"]
    )
  return result


def _alternating(
  ours: Callable[[], Any], theirs: Callable[[], Json] | None, repeats: int
) -> tuple[list[Any], list[Json]]:
  """Alternates both, after one run each that is not counted: it compiles, and touches memory."""
  mine, others = [], []
  for _ in range(repeats + 1):
    mine.append(ours())
    if theirs is not None:
      time.sleep(SETTLE_SECONDS)
      others.append(theirs())
      time.sleep(SETTLE_SECONDS)
  return mine[1:], others[1:]


def _with_rates(seconds: Json, counts: Mapping[str, int]) -> Json:
  """Adds the tokens per second of each phase."""
  result = dict(seconds)
  for part, tokens in counts.items():
    times = seconds[f"{part}_seconds"]
    result[f"{part}_tokens_per_second"] = {
      "median": tokens / times["median"],
      "min": tokens / times["max"],
      "max": tokens / times["min"],
    }
  return result


def _agreement(ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]]) -> int:
  """The number of leading tokens that agree in every row."""
  same = (np.array(ours) == np.array(theirs)).all(axis=0)
  return len(same) if same.all() else int(same.argmin())


def _difference(left: Sequence[float], right: Sequence[float]) -> float:
  return float(np.abs(np.array(left, "f8") - np.array(right, "f8")).max())


def _plain(settings: Settings, folder: Path) -> Json:
  values = dataclasses.asdict(settings) | {"folder": str(folder), "workdir": str(settings.workdir)}
  return values | {"batch_sizes": list(settings.batch_sizes)}
