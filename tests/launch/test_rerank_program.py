"""launch.rerank and launch.finetune as users run them: comparison, kills, refusals."""

import csv
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers.paths import ROOT
from helpers.programs import TINY, call, environment, error_line, launch
from helpers.rerank_table import write_table

from gatrec_jax.lm.folders.export import export_folder
from gatrec_jax.rerank.strategies.registry import STRATEGIES

DATA = ("--bootstrap=20", "--dataset=ratings.csv", "--item_metadata=items.jsonl")
TRAIN = (*TINY, *DATA)
# In batches of 32 users, the 60 of the test part and the 31 of validation have the same shapes.
RERANK = ("--llm=model", "--top_candidates=6", "--history=6", "--batch_size=32")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """A folder with a table, a run, a random decoder, and lists from another tool."""
  from helpers.tiny_decoder import tiny_config
  from helpers.tiny_reranker import tiny_reranker

  folder = tmp_path_factory.mktemp("place")
  titles = write_table(folder)
  export_folder(tiny_reranker(titles, layers=tiny_config().layers[:1]), folder / "model")
  call("train", *TRAIN, "--workdir=run", cwd=folder, check=0)
  lists = pq.read_table(folder / "run/recommendations.parquet").to_pylist()
  with open(folder / "lists.csv", "w", newline="") as out:
    writer = csv.writer(out)
    writer.writerow(["user_id", "item_id", "rank"])
    writer.writerows([row["user_id"], row["item_id"], row["rank"]] for row in lists)
  return folder


@pytest.fixture(scope="module")
def label_scores(place):
  """The folder of a run of the program in a process of its own, with the scores of `label`."""
  before = set(folders(place))
  rerank(place, by=launch)
  (new,) = set(folders(place)) - before
  return new


def rerank(place, *flags, workdir="run", by=call):
  return by("rerank", f"--workdir={workdir}", *RERANK, *flags, cwd=place, check=0)


def refused(place, *flags, workdir="run", by=call):
  """The error line of a call of launch.rerank with invalid flags."""
  return error_line(by("rerank", f"--workdir={workdir}", *RERANK, *flags, cwd=place, check=1))


def cost_of(folder):
  """What scoring cost, but for the speed."""
  cost = json.loads((folder / "results.json").read_text())["cost"]
  assert cost.pop("lists_per_second") > 0 and cost["tokens_per_list"] > 0
  return cost


def folders(place, workdir="run"):
  return sorted((place / workdir / "rerank").glob("*"))


def test_all_strategies_are_compared(place):
  done = rerank(place, "--strategy=all", "--json_out=all.json", "--top_candidates=4", "--history=3")
  found = json.loads((place / "all.json").read_text())
  assert list(found) == list(STRATEGIES)
  assert all(name in done.stdout for name in STRATEGIES)
  base = {json.dumps(results["metrics"]["base"]) for results in found.values()}
  assert len(base) == 1
  for name, results in found.items():
    assert results["cost"]["tokens_per_list"] > 0 and results["cost"]["lists_per_second"] > 0
    assert (results["strategy"], results["llm_name"]) == (name, "model")
    lists = pq.read_table(next(place.glob(f"run/rerank/{name}-*/recommendations.parquet")))
    before = pq.read_table(place / "run/recommendations.parquet")

    def pairs(table):
      return {(r["user_id"], r["item_id"]) for r in table.to_pylist()}

    assert pairs(lists) == pairs(before)


def test_the_model_is_not_queried_again_for_other_settings_of_fusion(place, label_scores):
  stamps = {path: path.stat().st_mtime_ns for path in label_scores.glob("*.jsonl")}
  before = len(folders(place))
  rerank(place, "--fusion=zscore", "--features=popularity", "--diversity=0.5")
  assert stamps == {path: path.stat().st_mtime_ns for path in stamps} and stamps
  assert len(folders(place)) == before


def test_lists_of_some_users_are_shown_with_their_former_positions(place):
  done = rerank(place, "--users=3,5", "--top_n=4")
  assert done.stdout.count("(was ") == 8 and "user 3" in done.stdout and "Film" in done.stdout


