"""Ids, titles and genres that would steer a terminal, through the programs that print them."""

import json
import unicodedata

import numpy as np
import pytest
from helpers.programs import TINY, call, error_line

HOSTILE = (
  "\x1b[2J\x1b[31mred", "\x1b]0;owned\x07", "\x9b31m", "\u202eevil\u202c", "\u2067x\u2069",
  "a\u200bb", "line\u2028two", "\x08\x08", "[bold red]x[/] :smile:", "é漢字👩‍🚀",
)  # fmt: skip
FLAGS = ("--dataset=r.csv", "--item_metadata=items.jsonl", "--bootstrap=0", "--ks=5")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """A folder with hostile ratings and metadata, and a run that was trained on them."""
  folder = tmp_path_factory.mktemp("escapes")
  rng = np.random.default_rng(0)
  users = [f"u{n}{HOSTILE[n % 10]}" for n in range(20)]
  items = [f"i{n}{HOSTILE[n % 10]}" for n in range(20)]
  rows = [
    f"{user},{items[item]},{5 if item % 2 == number % 2 else 1}"
    for number, user in enumerate(users)
    for item in rng.choice(20, 10, replace=False)
  ]
  (folder / "r.csv").write_text("user_id,item_id,rating\n" + "\n".join(rows) + "\n")
  records = [
    {"item_id": item, "title": f"T{HOSTILE[n % 10]} {n}", "genres": [f"g{HOSTILE[n % 10]}"],
     "brand": f"b{HOSTILE[n % 3]}"}
    for n, item in enumerate(items)
  ]  # fmt: skip
  (folder / "items.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
  done = call("train", *TINY, *FLAGS, "--refit=false", "--workdir=w", cwd=folder, check=0)
  return folder, users, items, done


def require_safe(done):
  for text in (done.stdout, done.stderr):
    bad = {c for c in text if unicodedata.category(c) == "Cc" and c != "\n"}
    bad |= {c for c in text if unicodedata.bidirectional(c) in ("RLO", "LRO", "RLI", "LRI", "PDF")}
    assert not bad | (set(text) & set("\u200b\u2028")), bad


def test_training_and_evaluation_print_escapes(place):
  folder, *_, trained = place
  require_safe(trained)
  require_safe(call("evaluate", "--workdir=w", cwd=folder, check=0))


def test_recommend_prints_escapes_and_writes_what_is_there(place):
  folder, users, items, _ = place
  done = call("recommend", "--workdir=w", "--users=all", "--top_n=20", cwd=folder, check=0)
  require_safe(done)
  assert r"user u0\x1b[2J\x1b[31mred" in done.stdout and r"T\u202eevil\u202c 3" in done.stdout
  assert "T[bold red]x[/] :smile: 8" in done.stdout and "Té漢字👩‍🚀 9" in done.stdout
  call("recommend", "--workdir=w", "--users=all", "--out=lists.jsonl", cwd=folder, check=0)
  with (folder / "lists.jsonl").open(encoding="utf-8", newline="\n") as lines:
    assert {json.loads(line)["user_id"] for line in lines} <= set(users)
  similar = call("recommend", "--workdir=w", f"--similar_to={items[0]}", cwd=folder, check=0)
  require_safe(similar)
  refused = call("recommend", "--workdir=w", "--users=no\x1b[2J", cwd=folder, check=1)
  require_safe(refused)
  assert r"no\x1b[2J" in error_line(refused)


def test_explain_and_compare_print_escapes(place):
  folder, users, *_ = place
  done = call("explain", "--workdir=w", f"--users={users[3]}", "--llm=none", cwd=folder, check=0)
  require_safe(done)
  assert r"\u202eevil" in done.stdout
  compared = ("--models=popularity,item_knn", "--workdir=c", "--markdown")
  require_safe(call("compare", *FLAGS, "--refit=false", *compared, cwd=folder, check=0))
