"""From a trained run to re-ranked lists: out-of-fold candidates, built-in re-ranker, fusion."""

import dataclasses
import json

import numpy as np
import pytest
from helpers.programs import arrays_equal, quick_config
from helpers.rerank_table import write_table

from gatrec_jax import runs
from gatrec_jax.errors import InputError, Interrupted
from gatrec_jax.experiment.train_and_evaluate import train_and_evaluate
from gatrec_jax.lm.folders.source import content_hash
from gatrec_jax.rerank import sources
from gatrec_jax.rerank.learning import builtin, out_of_fold
from gatrec_jax.rerank.pipeline import RerankSettings, rerank
from gatrec_jax.rerank.strategies.registry import make_strategy
from gatrec_jax.runs.log import SILENT, Recorder

RECIPE = builtin.RerankerRecipe(
  width=32,
  layers=1,
  words=700,
  rounds=2,
  reading_steps=6,
  folds=2,
  epochs=1,
  most_steps=6,
  batch_size=8,
  context=384,
  length=12,
  top=8,
)
# Most of the time is spent compiling the GAT of each fold; this layer compiles soonest.
SMALL_GAT = {
  "epochs": 2,
  "convolution": "light",
  "attention": "none",
  "layers": "1",
  "combine": "last",
  "feature_width": "16",
  "feature_dropout": 0,
  "edge_dropout": 0,
}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """A run on 60 users and 40 items of four kinds, with validation ratings."""
  folder = tmp_path_factory.mktemp("small")
  patch = pytest.MonkeyPatch()
  patch.setenv("GATREC_CACHE", str(folder / "cache"))
  write_table(folder)
  config = quick_config(
    dataset=str(folder / "ratings.csv"), item_metadata=str(folder / "items.jsonl"), **SMALL_GAT
  )
  train_and_evaluate(config, folder / "run", log=SILENT)
  yield folder / "run"
  patch.undo()


@pytest.fixture(scope="module")
def source(workdir):
  return sources.open_source(workdir, top=8)


def opened(source, log=SILENT, recipe=RECIPE):
  return builtin.open_builtin(
    source.config,
    source.workdir,
    source.prepared,
    user_profiles=source.user_profiles,
    item_profiles=source.item_profiles,
    log=log,
    recipe=recipe,
  )


@pytest.fixture(scope="module")
def model(source):
  return opened(source)


@pytest.fixture(scope="module")
def folds(source):
  return out_of_fold.out_of_fold_lists(
    source.config, source.workdir, source.prepared, folds=2, length=12, log=SILENT
  )


def test_folds_divide_the_training_ratings(source, folds):
  train = source.prepared.train

  def pairs(rows):
    return set(zip(rows.user.tolist(), rows.item.tolist(), strict=True))

  histories = [pairs(part.history) for part in folds]
  held_out = [pairs(train) - history for history in histories]
  assert held_out[0] | held_out[1] == pairs(train) and not held_out[0] & held_out[1]
  liked = {
    (user, item)
    for user, item, rating in zip(train.user, train.item, train.rating, strict=True)
    if rating >= 4
  }
  for part, history, truth in zip(folds, histories, held_out, strict=True):
    for user, items, relevant in zip(part.users, part.items, part.relevant, strict=True):
      listed = {(user, item) for item in items if item >= 0}
      assert not listed & history
      assert {(user, item) for item in items[relevant]} == listed & truth & liked
      assert relevant.any()


def test_profiles_of_a_fold_are_built_without_it(source, folds):
  assert folds[0].profiles != folds[1].profiles
  assert list(source.user_profiles) not in (folds[0].profiles, folds[1].profiles)


def test_the_end_of_a_line_with_a_title_is_one_token(model):
  ids = model.tokenizer("liked: Film 3\nliked: Film 31\n", add_special_tokens=False)["input_ids"]
  assert [model.tokenizer.decode(token) for token in ids] == [
    "liked",
    ": Film 3\n",
    "liked",
    ": Film 31\n",
  ]


