"""Scores of candidates by a language model, saved in the run folder as they are computed."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gatrec_jax import runs
from gatrec_jax.errors import DamagedFile
from gatrec_jax.rerank.prompting.prompts import PROMPT_VERSION, Context
from gatrec_jax.rerank.strategies.registry import OPTIONS_OF, Strategy, Usage
from gatrec_jax.runs.log import Log
from gatrec_jax.runs.resumable import in_chunks

_FORMAT = 3  # raised when the records change their form, so that old ones are made again
CHUNK = 64  # lists scored and saved together
_REPEATS = 3
_FAST, _SLOW = 1.0, 60.0  # seconds of a batch


@dataclasses.dataclass(frozen=True)
class QueryBatch:
  """Lists that a language model scores.

  Attributes:
    name: of the part, such as "valid"; the file is named after it.
    keys: [m] raw user ids.
    contexts: [m].
    titles: [m] titles of each user's candidates, in the base's order.
  """

  name: str
  keys: Sequence[str]
  contexts: Sequence[Context]
  titles: Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Rate:
  """What a list costs, measured on the first lists of the largest part.

  Attributes:
    tokens_per_list: that the model processed, in the first batch.
    lists_per_second: without compilation, unless a batch takes over a minute.
  """

  tokens_per_list: float
  lists_per_second: float


@dataclasses.dataclass(frozen=True)
class Cost:
  """The cost of scoring.

  Attributes:
    lists: number of lists.
    tokens_per_list: mean number of tokens processed by the model.
    lists_per_second: as in `Rate`.
    shortened: number of lists whose history was shortened to fit into the model's context.
  """

  lists: int
  tokens_per_list: float
  lists_per_second: float
  shortened: int


def open_scores(
  strategy: Strategy,
  batches: Sequence[QueryBatch],
  workdir: pathlib.Path,
  *,
  model_name: str,
  model_hash: str,
) -> tuple[pathlib.Path, Rate]:
  """The folder of the scores, and what a list costs: measured now or by an earlier process.

  The folder is named after a hash of everything that the scores depend on, so another model,
  strategy, prompt or candidate list gets a folder of its own.

  Args:
    strategy: from `make_strategy`. batches: lists by part. workdir: the run folder.
    model_name, model_hash: of the model and its adapter.
  """
  inputs = runs.digest(
    _FORMAT,
    PROMPT_VERSION,
    strategy.name,
    options_of(strategy),
    model_hash,
    CHUNK,
    [
      [
        part.name,
        list(part.keys),
        [dataclasses.asdict(c) for c in part.contexts],
        [list(titles) for titles in part.titles],
      ]
      for part in batches
    ],
  )
  slug = re.sub(r"[^A-Za-z0-9.]+", "-", model_name.split("/")[-1]).strip("-").lower()
  folder = workdir / "rerank" / f"{strategy.name}-{slug}-{inputs[:8]}"
  folder.mkdir(parents=True, exist_ok=True)
  runs.write_sealed(
    folder / "manifest.json",
    {
      "inputs": inputs,
      "llm": model_name,
      "llm_hash": model_hash,
      "strategy": strategy.name,
      "settings": options_of(strategy),
      "prompt_version": PROMPT_VERSION,
    },
  )
  return folder, _rate(folder / "rate.json", strategy, batches)


def score_lists(
  folder: pathlib.Path,
  strategy: Strategy,
  batches: Sequence[QueryBatch],
  counts: Sequence[int],
  *,
  rate: Rate,
  log: Log,
) -> tuple[list[list[np.ndarray]], Cost]:
  """Scores the first lists of each part, and resumes where an earlier process stopped.

  Args:
    folder, rate: from `open_scores`, for the same strategy and batches.
    counts: of each part, how many of its lists are scored, the first ones.
    log: where messages go.
  Returns:
    For each part and list, [K] float32 scores; the cost.
  Raises:
    Interrupted: on a signal; the scores so far are kept.
  """
  parts = [
    in_chunks(
      folder / f"{part.name}.jsonl",
      part.keys,
      _scorer(strategy, part),
      chunk=CHUNK,
      name=f"{strategy.name} {part.name}",
      log=log,
      most=count,
    )
    for part, count in zip(batches, counts, strict=True)
  ]
  scores = [[np.array(record["scores"], np.float32) for record in part] for part in parts]
  records = [record for part in parts for record in part]
  cost = Cost(
    lists=len(records),
    tokens_per_list=sum(record["tokens"] for record in records) / max(len(records), 1),
    lists_per_second=rate.lists_per_second,
    shortened=round(sum(record["shortened"] for record in records)),
  )
  log.info(
    f"rerank: {cost.tokens_per_list:.0f} tokens per list"
    + (f", {cost.shortened} histories shortened to fit" if cost.shortened else "")
  )
  return scores, cost


def options_of(strategy: Strategy) -> dict[str, Any]:
  """The settings of a strategy that its scores may depend on, as plain values."""
  names = OPTIONS_OF.get(strategy.name, ())
  options = {name: getattr(strategy.options, name) for name in names}
  return {**options, "batch_size": strategy.batch_size}


def _scorer(strategy: Strategy, part: QueryBatch) -> Callable[[range], list[dict[str, Any]]]:
  """Positions -> records, each with the mean of its chunk's tokens and shortened histories."""

  def make(places: range) -> list[dict[str, Any]]:
    usage = Usage()
    scores = _scores(strategy, part, places, usage)
    used = {
      "tokens": usage.forward_tokens / len(places),
      "shortened": usage.shortened / len(places),
    }
    return [{"scores": [float(value) for value in row], **used} for row in scores]

  return make


def _scores(strategy: Strategy, part: QueryBatch, places: range, usage: Usage) -> list[np.ndarray]:
  return strategy(
    [part.contexts[place] for place in places],
    [part.titles[place] for place in places],
    usage=usage,
  )


def _rate(path: pathlib.Path, strategy: Strategy, batches: Sequence[QueryBatch]) -> Rate:
  """What a list costs. A batch is scored twice, since the first time compiles; where that takes
  hardly any time, a whole chunk is, and where it takes over a minute, once must do."""
  if path.exists():
    with contextlib.suppress(DamagedFile):
      found = runs.read_sealed(path)
      return Rate(found["tokens_per_list"], found["lists_per_second"])
  part = max(batches, key=lambda part: len(part.keys))
  most = min(CHUNK, len(part.keys))
  if not most:
    return Rate(0.0, 0.0)

  def timed(count: int) -> Usage:
    usage = Usage()
    _scores(strategy, part, range(count), usage)
    return usage

  used = first = timed(min(strategy.batch_size, most))
  if used.seconds < _SLOW:
    used = timed(used.users)
  if used.seconds < _FAST:
    timed(most)
    used = sorted((timed(most) for _ in range(_REPEATS)), key=lambda used: used.seconds)[1]
  rate = Rate(first.forward_tokens / first.users, used.users / used.seconds)
  runs.write_sealed(path, dataclasses.asdict(rate))
  return rate