def test_a_file_of_lists_needs_no_trained_run(place):
  done = rerank(
    place,
    "--candidates=lists.csv",
    "--dataset=ratings.csv",
    "--item_metadata=items.jsonl",
    "--preset=tiny",
    workdir="theirs",
  )
  assert "lists.csv" in done.stdout and "re-ranking" not in done.stderr
  results = json.loads((folders(place, "theirs")[0] / "results.json").read_text())
  assert len(results["fusion"]) == 2  # one for each half of the users
  assert not (place / "theirs/checkpoints").exists()


def test_a_fine_tuned_model_has_an_adapter_and_its_own_folder(place):
  # The folds of a fitted model take no training; those of a GAT are in test_builtin.py.
  data = (*DATA, "--valid_share=0.1")
  call("train", "--model=ease", *data, "--workdir=fitted", cwd=place, check=0)
  done = call(
    "finetune",
    "--workdir=fitted",
    "--llm=model",
    "--top_candidates=6",
    "--history=6",
    "--out_of_fold=2",
    "--tune=steps=3",
    "--tune=lora_rank=2",
    "--json_out=tuned.json",
    cwd=place,
    check=0,
  )
  adapter = place / "fitted/finetuned/model-label/adapter"
  assert (adapter / "adapter_model.safetensors").exists() and f"--lora={adapter}" not in done.stderr
  shown = "launch.rerank --workdir=fitted --llm=model --lora=fitted/finetuned/model-label/adapter"
  assert shown in done.stdout
  history = json.loads((place / "tuned.json").read_text())["history"]
  assert history[-1]["step"] == 3 and np.isfinite(history[-1]["valid_loss"])
  other = ("--objective=ranknet", "--tune=steps=1", "--top_candidates=6", "--history=6")
  flags = ("--workdir=fitted", "--llm=model", "--out_of_fold=2", *other)
  call("finetune", *flags, cwd=place, check=0)
  assert (place / "fitted/finetuned/model-label-ranknet/adapter").is_dir()
  rerank(place, f"--lora={adapter.relative_to(place)}", workdir="fitted")
  (new,) = folders(place, "fitted")
  assert new.name.startswith("label-model-")


def test_a_model_learns_histories_for_as_long_as_it_may(place):
  flags = ("--workdir=run", "--llm=model", "--strategy=title", "--history=6", "--minutes=0.001")
  done = call("finetune", *flags, "--json_out=titles.json", cwd=place, check=0)
  pace = json.loads((place / "run/finetuned/model-title/pace.json").read_text())
  history = json.loads((place / "titles.json").read_text())["history"]
  # The least number of steps takes longer than that, but three epochs are the most.
  assert history[-1]["step"] == min(20, 3 * pace["steps_per_epoch"])
  assert f"plan: {history[-1]['step']} steps" in done.stdout and "out of fold" not in done.stdout
  assert (place / "run/finetuned/model-title/adapter/adapter_model.safetensors").exists()


def test_a_sample_is_measured_over_its_own_users(place):
  flags = ("--max_users=16", "--measure_only", "--valid_users=20", "--json_out=few.json")
  done = rerank(place, *flags)
  (results,) = json.loads((place / "few.json").read_text()).values()
  assert {found["ndcg@10"]["n"] for found in results["metrics"].values()} == {16}
  assert results["fusion"][0]["gain"]["n"] == results["plan"]["valid_users"] == 20
  assert results["cost"]["lists"] == results["plan"]["test_lists"] + results["plan"]["valid_lists"]
  assert "plan: label by model takes" in done.stdout and "of 20 of 31" in done.stdout


