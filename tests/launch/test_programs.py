"""The programs as users call them: from flags to files, and their errors for wrong input."""

import json
import subprocess
import sys

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers.paths import SHARED
from helpers.programs import TINY, call, environment, error_line, launch
from helpers.rerank_table import write_table

from gatrec_jax import runs
from launch.cli import entry

TRAIN = (*TINY, "--bootstrap=20")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """A folder with a finished run of the demo in runs/demo-tiny-0."""
  folder = tmp_path_factory.mktemp("place")
  done = call("train", *TRAIN, "--json_out=train.json", cwd=folder, check=0)
  assert "NDCG@10" in done.stdout and "texts: lexical" in done.stdout
  return folder


def test_train_writes_its_results(place):
  results = runs.read_sealed(place / "runs/demo-tiny-0/results.json")
  assert results == json.loads((place / "train.json").read_text())


def test_evaluate_agrees_with_train_and_with_the_run_s_own_lists(place):
  want = json.loads((place / "train.json").read_text())["full"]
  call("evaluate", "--preset=tiny", "--bootstrap=20", "--json_out=a.json", cwd=place, check=0)
  call(
    "evaluate",
    "--recommendations=runs/demo-tiny-0/recommendations.parquet",
    "--dataset=demo",
    "--protocol=both",
    "--ks=10",
    "--json_out=b.json",
    cwd=place,
    check=0,
  )
  own, lists = (json.loads((place / name).read_text()) for name in ("a.json", "b.json"))
  assert own["full"] == want
  assert lists["full"]["ndcg@10"]["mean"] == pytest.approx(want["ndcg@10"]["mean"], abs=1e-9)
  assert "judged" in lists and "ndcg@20" not in lists["full"]


def test_prepare_and_embed_do_only_their_stage(tmp_path):
  call("prepare", "--preset=tiny", "--workdir=w", cwd=tmp_path, check=0)
  assert (tmp_path / "w/profiles/users.jsonl").exists() and not (tmp_path / "w/embeddings").exists()
  done = call("embed", "--preset=tiny", "--workdir=w", "--encoder=lexical", cwd=tmp_path, check=0)
  assert "data: unchanged" in done.stdout and "profiles: unchanged" in done.stdout
  vectors = np.load(tmp_path / "w/embeddings/items.npy", allow_pickle=False)
  assert vectors.shape[0] == 800 and not (tmp_path / "w/checkpoints").exists()


def test_recommend_prints_writes_and_serves_new_users(place):
  shown = launch("recommend", "--preset=tiny", "--users=1,2", "--top_n=3", cwd=place, check=0)
  assert shown.stdout.count("The ") == 6 and "user 2" in shown.stdout
  new = call("recommend", "--preset=tiny", "--liked=1,5", "--top_n=3", cwd=place, check=0)
  assert new.stdout.count("The ") == 3
  for name in ("lists.csv", "lists.jsonl", "lists.parquet"):
    done = call("recommend", "--preset=tiny", f"--out={name}", "--top_n=5", cwd=place, check=0)
    assert done.stdout == f"600 lists written to {name}\n"
  assert len((place / "lists.jsonl").read_text().splitlines()) == 3000


def test_written_lists_are_evaluated_with_the_data_of_their_run(place):
  only = ("--preset=tiny", "--top_n=10", "--users=1,2,3,4,5,6,7,8")
  found = []
  for name, flag in (
    ("ten.parquet", ()),  # the file says which run
    ("ten.csv", ("--workdir=runs/demo-tiny-0",)),
    ("ten.jsonl", ("--workdir=runs/demo-tiny-0",)),
    ("ten.csv", ("--dataset=demo",)),
  ):
    call("recommend", *only, f"--out={name}", cwd=place, check=0)
    flags = (f"--recommendations={name}", *flag, "--ks=10", "--bootstrap=20", "--json_out=ten.json")
    call("evaluate", *flags, cwd=place, check=0)
    found.append(json.loads((place / "ten.json").read_text())["full"])
  assert found[0] == found[1] == found[2] == found[3] and found[0]["ndcg@10"]["n"] > 0
  flags = ("--recommendations=ten.parquet", "--bootstrap=20", "--json_out=ten.json")
  done = call("evaluate", *flags, cwd=place, check=0)
  assert (
    "the longest list has 10 items, so the cut-offs are 5,10, without 20,30,40,50" in done.stdout
  )
  full = json.loads((place / "ten.json").read_text())["full"]
  assert {name.partition("@")[2] for name in full} == {"5", "10"}
  for flags, words in (
    (["--recommendations=ten.parquet", "--ks=20,30"], ["--ks=20,30: the longest list has 10"]),
    (["--recommendations=ten.csv"], ["ten.csv", "--workdir", "--dataset"]),
    (["--recommendations=ten.csv", "--workdir=none"], ["none"]),
    (["--recommendations=ten.parquet", "--split_seed=3"], ["split_seed"]),
  ):
    line = error_line(call("evaluate", *flags, cwd=place, check=1))
    assert all(word in line for word in words), line
  call("recommend", *only, "--exclude_seen=false", "--out=seen.csv", cwd=place, check=0)
  flags = ("--recommendations=seen.csv", "--workdir=runs/demo-tiny-0")
  assert "training pairs" in error_line(call("evaluate", *flags, cwd=place, check=1))


