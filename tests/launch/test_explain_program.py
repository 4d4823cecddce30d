"""launch.explain as users run it: on the console, in files, audited, resumed, refused."""

import functools
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.gguf_files import bpe_fields, write_gguf
from helpers.programs import call, error_line, launch
from helpers.rerank_table import write_table

from gatrec_jax import lm
from gatrec_jax.explain import STYLES, builtin_author
from gatrec_jax.explain.builtin_author import AuthorRecipe

USERS, ITEMS = 16, 32


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  folder = tmp_path_factory.mktemp("explain")
  write_table(folder, users=USERS, items=ITEMS)
  call(
    "train",
    "--dataset=ratings.csv",
    "--item_metadata=items.jsonl",
    "--encoder=lexical",
    "--set=epochs=4",
    "--set=evaluate_every=4",
    "--set=feature_width=16",
    "--set=layers=1",
    "--set=linear_choice=fixed",
    "--bootstrap=0",
    "--workdir=run",
    cwd=folder,
    check=0,
  )
  return folder


def explain(place, *flags, check=0, by=call):
  """Calls the program with templates as the author, unless a test gives another --llm."""
  return by("explain", "--workdir=run", "--llm=none", *flags, cwd=place, check=check)


def test_a_process_refuses_with_the_same_line(place):
  lines = [error_line(explain(place, "--top_n=0", check=1, by=by)) for by in (launch, call)]
  assert lines[0] == lines[1]