def test_a_killed_job_resumes_to_the_same_bytes(place, label_scores):
  whole = label_scores
  wanted = {path.name: path.read_bytes() for path in whole.glob("*.jsonl")}
  cost = cost_of(whole)
  for path in whole.glob("*.json*"):
    path.unlink()
  command = [sys.executable, "-m", "launch.rerank", "--workdir=run", *RERANK]
  process = subprocess.Popen(
    command, cwd=place, env=environment(place), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
  )
  deadline = time.monotonic() + 120
  while not list(whole.glob("*.jsonl")) and time.monotonic() < deadline:
    time.sleep(0.01)
  process.send_signal(signal.SIGKILL)
  process.wait()
  assert not (whole / "results.json").exists()
  rerank(place)
  assert {path.name: path.read_bytes() for path in whole.glob("*.jsonl")} == wanted
  assert cost_of(whole) == cost and cost["lists"] == sum(b.count(b"\n") for b in wanted.values())


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--strategy=taste"], "--strategy=taste: must be one of label, pointwise"),
    (["--llm=none"], "--llm=none: re-ranking needs a model"),
    (["--llm=nowhere/at-all-x"], "nowhere/at-all-x"),
    (["--top_candidates=0"], "--top_candidates=0: must be at least 1"),
    (["--users=nobody"], "--users=nobody: not in the catalog"),
    (["--valid_users=0"], "--valid_users=0: must be at least 1"),
    (["--minutes=0"], "--minutes=0.0: must be above 0"),
    (["--max_users=0"], "--max_users=0: must be at least 1"),
    (["--max_users=3", "--users=1"], "--max_users=3: leave it out where --users names them"),
    (["--measure_only", "--users=1"], "--measure_only: writes no lists; leave out --users"),
    (["--measure_only", "--diversity=0.5"], "--diversity: needs every list"),
    (["--features=taste"], "--features=taste: must be any of popularity"),
    (["--diversity=3"], "--diversity=3.0: must lie in"),
    (["--fusion=sum"], "--fusion=sum: not one of zscore"),
    (["--history=-1"], "--history=-1: must be at least 0"),
    (["--top_n=0"], "--top_n=0"),
    (["--users="], "--users: give user ids, or all"),
    (["--attention=nothing"], "nothing"),
    (["--lora=run"], "--lora=run: has no adapter_config.json"),
    (["--permutations=0"], "--permutations=0"),
    (["--batch_size=0"], "--batch_size=0"),
    (["--dataset=ml-1m"], "--dataset=ml-1m: the run was made with"),
    (["--workdir=nothing"], "nothing"),
    (["--candidates=missing.csv"], "missing.csv: no such file"),
    (["--json_out=no/such/x.json"], "--json_out=no/such/x.json"),
  ],
)
def test_wrong_input_is_one_line(place, flags, message):
  assert message in refused(place, *flags)


def test_a_process_refuses_with_the_same_line(place):
  assert refused(place, "--users=nobody", by=launch) == refused(place, "--users=nobody")
  wrong = ("finetune", "--workdir=run", "--llm=model", "--out_of_fold=1")
  lines = [error_line(by(*wrong, cwd=place, check=1)) for by in (launch, call)]
  assert lines[0] == lines[1]


def test_candidates_with_unknown_or_repeated_ids_are_refused(place):
  for text, message in (
    ("1,nothing,1\n", "row 1: item_id nothing is unknown"),
    ("1,2,1\n1,2,2\n", "twice for user 1"),
  ):
    (place / "bad.csv").write_text("user_id,item_id,rank\n" + text)
    assert message in refused(place, "--candidates=bad.csv")


def test_a_run_without_validation_part_is_refused(place):
  # A fitted model takes no training; a GAT fails at the same check.
  call("train", "--model=popularity", *DATA, "--workdir=bare", cwd=place, check=0)
  assert "train with --valid_share=0.1" in refused(place, workdir="bare")


def test_invalid_settings_of_fine_tuning_are_one_line(place):
  for flags, message in (
    (["--tune=speed=3"], "--tune=speed=3: no such field; the fields are mode, learning_rate"),
    (["--tune=steps=many"], "--tune=steps=many: must be int"),
    (["--strategy=title,label"], "--strategy=title,label: title is learned alone"),
    (["--minutes=-1"], "--minutes=-1.0: must be above 0"),
    (["--objective=hinge"], "--objective=hinge: must be one of softmax, listnet, ranknet"),
    (
      ["--strategy=title", "--objective=ranknet"],
      "--objective=ranknet: title learns the next line",
    ),
    (["--strategy=listwise"], "--strategy=listwise: must be one of label, pairwise, pointwise"),
    (["--llm=builtin", "--tune=steps=3"], "--tune: the builtin model has its own recipe"),
    (["--out_of_fold=1"], "--out_of_fold=1: must be at least 2"),
  ):
    done = call("finetune", "--workdir=run", "--llm=model", *flags, cwd=place, check=1)
    assert message in error_line(done)


def test_the_programs_have_help():
  for program in ("rerank", "finetune"):
    done = launch(program, "--help", cwd=ROOT, check=0)
    assert "builtin" in done.stdout and "--top_candidates" in done.stdout
