"""The worked examples of launch/README.md, on small files with a planted taste."""

import json
import re

import pytest
from helpers import own_data, readmes
from helpers.paths import ROOT
from helpers.programs import call, error_line

import gatrec_jax as g

PAGE = (ROOT / "launch" / "README.md").read_text()
SECTION = PAGE[PAGE.index("## Own data\n") : PAGE.index("## Splits\n")]
# One layer compiles sooner, and so does a linear channel whose settings are not chosen.
QUICK = (
  "--set=epochs=10",
  "--set=evaluate_every=10",
  "--set=layers=1",
  "--set=linear_choice=fixed",
  "--ks=10",
  "--bootstrap=0",
)
WRITERS = {
  "plays.tsv": own_data.write_plays,
  "events.csv": own_data.write_events,
  "BX-Book-Ratings.csv": own_data.write_books,
  "reviews.jsonl.gz": own_data.write_reviews,
}


def examples():
  """[(flags of a command, the line that the page shows below it)]."""
  found, last = [], None
  for block in readmes.blocks(SECTION):
    if block.language == "bash":
      ((program, last),) = readmes.commands(block.code)
      assert program == "train"
    elif block.language == "text":
      found.append((last, block.code.strip()))
  return found


EXAMPLES = {
  re.search(r"--dataset=(\S+)", " ".join(flags))[1]: (flags, line) for flags, line in examples()
}


def ndcg(folder):
  return json.loads((folder / "results.json").read_text())["full"]["ndcg@10"]["mean"]


@pytest.mark.parametrize("file", WRITERS)
def test_what_is_understood_and_learned(file, tmp_path):
  flags, line = EXAMPLES[file]
  WRITERS[file](tmp_path)
  done = call("train", *flags, *QUICK, "--encoder=lexical", "--workdir=best", cwd=tmp_path, check=0)
  assert line in done.stdout.splitlines()
  assert "warning" not in done.stdout + done.stderr
  popular = ("--model=popularity", "--ks=10", "--bootstrap=0", "--workdir=popularity")
  call("train", *flags, *popular, cwd=tmp_path, check=0)
  # The planted taste: items of one of four groups.
  assert ndcg(tmp_path / "best") > 1.5 * ndcg(tmp_path / "popularity")


def test_the_page_s_counts_are_those_of_the_files(tmp_path):
  """The lines above are compared as text; here their numbers are counted again."""
  plays, events = own_data.write_plays(tmp_path), own_data.write_events(tmp_path)
  assert f"(1 to {max(plays)}): {len(plays):,} likes" in EXAMPLES["plays.tsv"][1]
  assert all(f"{count:,} {kind}" in EXAMPLES["events.csv"][1] for kind, count in events.items())
  books, reviews = own_data.write_books(tmp_path), own_data.write_reviews(tmp_path)
  for line, ratings, liked, disliked in (
    (EXAMPLES["BX-Book-Ratings.csv"][1], [r for r in books if r], 8, 4),
    (EXAMPLES["reviews.jsonl.gz"][1], reviews, 4, 2),
  ):
    assert f"{sum(r >= liked for r in ratings):,} likes (≥ {liked})" in line
    assert f"{sum(r <= disliked for r in ratings):,} dislikes (≤ {disliked})" in line
  assert f"{books.count(0)} zeros" in EXAMPLES["BX-Book-Ratings.csv"][1]


def test_the_frame(tmp_path, monkeypatch):
  pandas = pytest.importorskip("pandas")
  (code,) = [block.code for block in readmes.blocks(SECTION) if block.language == "python"]
  frame = pandas.DataFrame(own_data.frame_columns())
  fit = g.fit
  monkeypatch.chdir(tmp_path)
  one_layer = {"layer_widths": (16,), "heads": (1,)}  # compiles sooner
  quick = {"preset": "tiny", "epochs": 4, **one_layer, "bootstrap": 0, "log": g.SILENT}
  monkeypatch.setattr(g, "fit", lambda *args, **named: fit(*args, **named, **quick))
  space = {"frame": frame}
  exec(compile(code, "README", "exec"), space)
  assert len(space["lists"].items[0]) == 5 and len(space["reasons"]["m7"]) == 5
  lines = space["run"].prepared.sentences
  assert lines[0].startswith("ratings of column 'stars' (1 to 5): ")
  assert (tmp_path / "runs" / "tracks" / "config.json").exists()


def test_a_published_split(tmp_path):
  columns = own_data.frame_columns()
  rows = list(zip(columns["member"], columns["track"], columns["stars"], strict=True))
  for name, part in (("train", rows[::2]), ("valid", rows[1::4]), ("test", rows[3::4])):
    lines = [f"{user},{item},{stars}" for user, item, stars in part]
    (tmp_path / f"{name}.csv").write_text("\n".join(["user_id,item_id,rating", *lines]))
  flags = ("--train_file=train.csv", "--valid_file=valid.csv", "--test_file=test.csv")
  call("train", "--model=ease", *flags, "--bootstrap=0", "--workdir=run", cwd=tmp_path, check=0)
  prepared = g.load_run(tmp_path / "run").prepared
  sizes = [len(part) for part in (prepared.train, prepared.valid, prepared.test)]
  assert sizes == [len(rows[::2]), len(rows[1::4]), len(rows[3::4])]
  for wrong, line in (
    (("--dataset=train.csv", *flags), "--train_file=train.csv: and --dataset exclude each other"),
    (flags[:2], "--valid_file=valid.csv: needs --test_file beside it"),
    (("--dataset=demo", *flags[1:]), "--test_file=test.csv: demo is not a file of yours"),
    ((*flags, "--split=temporal"), "--test_file=test.csv: files that are split already"),
  ):
    done = call("train", "--model=ease", *wrong, "--workdir=other", cwd=tmp_path, check=1)
    assert line in error_line(done)


def test_a_model_for_use_learns_from_all_rows(tmp_path):
  reviews = own_data.write_reviews(tmp_path)
  flags = ("--dataset=reviews.jsonl.gz", "--split=none", "--model=ease", "--workdir=run")
  done = call("train", *flags, "--refit", cwd=tmp_path, check=0)
  assert "nothing was tested, since no ratings were held out" in done.stdout
  run = g.load_run(tmp_path / "run")
  assert len(run.prepared.train) == len(reviews)
  rated = {(u, i) for u, i in zip(run.prepared.train.user, run.prepared.train.item, strict=True)}
  lists = g.recommend(run, top_n=3)
  pairs = {
    (run.user_index[user], run.item_index[item])
    for user, items in zip(lists.users, lists.items, strict=True)
    for item in items
  }
  assert len(pairs) == 3 * own_data.USERS and not pairs & rated
  for program, more in (
    ("evaluate", ("--workdir=run",)),
    ("compare", (*flags[:2], "--models=ease,popularity", "--workdir=other")),
  ):
    done = call(program, *more, cwd=tmp_path, check=1)
    assert "split=none" in error_line(done)