def rows(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_reasons_are_printed(place):
  done = explain(place, "--users=3,4", "--top_n=2")
  assert done.stdout.count("user ") == 2 and done.stdout.count("[") == 4
  assert "liked" in done.stdout or "rating" in done.stdout
  one = explain(place, "--users=3", "--items=" + done.stdout.split("[")[1].split("]")[0])
  assert one.stdout.count("[") == 1


def test_recommend_prints_reasons(place):
  done = call(
    "recommend",
    "--workdir=run",
    "--users=3",
    "--top_n=2",
    "--explain",
    "--style=detailed",
    "--llm=none",
    cwd=place,
    check=0,
  )
  assert done.stdout.count("[") == 2 and "genres" in done.stdout or "of the" in done.stdout
  refused = call(
    "recommend", "--workdir=run", "--users=3", "--explain", "--out=x.csv", cwd=place, check=1
  )
  assert "--explain: works on the console, for --users" in error_line(refused)


def test_positions_of_filtered_lists_count_what_is_left(place):
  ask = ("recommend", "--workdir=run", "--users=3", "--explain", "--llm=none")
  whole = call(*ask, "--top_n=3", cwd=place, check=0).stdout
  ids = re.findall(r"\[(\d+)\]$", whole, re.MULTILINE)
  (place / "second.txt").write_text(ids[1] + "\n")
  left = call(
    *ask, "--top_n=2", "--exclude=second.txt", "--style=detailed", cwd=place, check=0
  ).stdout
  assert re.findall(r"^ +(\d)(  \(was 3\))?  .*\[(\d+)\]$", left, re.MULTILINE) == [
    ("1", "", ids[0]),
    ("2", "  (was 3)", ids[2]),
  ]
  assert "re-rank" not in left.lower()


def test_a_new_user_s_reasons_come_from_a_file_of_rows(place):
  ask = ("recommend", "--workdir=run", "--explain", "--llm=none", "--top_n=2")
  line = error_line(call(*ask, "--liked=3", cwd=place, check=1))
  assert "--new_ratings=FILE and --users=ID instead of --liked" in line
  header = (place / "ratings.csv").read_text().splitlines()[0]
  assert header.startswith("user_id,item_id,rating")
  rest = ",0" * (header.count(",") - 2)
  (place / "new.csv").write_text(f"{header}\n900,3,5{rest}\n900,7,5{rest}\n")
  done = call(*ask, "--new_ratings=new.csv", "--users=900", cwd=place, check=0)
  assert done.stdout.count("[") == 2 and "user 900" in done.stdout


def test_a_file_of_reasons_is_resumed(place):
  path = place / "reasons.jsonl"
  flags = (f"--out={path.name}", "--top_n=3", "--style=detailed")
  assert "reasons are in reasons.jsonl" in explain(place, *flags).stdout
  whole = rows(path)
  assert len(whole) == USERS * 3
  assert {row["user_id"] for row in whole} == {str(user) for user in range(USERS)}
  for row in whole:
    assert row["text"] == " ".join(row["sentences"]) and row["checks"]["unsupported"] == []
    assert row["checks"]["claims"] > 0 and row["model"] == "template" and row["seconds"] > 0
    assert all(cited["score_drop"] > 0 for cited in row["evidence"]["cited"])
  assert sum(bool(row["evidence"]["cited"]) for row in whole) > USERS
  text = path.read_text()
  path.write_text(text[: len(text) // 2])  # in the middle of a line
  assert "reasons.jsonl already contains " in explain(place, *flags).stdout

  def without_time(own):
    return [{k: v for k, v in row.items() if k not in ("seconds", "digest")} for row in own]

  assert without_time(rows(path)) == without_time(whole)
  text = path.read_text()
  done = explain(place, *flags, "--users=7,8").stdout  # nothing is added, and nobody is lost
  assert f"reasons.jsonl already contains {USERS} users" in done and path.read_text() == text
  other = explain(place, f"--out={path.name}", "--top_n=3", check=1)
  assert "contains reasons with style detailed instead of short" in error_line(other)
  assert without_time(rows(path)) == without_time(whole)
  # Another list of the same users, from a file, is not mixed with the run's own.
  lines = [f"{user},{item},{rank}" for user, item, rank in lists_backwards(whole)]
  (place / "backwards.csv").write_text("user_id,item_id,rank\n" + "\n".join(lines) + "\n")
  other = explain(place, *flags, "--recommendations=backwards.csv", check=1)
  assert "contains reasons for another list of user" in error_line(other)
  # A damaged line is made again, a file of another run is refused.
  damaged = path.read_text().replace("because", "becaus3", 1)
  path.write_text(damaged if damaged != text else text.replace('"rank": 1', '"rank": 9', 1))
  done = explain(place, *flags).stdout
  assert "1 damaged lines in reasons.jsonl: made again" in done
  assert sorted(map(str, without_time(rows(path)))) == sorted(map(str, without_time(whole)))


def lists_backwards(reasons):
  """User, item and rank of lists with the items of `reasons` in reverse order, with a new one."""
  by_user = {}
  for row in reasons:
    by_user.setdefault(row["user_id"], []).append(row["item_id"])
  return [
    (user, item, rank)
    for user, items in by_user.items()
    for rank, item in enumerate(reversed(items), 1)
  ]


def test_lists_of_a_file_are_explained(place):
  done = explain(place, "--users=5", "--top_n=3")
  ids = [line.split("[")[1].split("]")[0] for line in done.stdout.splitlines() if "[" in line]
  (place / "theirs.csv").write_text(
    "user_id,item_id,rank\n" + "".join(f"5,{i},{r}\n" for r, i in enumerate(ids[::-1], 1))
  )
  flags = ("--recommendations=theirs.csv", "--top_n=3", "--style=detailed")
  moved = explain(place, *flags, "--users=5").stdout
  assert "(was 3)" in moved and "from position 3 to position 1" in " ".join(moved.split())
  assert "has no list of user 6" in error_line(explain(place, *flags, "--users=6", check=1))


def test_records_contain_the_components_of_a_re_ranked_score(place):
  raw = pq.read_table(place / "run/recommendations.parquet").to_pylist()
  own = [row | {"component_base": 1.5 - row["rank"], "component_llm": 0.25} for row in raw]
  for row in own:
    if row["rank"] == 2:
      row["component_llm"] = float("nan")  # not a candidate
    if row["rank"] == 3:
      row["component_llm"] = None
    row["component_of"] = "a series"
  pq.write_table(pa.Table.from_pylist(own), place / "reranked.parquet")
  explain(
    place, "--recommendations=reranked.parquet", "--users=5", "--top_n=3", "--out=reranked.jsonl"
  )
  components = [row["evidence"]["reranked"] for row in rows(place / "reranked.jsonl")]
  assert components == [{"base": 0.5, "llm": 0.25}, {}, {}]


def test_an_audit_is_printed_and_written(place):
  flags = ("--audit=10", "--top_n=5", "--retrain=2", "--json_out=audit.json", "--style=detailed")
  done = explain(place, *flags)
  figures = json.loads((place / "audit.json").read_text())
  assert (figures["model"], figures["template_share"]) == ("template", 1.0)
  assert figures["pairs"] == 10 and figures["evidence_precision"] == 1.0
  assert re.search(r"evidence precision\W+1\.0000", done.stdout) and figures["environment"]
  assert figures["retrained_pairs"] == 2 and set(figures["retrained_rank_falls"]) == {
    "cited",
    "random",
  }
  assert not any((place / "run/retrained").iterdir())


def test_an_untrained_model_writes_every_sentence(place, monkeypatch):
  recipe = functools.partial(
    AuthorRecipe, texts=40, steps=2, width=16, layers=1, batch_size=2, row_tokens=64
  )
  monkeypatch.setattr(builtin_author, "AuthorRecipe", recipe)
  flags = ("--users=3", "--top_n=2", "--out=written.jsonl")
  done = explain(place, *flags, "--llm=builtin")
  assert "building a small language model that rephrases facts" in done.stdout + done.stderr
  written = rows(place / "written.jsonl")
  assert {row["model"] for row in written} == {"builtin"}
  assert all(row["by_template"] == 0 for row in written)
  assert all(row["checks"]["unsupported"] == [] for row in written)
  assert "templates" not in explain(place, "--users=3", "--top_n=2", "--llm=builtin").stdout
  other = explain(place, *flags, check=1)
  assert "model builtin instead of template, other weights" in error_line(other)


def test_reasons_come_from_a_file_of_llama_cpp(place, tmp_path):
  sizes = dict(vocabulary=300, width=32, layers=1, heads=2, kv_heads=1, inner=32, context=1024)
  small = lm.build_small(["You liked it."] * 8, tmp_path / "small", **sizes, steps=1)
  tokens = bpe_fields(tmp_path / "small", cut="gpt-2")
  file = write_gguf(tmp_path / "small", tmp_path / "own.gguf", kind="Q8_0", more=tokens)
  explain(place, "--users=3,4", "--top_n=2", f"--llm={file}", "--out=gguf.jsonl")
  written = rows(place / "gguf.jsonl")
  assert [row["by_template"] for row in written] == [0] * 4
  assert {row["model"] for row in written} == {"own"}
  assert all(row["checks"]["unsupported"] == [] for row in written)
  # Templates replace what does not fit into the context.
  short = tokens | {f"{small.config.family}.context_length": 48}
  write_gguf(tmp_path / "small", file, kind="Q8_0", more=short)
  shown = explain(place, "--users=3", "--top_n=2", f"--llm={file}").stdout
  assert "4 of 4 sentences are templates, because own could not state their facts" in shown


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--users=3", "--style=long"], f"--style=long: must be one of {', '.join(STYLES)}"),
    (["--users=3", "--top_n=0"], "--top_n=0: must be at least 1"),
    (["--users=nobody"], f"user nobody: not in the catalog ({USERS} users"),
    (["--users=3", "--items=999"], f"item 999: not in the catalog ({ITEMS} items"),
    ([], "--out: name a .jsonl file for the reasons of all users, or give --users"),
    (["--out=reasons.csv"], "--out=reasons.csv: must end in .jsonl"),
    (["--out=ratings.jsonl"], "--out=ratings.jsonl: exists and does not contain reasons"),
    (["--items=3", "--out=x.jsonl"], "--items: needs --users"),
    (["--users=3", "--llm=nowhere/at-all-x"], "nowhere/at-all-x"),
    (["--users=3", "--llm="], "--llm: give a model folder"),
    (["--users=3", "--lora=x"], "--lora: needs a model folder, not --llm=none"),
    (["--users=3", "--prefilter=-1"], "--prefilter=-1: must be at least 0"),
    (["--audit=-1"], "--audit=-1: must be at least 1"),
    (["--workdir=nothing", "--users=1"], "is --workdir a folder that launch.train made?"),
  ],
)
def test_wrong_input_is_one_line(place, flags, message):
  (place / "ratings.jsonl").write_text('{"item_id": 1}\n')
  assert message in error_line(explain(place, *flags, check=1))
  assert not (place / "x.jsonl").exists()