def test_the_second_call_loads_it_from_the_cache(source, model):
  lines = []
  again = opened(source, Recorder(lines))
  assert len(lines) == 1 and "can re-rank but not write profiles" in lines[0]
  assert content_hash(again.folder) == content_hash(model.folder)
  assert not list(again.folder.parent.glob("**/*checkpoints*"))


def test_the_model_depends_on_the_training_ratings_only(source, model, monkeypatch):
  monkeypatch.setattr(builtin, "_build", lambda *_, **__: pytest.fail("would be built"))
  held_out = source.prepared.split
  swapped = dataclasses.replace(held_out, valid=held_out.test, test=held_out.valid)
  opened(dataclasses.replace(source, prepared=dataclasses.replace(source.prepared, split=swapped)))
  fewer = dataclasses.replace(held_out, train=held_out.train[1:])
  changed = dataclasses.replace(source, prepared=dataclasses.replace(source.prepared, split=fewer))
  with pytest.raises(pytest.fail.Exception):
    opened(changed)


def reranked(source, model, workdir=None, **settings):
  return rerank(
    dataclasses.replace(source, workdir=workdir or source.workdir),
    make_strategy("label", model),
    model_name=model.name,
    model_hash=content_hash(model.folder),
    settings=RerankSettings(bootstrap=200, **settings),
    log=SILENT,
  )


def test_lists_keep_their_items_and_results_add_up(source, model):
  found = reranked(source, model)
  top = source.candidates.top
  np.testing.assert_array_equal(
    np.sort(found.lists[:, :top], axis=1), np.sort(source.candidates.items, axis=1)
  )
  np.testing.assert_array_equal(found.lists[:, top:], source.candidates.lists[:, top:])
  results = json.loads((found.folder / "results.json").read_text())
  metrics, difference = results["metrics"], results["differences"]["fused"]["ndcg@10"]
  assert metrics["fused"]["ndcg@10"]["mean"] - metrics["base"]["ndcg@10"]["mean"] == pytest.approx(
    difference["mean"], abs=1e-6
  )
  if all(fusion.keeps_base for fusion in found.fusions):
    np.testing.assert_array_equal(found.lists, source.candidates.lists)
    assert "the order of the GAT is kept" in results["says"][0]
  teaching = int(source.validation.hits.any(axis=1).sum())
  assert results["cost"]["lists"] == len(source.candidates.users) + teaching
  assert results["fusion"][0]["gain"]["n"] == len(source.validation.users)
  assert results["cost"]["tokens_per_list"] > 8


