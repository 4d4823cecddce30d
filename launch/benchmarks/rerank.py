"""Suite `rerank`: users per second that a language model re-ranks, by strategy."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gatrec_jax.rerank.prompting.prompts import Context
from gatrec_jax.rerank.prompting.queries import Usage
from gatrec_jax.rerank.strategies.registry import STRATEGIES, make_strategy
from gatrec_jax.runs.log import Log
from launch.benchmarks.hardware import device_rates
from launch.benchmarks.measure import Json, measure, suite_results

if TYPE_CHECKING:
  from gatrec_jax.lm.folders.load import LanguageModel

USERS, CANDIDATES, HISTORY, TITLES = 64, 20, 30, 400
_WORDS = (
  "Night River Glass Winter Stone Garden Silent Broken Golden Last Paper Iron Summer Lost "
  "Northern Hidden Burning Second Hollow Distant"
).split()


def run_rerank(flags: Mapping[str, Any], *, log: Log) -> Json:
  """Runs every strategy on the same random users, histories and candidates."""
  rates = device_rates("float32")
  draws = np.random.default_rng(0)
  titles = [f"{_WORDS[n % 20]} {_WORDS[n // 20]} ({1950 + n % 60})" for n in range(TITLES)]

  def pick(count: int) -> list[str]:
    return [titles[n] for n in draws.choice(TITLES, count, replace=False)]

  contexts = [
    Context(history=tuple((title, n % 4 > 0) for n, title in enumerate(pick(HISTORY))))
    for _ in range(USERS)
  ]
  candidates = [pick(CANDIDATES) for _ in range(USERS)]
  figures, notes = [], []
  with tempfile.TemporaryDirectory() as folder:
    model = _model(flags["llm"], titles, Path(folder))
    for name in STRATEGIES:
      log.info(f"rerank: {name}")
      strategy = make_strategy(name, model, batch_size=16)
      figure = measure(
        f"{name}, {USERS} users × {CANDIDATES} candidates",
        lambda strategy=strategy: strategy(contexts, candidates),
        repeats=flags["repeats"],
      )
      usage = Usage()
      strategy(contexts, candidates, usage=usage)
      rate = USERS / float(np.median(figure.seconds))
      notes.append(
        f"{name}: {rate:.1f} users/s, "
        f"{(usage.prompt_tokens + usage.new_tokens) / USERS:.0f} tokens per user"
      )
      figures.append(figure)
  return suite_results(
    f"re-ranking, {model.name}, {model.parameters / 1e6:.2f} M parameters",
    figures,
    rates=rates,
    repeats=flags["repeats"],
    notes=notes,
  )


def _model(llm: str | None, titles: list[str], folder: Path) -> LanguageModel:
  """The model of --llm, or one with the built-in re-ranker's size after a single step."""
  if llm:
    from gatrec_jax.lm.folders.load import open_decoder

    return open_decoder(llm)
  from gatrec_jax.lm.finetune.from_scratch import build_small

  texts = [
    " ".join(titles[n : n + 8]) + " liked disliked candidate yes no A B C D"
    for n in range(0, len(titles), 8)
  ]
  letters = [f" {letter}" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
  return build_small(
    texts,
    folder / "model",
    width=128,
    layers=4,
    inner=384,
    context=1024,
    steps=1,
    chat=False,
    extra_tokens=letters,
  )