def test_requests_are_filtered(place):
  ask = ("recommend", "--preset=tiny", "--top_n=4")
  (place / "few.txt").write_text("3\n8\n99999\n")
  (place / "pairs.csv").write_text("user_id,item_id\n1,3\n1,8\n2,5\n")
  done = call(
    *ask, "--users=1", "--only=genres=Horror|Romance", "--only=year=1980..", cwd=place, check=0
  )
  assert done.stdout.count("[") == 4
  done = call(*ask, "--users=1", "--only=few.txt", "--exclude=few.txt", cwd=place, check=0)
  assert "1 of 3 ids" in done.stdout and "user 1\n  nothing is left to recommend" in done.stdout
  done = call(*ask, "--candidates=pairs.csv", "--exclude_seen=false", cwd=place, check=0)
  shown = done.stdout
  assert shown.count("[") == 3 and "[5]" in shown.partition("user 2")[2]
  flags = ("--candidates=pairs.csv", "--users=1,9", "--exclude_seen=false", "--out=some.parquet")
  done = call(*ask, *flags, cwd=place, check=0)
  assert "1 list written to some.parquet; for 1 user nothing is left" in done.stdout
  rows = pq.read_table(place / "some.parquet").to_pylist()
  assert [row["user_id"] for row in rows] == ["1", "1"] and {"rank", "score"} <= rows[0].keys()
  flags = ("--users=1", "--only=few.txt", "--exclude=few.txt", "--out=none.parquet")
  call(*ask, *flags, cwd=place, check=0)  # columns are there without a row
  assert pq.read_table(place / "none.parquet").column_names[:3] == ["user_id", "item_id", "rank"]


def test_similar_items_are_printed_with_reasons(place):
  done = call("recommend", "--preset=tiny", "--similar_to=3", "--top_n=5", cwd=place, check=0)
  assert done.stdout.count("[") == 6 and "by cosine of the model's item vectors" in done.stdout
  assert "users who liked this" in done.stdout or "genre" in done.stdout


def test_own_tables_with_metadata_from_start_to_end(tmp_path):
  rng = np.random.default_rng(0)
  rows = [
    f"{u},b{i},{rng.integers(1, 6)},2020-01-{1 + k % 28:02d}"
    for u in range(40)
    for k, i in enumerate(rng.choice(30, 12, replace=False))
  ]
  (tmp_path / "mine.csv").write_text("who,what,stars,when\n" + "\n".join(rows) + "\n")
  (tmp_path / "meta.jsonl").write_text(
    "".join(
      json.dumps(
        {
          "item_id": f"b{i}",
          "title": f"Book {i}",
          "genres": ["A", "B"][i % 2],
          "overview": f"About {'ships' if i % 2 else 'trains'} and their captains.",
        }
      )
      + "\n"
      for i in range(31)  # one more than was ever rated
    )
  )
  flags = (
    "--dataset=mine.csv",
    "--user_column=who",
    "--item_column=what",
    "--rating_column=stars",
    "--time_column=when",
    "--item_metadata=meta.jsonl",
  )
  model = ("--model=content_knn", "--encoder=lexical", "--bootstrap=20", "--split=leave_last")
  call("train", *model, *flags, "--workdir=w", cwd=tmp_path, check=0)
  done = call("recommend", "--workdir=w", "--users=7", "--top_n=40", cwd=tmp_path, check=0)
  assert "Book 30  [b30]" in done.stdout  # an item without any rating is a candidate


