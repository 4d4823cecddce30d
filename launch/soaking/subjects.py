"""The programs that are killed: their commands, and the folders that they begin with."""

from __future__ import annotations

import csv
import dataclasses
import json
import pathlib
from collections.abc import Callable

import numpy as np

_LEXICAL = ("--encoder=lexical", "--bootstrap=20")
# Many epochs, each with a checkpoint; one narrow layer compiles quickly.
TINY = (
  "--preset=tiny",
  *_LEXICAL,
  "--set=layer_widths=8",
  "--set=heads=1",
  "--set=feature_width=8",
)
_EPOCHS = ("--set=epochs=12", "--set=evaluate_every=1", "--set=patience=12")
_SMALL = ("--dataset=ratings.csv", "--item_metadata=items.jsonl")
_RUN = "--workdir=run"
_LLM = ("--llm=model", "--history=3")


@dataclasses.dataclass(frozen=True)
class Subject:
  """A program to kill.

  Attributes:
    command: its name and flags; it works in the current folder, and its run is `run`.
    start: the name of what is there before, one of `STARTS`.
    is_read: whether launch.recommend may read the run meanwhile.
  """

  command: tuple[str, ...]
  start: str = "nothing"
  is_read: bool = False


@dataclasses.dataclass(frozen=True)
class Start:
  """A folder to begin with.

  Attributes:
    base: the name of the one that it extends, None = an empty one.
    commands: programs with flags that make it. write: makes it from nothing.
  """

  base: str | None = None
  commands: tuple[tuple[str, ...], ...] = ()
  write: Callable[[pathlib.Path], None] = lambda folder: None


def write_small(folder: pathlib.Path) -> None:
  """A table of 12 users and 10 items with texts, and a decoder with random weights."""
  from gatrec_jax.lm.finetune.from_scratch import BOS, EOS, PAD, train_tokenizer
  from launch.benchmarks.lm.random_folder import random_folder

  random = np.random.default_rng(0)
  with open(folder / "ratings.csv", "w", newline="") as out:
    rows = csv.writer(out)
    rows.writerow(("user_id", "item_id", "rating", "timestamp"))
    for user in range(12):
      for time, item in enumerate(random.permutation(10)[:8]):
        rows.writerow((user, item, random.integers(1, 6), time))
  words = "storm harbor cellar orchard verdict engine bridge lantern".split()
  items = [
    {
      "item_id": item,
      "title": f"The {words[item % 8].title()} {item} (1999)",
      "genres": ["Drama", "War"] if item % 2 else ["Comedy"],
      "overview": f"It tells of the {' and the '.join(random.permutation(words)[:3])}.",
    }
    for item in range(10)
  ]
  (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
  model = random_folder(folder / "model", "tiny")
  config = json.loads((model / "config.json").read_text())
  (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 640}))
  tokenizer = train_tokenizer(["A story of the harbor, the verdict and the rain."], vocabulary=512)
  tokenizer.save(str(model / "tokenizer.json"))
  names = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD}
  settings = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
  (model / "tokenizer_config.json").write_text(json.dumps(settings))


STARTS = {
  "nothing": Start(),
  "trained": Start(commands=(("train", *TINY, "--set=epochs=2", _RUN),)),
  "small": Start(write=write_small),
  "fitted": Start("small", (("train", "--model=ease", "--valid_share=0.2", *_SMALL, _RUN),)),
  "small_trained": Start("small", (("train", *TINY, "--set=epochs=2", *_SMALL, _RUN),)),
}
SUBJECTS = {
  "train": Subject(("train", *TINY, *_EPOCHS, _RUN), is_read=True),
  "train_best": Subject(("train", "--preset=best", *_LEXICAL, *_EPOCHS, _RUN), is_read=True),
  "train_paper": Subject(
    ("train", "--preset=paper", *_LEXICAL, "--set=layer_widths=8", "--set=heads=1", *_EPOCHS, _RUN),
    is_read=True,
  ),
  "train_refit": Subject(("train", *TINY, "--set=epochs=4", "--refit", _RUN), is_read=True),
  "train_baseline": Subject(("train", "--model=ease", "--bootstrap=20", _RUN), is_read=True),
  "search": Subject(
    (
      "train",
      "--model=bpr_mf",
      "--set=epochs=3",
      "--set=evaluate_every=1",
      "--set=width=8",
      "--set=batch_size=0",
      "--bootstrap=20",
      "--search=2.4",
      _RUN,
    ),
    is_read=True,
  ),
  "compare": Subject(
    (
      "compare",
      "--models=popularity,ease,bpr_mf:epochs=3:width=8",
      "--seeds=0,1",
      "--bootstrap=50",
      "--json_out=compared.json",
      "--workdir=runs",
    )
  ),
  "prepare": Subject(("prepare", "--preset=tiny", _RUN)),
  "embed": Subject(("embed", "--preset=tiny", "--encoder=lexical", _RUN)),
  "evaluate": Subject(("evaluate", _RUN, "--bootstrap=50", "--json_out=e.json"), "trained", True),
  "recommend": Subject(("recommend", _RUN, "--out=lists.parquet"), "trained", True),
  "export": Subject(("recommend", _RUN, "--export_embeddings=vectors"), "trained", True),
  "explain": Subject(
    ("explain", _RUN, "--llm=none", "--users=all", "--top_n=1", "--out=reasons.jsonl"),
    "small_trained",
    True,
  ),
  "explain_builtin": Subject(
    ("explain", _RUN, "--llm=builtin", "--users=1,2", "--top_n=2", "--out=reasons.jsonl"),
    "small_trained",
    True,
  ),
  "rerank": Subject(
    ("rerank", _RUN, *_LLM, "--strategy=label,listwise,pairwise", "--top_candidates=4"),
    "fitted",
    True,
  ),
  "rerank_builtin": Subject(
    ("rerank", _RUN, "--llm=builtin", "--top_candidates=4", "--history=3"), "small_trained", True
  ),
  "finetune": Subject(
    (
      "finetune",
      _RUN,
      *_LLM,
      "--top_candidates=4",
      "--out_of_fold=2",
      "--tune=steps=12",
      "--tune=lora_rank=2",
      "--tune=evaluate_every=2",
    ),
    "fitted",
    True,
  ),
  "write_profiles": Subject(
    ("write_profiles", "--llm=model", "--batch_size=2", "--test_share=0.2", *_SMALL, _RUN), "small"
  ),
  "quickstart": Subject(("quickstart", "--workdir=run", "--encoder=lexical", "--llm=none")),
}
# Training a small language model takes minutes.
SLOW = ("explain_builtin", "rerank_builtin", "quickstart")
