"""launch.compare on the demo catalog, and models through train, evaluate and recommend."""

import json

import pytest
from helpers.programs import call, error_line, launch

SMALL = ("--bootstrap=200",)
QUICK = "bpr_mf:width=8:batch_size=0:epochs=4:evaluate_every=2:learning_rate=0.05"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  return tmp_path_factory.mktemp("compare")


@pytest.fixture(scope="module")
def done(place):
  return call(
    "compare",
    f"--models=ease,popularity,{QUICK}",
    "--seeds=0",
    "--split_seeds=0,1",
    "--norefit",  # the split by users below refits
    *SMALL,
    "--workdir=c",
    "--json_out=c.json",
    "--markdown",
    "--reference=popularity",
    "--below=12,2",
    cwd=place,
    check=0,
  )


def test_one_table_with_verdicts(place, done):
  tree = json.loads((place / "c.json").read_text())
  assert tree["reference"] == "popularity" and tree["num_resamples"] == 200
  models = tree["models"]
  assert list(models) == sorted(models, key=lambda m: -models[m]["full"]["ndcg@10"]["mean"])
  assert models["ease"]["full"]["ndcg@10"]["against_reference"]["verdict"] == "ahead"
  assert models["ease"]["seeds"] == [0] and models["bpr_mf"]["seeds"] == [0]
  assert models["ease"]["parts"] == ["random-0", "random-1"] and len(models["bpr_mf"]["runs"]) == 2
  assert models["ease"]["train_seconds"] > 0 and models["ease"]["peak_memory_mb"] > 50
  assert "| ease | 0." in done.stdout and "ahead" in done.stdout and "Holm" in done.stdout
  few, everyone = (models["ease"][name]["ndcg@10"]["n"] for name in ("full_below_12", "full"))
  assert 0 < few < everyone and "fewer than 12 training ratings" in done.stdout
  assert "below 2: no user has so few" in done.stdout


def test_the_same_command_trains_nothing_again(place, done):
  again = call(
    "compare",
    "--models=ease,popularity",
    "--split_seeds=0,1",
    "--norefit",
    *SMALL,
    "--workdir=c",
    cwd=place,
    check=0,
  )
  assert again.stdout.count("already finished, kept") == 4 and "fitted in" not in again.stdout


def test_a_split_by_whole_users_has_a_table_for_each_number_of_given_ratings(tmp_path):
  done = call(
    "compare",
    "--models=popularity,ease,bpr_mf:width=8:epochs=1:evaluate_every=1",
    *SMALL,
    "--split=cold_users",
    "--json_out=c.json",
    cwd=tmp_path,
    check=0,
  )
  models = json.loads((tmp_path / "c.json").read_text())["models"]
  assert models["ease"]["given_5"]["ndcg@10"]["against_reference"]["verdict"] == "ahead"
  assert "given_5" in models["popularity"] and "full" in models["bpr_mf"]
  assert "given_5" not in models["bpr_mf"]  # which would have to be trained again
  assert "given 10: users without training ratings" in " ".join(done.stdout.split())


def test_default_metrics_follow_the_cutoffs(tmp_path):
  flags = ("--models=popularity,ease", "--ks=5", *SMALL, "--workdir=c", "--json_out=c.json")
  call("compare", *flags, cwd=tmp_path, check=0)
  models = json.loads((tmp_path / "c.json").read_text())["models"]
  assert {"ndcg@5", "recall@5"} == set(models["ease"]["full"])


def test_finished_runs_are_compared_and_other_splits_refused(place, done):
  folders = ["c/random-0/ease-0", "c/random-0/popularity-0"]
  both = call("compare", f"--runs={','.join(folders)}", *SMALL, cwd=place, check=0)
  assert "ease-0" in both.stdout and "reference" in both.stdout
  other = call(
    "compare", f"--runs={folders[0]},c/random-1/popularity-0", *SMALL, cwd=place, check=1
  )
  assert "results of different splits cannot be compared" in error_line(other)


def test_a_baseline_is_evaluated_and_recommends_like_the_gat(place, done):
  run = "--workdir=c/random-0/ease-0"
  evaluated = call("evaluate", run, *SMALL, cwd=place, check=0)
  ndcg = json.loads((place / "c.json").read_text())["models"]["ease"]["full"]["ndcg@10"]["mean"]
  assert "ndcg" in evaluated.stdout and ndcg > 0
  known = call("recommend", run, "--users=1", "--top_n=3", cwd=place, check=0)
  new = call("recommend", run, "--liked=1,2,3", "--top_n=3", cwd=place, check=0)
  assert known.stdout.count("[") == new.stdout.count("[") == 3
  refused = call("recommend", "--workdir=c/random-0/bpr_mf-0", "--liked=1,2", cwd=place, check=1)
  assert "users who were not in training" in error_line(refused)
  vectors = call("recommend", run, "--users=1", "--export_embeddings=v", cwd=place, check=0)
  assert "vectors of 800 numbers written to v" in vectors.stdout


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--models=eaze"], "--models=eaze: unknown; did you mean ease"),
    (
      ["--models=ease:lambda=3"],
      "lambda: no such setting; ease has form, item_power, l2, neighbors, rank, relevance, "
      "score_power, seed, select_metric, user_power",
    ),
    (["--models=ease:l2"], "write it as field=value"),
    (["--models=ease,ease"], "the label 'ease' is already taken"),
    (["--models=ease", "--seeds=0,x"], "--seeds=0,x"),
    (["--models=ease", "--below=few"], "--below=few: must be distinct whole numbers"),
    (["--models=ease", "--reference=ials"], "--reference=ials: not among ease"),
    (["--models=ease", "--metrics=auc@10"], "--metrics=auc@10: must be one of precision"),
    (["--models=ease", "--metrics=ndcg@11"], "one of the cut-offs --ks=5,10"),
    (["--models=ease", "--split=recbole_a", "--positive_threshold=4"], "recbole_a fixes it at 3"),
    (["--models=ease", "--split=recbole_c"], "--split=recbole_c: unknown"),
    (["--models=ease", "--folds=u1"], "--fold"),
    ([], "give either --models to train or --runs that are finished"),
    (["--runs=nothing"], "nothing"),
  ],
)
def test_wrong_input_is_one_line(place, flags, message):
  done = call("compare", *flags, "--workdir=w", *SMALL, cwd=place, check=1)
  assert message in error_line(done)


def test_a_refusal_of_the_process_is_the_same(place):
  wrong = ("compare", "--models=ease,ease", "--workdir=w")
  lines = [error_line(by(*wrong, cwd=place, check=1)) for by in (launch, call)]
  assert lines[0] == lines[1]


def test_a_model_and_another_preset_exclude_each_other(place):
  done = call("train", "--model=ease", "--preset=tiny", cwd=place, check=1)
  assert "--preset=tiny: and --model=ease exclude each other" in error_line(done)