@pytest.mark.parametrize(
  ("flags", "code", "words"),
  [
    (["--presets=tiny"], 2, ["presets"]),
    (["tiny"], 2, ["'tiny' is not a flag"]),
    (["--seed=one"], 2, ["seed"]),
    (["--preset=huge"], 1, ["--preset=huge", "paper", "tiny"]),
    (["--set=learning_rat=1"], 1, ["learning_rat", "learning_rate"]),
    (["--set=epochs"], 1, ["field=value"]),
    (["--set=epochs=2.5"], 1, ["epochs", "whole number"]),
    (["--dataset=ml-100m"], 1, ["ml-100m", "ml-100k"]),
    (["--dataset=ml-100k", "--fold=u9", "--data_dir=."], 1, ["u9", "u1"]),
    (["--dataset=nowhere.csv"], 1, ["nowhere.csv"]),
    (["--valid_share=0"], 1, ["valid_share"]),
    (["--encoder=nowhere/"], 1, ["--encoder", "nowhere"]),
    (["--item_profiles=nowhere.jsonl"], 1, ["nowhere.jsonl"]),
    (["--workdir=file/inside"], 1, ["--workdir"]),
  ],
)
def test_wrong_input_is_one_line_and_writes_no_results(tmp_path, flags, code, words):
  (tmp_path / "file").write_text("")
  done = call("train", "--preset=tiny", "--encoder=lexical", *flags, cwd=tmp_path, check=code)
  line = error_line(done)
  assert all(word in line for word in words), line
  assert not list(tmp_path.rglob("results.json"))


@pytest.mark.parametrize(("flag", "code"), [("--seed=one", 2), ("--dataset=nowhere.csv", 1)])
def test_a_refusal_of_the_process_is_the_same(tmp_path, flag, code):
  lines = [error_line(by("train", flag, cwd=tmp_path, check=code)) for by in (launch, call)]
  assert lines[0] == lines[1]


def test_wrong_requests_to_a_run(place):
  unknown = launch("recommend", "--preset=tiny", "--users=5000", cwd=place, check=1)
  assert "user 5000" in error_line(unknown)
  for flags, words in (
    (["--users=5000"], ["user 5000", "600"]),
    (["--liked=5000"], ["item 5000"]),
    (["--top_n=0"], ["--top_n"]),
    (["--out=lists.xlsx"], [".parquet"]),
    (["--workdir=runs/none"], ["runs/none"]),
    (["--disliked=3"], ["--liked"]),
    (["--only=genres=Hrror"], ["--only", "horror"]),
    (["--exclude=colour=red"], ["--exclude", "colour", "genres"]),
    (["--only=nowhere.csv"], ["--only", "nowhere.csv"]),
    (["--candidates=nowhere.csv"], ["nowhere.csv"]),
    (["--candidates=x", "--liked=3"], ["--candidates", "--only"]),
    (["--similar_to=5000"], ["item 5000"]),
    (["--similar_to=3", "--users=1"], ["--similar_to", "--users"]),
  ):
    done = call("recommend", "--preset=tiny", *flags, cwd=place, check=1)
    assert all(word in error_line(done) for word in words)
  done = call("evaluate", "--preset=tiny", "--split_seed=7", cwd=place, check=1)
  assert "split_seed" in error_line(done)


def test_new_ratings_are_used_without_training(place):
  flags = ("--preset=tiny", "--users=77777", "--top_n=5", "--new_ratings=new.csv")
  (place / "new.csv").write_text(
    "user_id,item_id,rating\n77777,3,5\n77777,8,4.5\n77777,12,1\n1,99999,5\n"
  )
  done = call("recommend", *flags, cwd=place, check=0)
  assert "new ratings 4, new users 1, new items 1" in done.stderr + done.stdout
  assert done.stdout.count("[") >= 5 and "[3]" not in done.stdout
  (place / "items.jsonl").write_text('{"item_id": 99999, "title": "Late (1999)"}\n{"item_id": 3}\n')
  done = call("recommend", *flags, "--new_items=items.jsonl", cwd=place, check=0)
  assert "new items 1, known items left unchanged 1" in done.stdout
  done = call("recommend", *flags[:-1], "--users=1", "--new_items=no.jsonl", cwd=place, check=1)
  assert "no.jsonl" in error_line(done)
  (place / "new.csv").write_text("person,item_id,rating\n1,3,5\n")
  done = call("recommend", *flags, cwd=place, check=1)
  assert "new.csv" in error_line(done) and "user_id" in error_line(done)