def test_an_interrupted_job_resumes_to_the_same_bytes(source, model, tmp_path):
  whole = reranked(source, model, tmp_path / "whole")
  cut = tmp_path / "cut"
  folder = cut / "rerank" / whole.folder.name
  folder.mkdir(parents=True)
  for name, share in (("valid.jsonl", 0.5), ("test.jsonl", 0.9)):
    text = (whole.folder / name).read_bytes()
    (folder / name).write_bytes(text[: int(share * len(text))])
  again = reranked(source, model, cut)
  assert arrays_equal([again.lists], [whole.lists])
  for name in ("valid.jsonl", "test.jsonl"):
    assert (again.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_a_signal_keeps_the_scores_so_far(source, model, tmp_path, monkeypatch):
  monkeypatch.setattr("gatrec_jax.rerank.score_cache.CHUNK", 16)

  class Stopped:
    def __init__(self, promise, *, log):
      pass

    def __enter__(self):
      return [15]

    def __exit__(self, *_):
      return None

  with monkeypatch.context() as patch:
    patch.setattr(runs, "signals", Stopped)
    with pytest.raises(Interrupted, match="after 16 of"):
      reranked(source, model, tmp_path)
  assert len(reranked(source, model, tmp_path).lists)


def test_measuring_only_gives_the_metrics_of_all_lists(source, model, tmp_path):
  whole = reranked(source, model, tmp_path / "whole")
  quick = reranked(source, model, tmp_path / "quick", measure_only=True)
  unscored = int((~source.candidates.hits.any(axis=1)).sum())
  assert unscored and whole.cost.lists - quick.cost.lists == unscored
  for system, metrics in quick.results["metrics"].items():
    assert "ndcg@10" in metrics and "novelty@10" not in metrics
    for name, value in metrics.items():
      assert value == whole.results["metrics"][system][name]
  assert not (quick.folder / "recommendations.parquet").exists()


def test_the_weight_is_learned_on_a_sample_that_a_later_call_extends(source, model, tmp_path):
  folder = reranked(source, model, tmp_path, valid_users=12).folder
  first = (folder / "valid.jsonl").read_bytes().splitlines()
  (small,) = json.loads((folder / "results.json").read_text())["fusion"]
  more = reranked(source, model, tmp_path, valid_users=20)
  assert more.folder == folder and small["gain"]["n"] == 12
  assert more.fusions[0].gain.n == 20
  keys = [json.loads(line)["key"] for line in (folder / "valid.jsonl").read_bytes().splitlines()]
  assert [json.loads(line)["key"] for line in first] == keys[: len(first)]
  scored = set(source.validation.users[source.validation.hits.any(axis=1)])
  ids = source.prepared.interactions.user_ids
  assert set(keys) <= {ids[user] for user in scored}


def test_another_model_gets_its_own_folder(source, model, tmp_path):
  other = dataclasses.replace(model, name="other/Model 7B")
  folders = {
    rerank(
      dataclasses.replace(source, workdir=tmp_path),
      make_strategy("label", one),
      model_name=one.name,
      model_hash=one.name,
      settings=RerankSettings(bootstrap=50),
      log=SILENT,
    ).folder.name[:-9]
    for one in (model, other)
  }
  assert folders == {"label-builtin", "label-model-7b"}


def test_diversity_moves_items_and_is_measured(source, model):
  found = reranked(source, model, diversity=0.3)
  assert not np.array_equal(found.lists, reranked(source, model).lists)
  metrics = found.results["metrics"]  # @5, since @10 includes all 8 candidates in any order
  assert metrics["diverse"]["diversity@5"]["mean"] > metrics["fused"]["diversity@5"]["mean"]
  with pytest.raises(InputError, match="diversity=2"):
    RerankSettings(diversity=2)


def test_extra_features_are_fused(source, model):
  found = reranked(source, model, features=("popularity", "text", "recency"), fusion="linear")
  assert set(found.fusions[0].features) == {"llm", "popularity", "text", "recency"}
  with pytest.raises(InputError, match="features=taste"):
    RerankSettings(features=("taste",))


def test_users_without_history_and_profile_keep_their_order(source, model, tmp_path):
  lines = []
  profiles = list(source.user_profiles)
  users = source.candidates.users[:3]
  rows = source.prepared.split.train
  kept = rows[~np.isin(source.prepared.interactions.user[rows], users)]
  split = dataclasses.replace(source.prepared.split, train=kept)
  for user in users:
    profiles[user] = None
  poorer = dataclasses.replace(
    source,
    prepared=dataclasses.replace(source.prepared, split=split),
    user_profiles=profiles,
    workdir=tmp_path,
  )
  found = rerank(
    poorer,
    make_strategy("label", model),
    model_name="m",
    model_hash="h",
    settings=RerankSettings(bootstrap=50),
    log=Recorder(lines),
  )
  assert any("3 test users without history and profile keep their order" in line for line in lines)
  np.testing.assert_array_equal(found.lists[:3], source.candidates.lists[:3])


def test_a_run_without_validation_is_refused(source):
  bare = dataclasses.replace(source.prepared.split, valid=np.zeros(0, np.int64))
  from gatrec_jax.rerank.candidates import validation_candidates
  from gatrec_jax.serve.run import load_run

  run = load_run(source.workdir)
  run = dataclasses.replace(run, prepared=dataclasses.replace(run.prepared, split=bare))
  with pytest.raises(InputError, match="train with `valid_share=0.1`"):
    validation_candidates(run, top=5)
