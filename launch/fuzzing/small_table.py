"""A small table of ratings with texts, and a small language model: quick to make and to read."""

from __future__ import annotations

import json
import pathlib

import numpy as np

_USERS, _ITEMS, _EACH = 60, 40, 14
_WORDS = "storm harbor cellar orchard verdict engine bridge lantern meadow signal".split()
_GENRES = (["Drama", "War"], ["Comedy"], ["Drama"], ["Thriller", "Crime"])


def write_table(folder: pathlib.Path) -> None:
  """Writes ratings.csv and items.jsonl: 60 users with 14 of 40 items each."""
  folder.mkdir(parents=True, exist_ok=True)
  random = np.random.default_rng(0)
  lines = ["user_id,item_id,rating,timestamp"]
  for user in range(_USERS):
    for time, item in enumerate(random.permutation(_ITEMS)[:_EACH]):
      rating = 1 + (2 * (user % 4 == item % 4) + int(random.integers(3)))
      lines.append(f"{user},{item},{rating},{time}")
  (folder / "ratings.csv").write_text("\n".join(lines) + "\n", "utf-8")
  items = [
    {
      "item_id": item,
      "title": f"The {_WORDS[item % 10]} of the {_WORDS[item // 10]} (19{item + 50})".title(),
      "genres": _GENRES[item % 4],
      "overview": f"It tells of the {' and the '.join(random.permutation(_WORDS)[:3])}.",
    }
    for item in range(_ITEMS)
  ]
  (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items), "utf-8")


def write_model(folder: pathlib.Path) -> None:
  """Writes a decoder with a tokenizer and a chat template, trained for a few steps."""
  from gatrec_jax.lm.finetune.from_scratch import build_small
  from gatrec_jax.runs.log import SILENT

  texts = [
    f"The user enjoys the {a} and the {b}, and avoids {c}s."
    for a in _WORDS
    for b in _WORDS
    for c in _WORDS[:2]
  ]
  build_small(
    texts,
    folder,
    vocabulary=400,
    width=32,
    layers=1,
    heads=2,
    kv_heads=1,
    inner=64,
    context=1024,
    chat=True,
    steps=3,
    batch_size=4,
    row_tokens=64,
    learning_rate=1e-3,
    stop=lambda: 0,
    log=SILENT,
  )