def test_events_that_the_run_does_not_know_are_left_out_by_the_user(tmp_path):
  rows = [
    f"u{u},i{(u * k) % 11},{'view' if k % 3 else 'purchase'}" for u in range(30) for k in range(8)
  ]
  (tmp_path / "events.csv").write_text("user_id,item_id,event\n" + "\n".join(rows) + "\n")
  (tmp_path / "more.csv").write_text("user_id,item_id,event\nu1,i2,view\nu1,i3,wink\n")
  call("train", "--dataset=events.csv", "--model=ease", "--workdir=w", cwd=tmp_path, check=0)
  ask = ("recommend", "--workdir=w", "--users=u1", "--new_ratings=more.csv")
  line = error_line(call(*ask, cwd=tmp_path, check=1))
  assert line == (
    "error: --new_ratings: more.csv: column 'event' holds events without a weight: wink (1); the "
    "run has none for them, so leave these rows out, or give launch.train every event's weight by "
    "--event_weights"
  )


def test_refit_chooses_apart_and_trains_on_all(tmp_path):
  write_table(tmp_path)
  flags = (
    "--model=bpr_mf",
    "--dataset=ratings.csv",
    "--set=width=8",
    "--set=epochs=20",
    "--bootstrap=0",
    "--workdir=w",
    "--refit",
    "--json_out=r.json",
  )
  done = call("train", *flags, cwd=tmp_path, check=0)
  chosen, final = (
    json.loads((tmp_path / name / "results.json").read_text()) for name in ("w/choosing", "w")
  )
  assert final["epochs_run"] == chosen["epoch"] and "NDCG@10" in done.stdout
  parts = [
    pq.read_table(tmp_path / name / "data/interactions.parquet")["part"].to_pylist()
    for name in ("w/choosing", "w")
  ]
  assert (parts[0].count(1) > 0, parts[1].count(1)) == (True, 0)
  assert parts[0].count(2) == parts[1].count(2)
  assert json.loads((tmp_path / "r.json").read_text())["full"] == final["full"]
  done = call("train", *flags[:-2], cwd=tmp_path, check=1)
  assert "another configuration" in error_line(done)


def test_two_programs_in_one_folder(place):
  import fcntl

  with open(place / "runs/demo-tiny-0/.lock", "w") as handle:
    fcntl.flock(handle, fcntl.LOCK_EX)
    done = call("train", *TRAIN, cwd=place, check=1)
  assert "another process" in error_line(done)


def test_leaking_profiles_are_refused(tmp_path):
  profiles = SHARED / "data/published/profiles_ml100k_users.jsonl"
  if not profiles.exists():
    pytest.skip("needs ../shared")
  flags = (f"--data_dir={SHARED / 'data'}", f"--user_profiles={profiles}", "--dataset=ml-100k")
  for more in (["--fold=u2"], ["--fold=u1", "--valid_share=0.1"]):
    done = call("prepare", "--preset=paper", *flags, *more, "--workdir=w", cwd=tmp_path, check=1)
    assert "u1" in error_line(done)
  call("prepare", "--preset=paper", *flags, "--fold=u1", "--workdir=w", cwd=tmp_path, check=0)


def test_every_program_keeps_what_it_compiles(tmp_path):
  code = (
    "from launch import cli\n"
    "import jax.numpy as jnp\n"
    "cli.run(lambda: print(jnp.arange(7).sum()), 'A program.', ['program'])"
  )
  done = subprocess.run(
    [sys.executable, "-c", code],
    capture_output=True,
    text=True,
    check=True,
    timeout=120,
    env=environment(tmp_path) | {"JAX_COMPILATION_CACHE_DIR": ""},
  )
  assert done.stdout == "21\n" and not done.stderr
  assert any(tmp_path.glob("cache/compiled/*"))


def test_a_cache_folder_that_cannot_be_made_is_not_used(tmp_path, monkeypatch):
  (tmp_path / "cache").write_text("")
  monkeypatch.setenv("GATREC_CACHE", str(tmp_path / "cache"))
  monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
  before = jax.config.jax_compilation_cache_dir
  entry._keep_compiled_programs()
  assert jax.config.jax_compilation_cache_dir == before
