"""The main job in one process: files, honesty, serving, stages that are skipped or rebuilt."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.programs import arrays_equal, quick_config
from helpers.rerank_table import write_table

import gatrec_jax
from gatrec_jax import runs
from gatrec_jax.config.overrides import with_fields
from gatrec_jax.config.presets import get_preset
from gatrec_jax.data.feedback import Feedback
from gatrec_jax.data.synthetic import plant
from gatrec_jax.errors import InputError
from gatrec_jax.evaluate.files import read_recommendations
from gatrec_jax.experiment import train_and_evaluate as pipeline
from gatrec_jax.experiment.evaluation import evaluate_lists
from gatrec_jax.experiment.grid import open_finished
from gatrec_jax.experiment.search import search
from gatrec_jax.ops.top_k import top_items
from gatrec_jax.runs.log import SILENT, Recorder
from gatrec_jax.serve.recommendations import new_user_scores, top_lists
from gatrec_jax.stages import data as stages

ONE_LAYER = {"layer_widths": (16,), "heads": (1,)}
# For claims that hold of any model: each trains another program, and this layer compiles soonest.
LIGHT = {
  "convolution": "light",
  "attention": "none",
  "layers": 1,
  "combine": "last",
  "feature_width": 8,
  "ks": (10,),
}
TRAINED = {**ONE_LAYER, "epochs": 9, "evaluate_every": 3, "protocol": "both", "ks": (10, 50)}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
  patch = pytest.MonkeyPatch()
  patch.setenv("GATREC_CACHE", str(tmp_path_factory.mktemp("cache")))
  yield
  patch.undo()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  folder = tmp_path_factory.mktemp("run")
  lines = []
  run, results = pipeline.train_and_evaluate(quick_config(**TRAINED), folder, log=Recorder(lines))
  return run, results, lines


def test_run_folder_and_results(trained):
  run, results, _ = trained
  config = json.loads((run.workdir / "config.json").read_text())
  assert config["config"]["train"]["seed"] == 0 and config["environment"]["packages"]["jax"]
  assert runs.read_sealed(run.workdir / "results.json") == json.loads(json.dumps(results))
  assert set(results["full"]["ndcg@10"]) == {"mean", "lo", "hi", "n"}
  assert results["full"]["ndcg@10"]["lo"] < results["full"]["ndcg@10"]["mean"]
  assert "map@50" in results["judged"] and results["encoder"].startswith("lexical")
  names = [json.loads(line)["name"] for line in (run.workdir / "metrics.jsonl").open()]
  assert names.count("valid_ndcg@10") >= 1 and names.count("loss") == results["epochs_run"]
  assert not list(run.workdir.rglob("*.tmp"))


def test_recommendations_file_holds_nothing_known_and_evaluates_to_the_results(trained):
  run, results, _ = trained
  interactions = run.prepared.interactions
  users, items = read_recommendations(
    run.workdir / "recommendations.parquet",
    user_ids=interactions.user_ids,
    item_ids=interactions.item_ids,
  )
  known = run.prepared.known
  pairs = set(zip(known.user.tolist(), known.item.tolist(), strict=True))
  listed = {(u, i) for u, row in zip(users.tolist(), items.tolist(), strict=True) for i in row}
  assert not pairs & listed
  again = evaluate_lists(items, users, settings=run.config.evaluate, prepared=run.prepared)
  assert again["full"].summary["ndcg@10"].mean == pytest.approx(
    results["full"]["ndcg@10"]["mean"], abs=1e-9
  )


def test_beats_popularity_by_the_planted_truth(trained):
  """The demo knows what everyone would like, so lists can be judged without any test rating."""
  run, _, _ = trained
  utility = plant().utility
  everyone = np.arange(len(utility), dtype=np.int32)
  ours, _ = top_lists(run, everyone, k=10)
  train = run.prepared.train
  count = np.bincount(train.item[train.rating >= 4], minlength=train.num_items)[:, None]
  popular, _ = top_items(
    np.ones((len(utility), 1), np.float32),
    count.astype(np.float32),
    everyone,
    seen=run.prepared.known,
    k=10,
  )
  gain = [np.take_along_axis(utility, lists, axis=1).mean() for lists in (ours, popular)]
  assert gain[0] > gain[1] + 0.3


def test_opened_again_it_says_the_same(trained):
  run, _, _ = trained
  opened = gatrec_jax.load_run(run.workdir)
  np.testing.assert_array_equal(
    gatrec_jax.score(opened, ["1", "7"]), gatrec_jax.score(run, ["1", "7"])
  )
  lists = gatrec_jax.recommend(opened, ["3"], top_n=4)
  assert len(lists.items[0]) == 4 and lists.titles[0][0].startswith("The ")
  assert lists.scores[0] == sorted(lists.scores[0], reverse=True)
  seen = set(run.prepared.known.take(run.prepared.known.user == 2).item.tolist())
  assert not seen & {int(i) - 1 for i in lists.items[0]}
  free = gatrec_jax.recommend(opened, ["3"], top_n=800, exclude_seen=False)
  assert len(free.items[0]) == 800


def test_new_user_gets_what_resembles_the_liked_items(trained):
  run, _, _ = trained
  fields = run.prepared.item_fields
  counts = np.bincount(run.prepared.train.item, minlength=len(fields))
  horror = [i for i in np.argsort(-counts) if fields[i]["genres"] == ["Horror"]][:8]
  lists = gatrec_jax.recommend_to_new_user(run, [str(i + 1) for i in horror], top_n=20)
  assert not set(lists.items[0]) & {str(i + 1) for i in horror}
  share = np.mean(["Horror" in fields[int(i) - 1]["genres"] for i in lists.items[0]])
  base = np.mean(["Horror" in f["genres"] for f in fields])
  assert share > 1.5 * base
  with pytest.raises(InputError, match="9999"):
    gatrec_jax.recommend_to_new_user(run, ["9999"])
  with pytest.raises(InputError, match="twice"):
    gatrec_jax.recommend_to_new_user(run, ["1", "1"])


def test_a_training_user_through_the_inductive_path_stays_near(trained):
  """Given their own likes, known users get lists that overlap their own far above chance."""
  run, _, _ = trained
  train, users = run.prepared.train, np.arange(5, dtype=np.int32)
  liked = [train.item[(train.user == user) & (train.rating >= 4)] for user in users]
  scores = new_user_scores(run, liked=liked, disliked=[items[:0] for items in liked])
  new = np.argsort(-np.asarray(scores), axis=1)[:, :50]
  own, _ = top_lists(run, users, k=50, exclude_seen=False)
  overlap = [len(np.intersect1d(*pair)) / 50 for pair in zip(new, own, strict=True)]
  assert np.mean(overlap) > 0.2  # chance: 50 / 800 = 0.06


def test_export(trained, tmp_path):
  run, _, _ = trained
  gatrec_jax.export_embeddings(run, tmp_path / "vectors")
  users = np.load(tmp_path / "vectors" / "users.npy", allow_pickle=False)
  items = np.load(tmp_path / "vectors" / "items.npy", allow_pickle=False)
  ids = (tmp_path / "vectors" / "items.txt").read_text().split()
  assert users.shape[0] == 600 and len(ids) == items.shape[0] == 800
  np.testing.assert_allclose(users[2] @ items.T, gatrec_jax.score(run, ["3"])[0], atol=1e-4)


def test_a_second_call_keeps_everything_and_a_deleted_stage_is_rebuilt_alone(trained, tmp_path):
  folder = tmp_path / "copy"
  shutil.copytree(trained[0].workdir, folder)
  shutil.rmtree(folder / "embeddings")
  lines = []
  _, results = pipeline.train_and_evaluate(quick_config(**TRAINED), folder, log=Recorder(lines))
  text = "\n".join(lines)
  assert "data: unchanged" in text and "profiles: unchanged" in text
  assert "embeddings: unchanged" not in text and "already finished" in text
  assert results["full"] == trained[1]["full"]


def test_another_configuration_in_the_same_folder_is_refused(trained):
  with pytest.raises(InputError, match=r"learning_rate: 0.005 → 0.1"):
    pipeline.train_and_evaluate(
      quick_config(**TRAINED, learning_rate=0.1), trained[0].workdir, log=SILENT
    )


def altered(folder, part, change):
  """Changes the rows of one part in a prepared run folder: deletes or permutes their ratings."""
  path = folder / "data" / "interactions.parquet"
  table = pq.read_table(path)
  rows = table["part"].to_numpy() == part
  if change == "deleted":
    table = table.filter(pa.array(~rows))
  else:
    rating = table["rating"].to_numpy().copy()
    rating[rows] = np.random.default_rng(0).permutation(rating[rows])
    table = table.set_column(table.schema.get_field_index("rating"), "rating", pa.array(rating))
  pq.write_table(table, path)
  # Not damage, which would be made again, but other data.
  manifest = path.with_name("manifest.json")
  runs.write_sealed(manifest, runs.read_sealed(manifest), files=stages.OUTPUTS)


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
  folder = tmp_path_factory.mktemp("untouched")
  config = quick_config(epochs=1, select_on="train_loss", negatives="popularity", **LIGHT)
  prepared = stages.prepare(config.data, folder, log=SILENT)
  before = folder.with_name("before")
  shutil.copytree(folder, before)
  return config, before, pipeline.train(config, folder, prepared, log=SILENT)[0]


def trained_again(config, folder):
  prepared = stages.prepare(config.data, folder, log=SILENT)
  return pipeline.train(config, folder, prepared, log=SILENT)[0]


@pytest.mark.parametrize("part", [1, 2], ids=["validation", "test"])
@pytest.mark.parametrize("change", ["deleted", "permuted"])
def test_held_out_ratings_reach_nothing_that_is_trained(untouched, tmp_path, part, change):
  config, before, reference = untouched
  folder = tmp_path / "run"
  shutil.copytree(before, folder)
  altered(folder, part, change)
  run = trained_again(config, folder)
  assert len(run.prepared.interactions) < len(reference.prepared.interactions) or (
    change == "permuted"
  )
  for name in (
    "profiles/items.jsonl",
    "profiles/users.jsonl",
    "embeddings/users.npy",
    "embeddings/items.npy",
  ):
    assert (folder / name).read_bytes() == (reference.workdir / name).read_bytes(), name
  assert arrays_equal(jax.tree.leaves(run.inputs), jax.tree.leaves(reference.inputs))
  assert arrays_equal(jax.tree.leaves(run.params), jax.tree.leaves(reference.params))


def test_training_ratings_do_reach_it(untouched, tmp_path):
  config, before, reference = untouched
  folder = tmp_path / "run"
  shutil.copytree(before, folder)
  altered(folder, 0, "permuted")
  run = trained_again(config, folder)
  assert not arrays_equal(jax.tree.leaves(run.params), jax.tree.leaves(reference.params))
  assert (folder / "profiles/users.jsonl").read_bytes() != (
    reference.workdir / "profiles/users.jsonl"
  ).read_bytes()


def test_too_many_missing_texts(tmp_path):
  items = tmp_path / "items.csv"
  items.write_text("item_id,title,genres\n" + "".join(f"i{n},T{n},Drama\n" for n in range(5)))
  csv = tmp_path / "mine.csv"
  csv.write_text(
    "user_id,item_id,rating\n"
    + "".join(f"u{u},i{(u * 7 + k) % 15},{1 + (u + k) % 5}\n" for u in range(12) for k in range(6))
  )
  fields = {"dataset": str(csv), "item_metadata": str(items), "encoder": "lexical", "bootstrap": 0}
  config = with_fields(get_preset("content_knn"), fields)
  message = "10 of 15 items have no text: give `item_metadata`.*`max_missing_share=0.67`"
  with pytest.raises(InputError, match=message):
    pipeline.train_and_evaluate(config, tmp_path / "run", log=SILENT)
  items.write_text("item_id,title\n" + "".join(f"i{n},T{n}\n" for n in range(15)))
  # Titles alone are no ground for texts of users, who need none.
  run, _ = pipeline.train_and_evaluate(config, tmp_path / "b", log=SILENT)
  assert run.texts.is_text and not run.texts.vectors[: run.texts.num_users].any()


def test_implicit_feedback_has_no_dislikes_and_ids_need_no_texts(tmp_path):
  csv = tmp_path / "clicks.csv"
  csv.write_text(
    "user_id,item_id\n"
    + "".join(f"u{u},i{(u * 7 + k) % 15}\n" for u in range(12) for k in range(6))
  )
  config = quick_config(dataset=str(csv), node_features="ids", epochs=1, edge_features="", **LIGHT)
  lines = []
  run, results = pipeline.train_and_evaluate(config, tmp_path / "run", log=Recorder(lines))
  assert results["encoder"] == "none"
  assert run.prepared.feedback == Feedback(1.0, 0.0, "implicit")
  assert any("implicit feedback" in line for line in lines)


def test_an_unusual_scale_is_asked_about(tmp_path):
  csv = tmp_path / "hundred.csv"
  csv.write_text(
    "user_id,item_id,rating\n"
    + "".join(f"u{u},i{(u * 7 + k) % 15},{10 + 7 * k}\n" for u in range(12) for k in range(6))
  )
  config = with_fields(get_preset("popularity"), {"dataset": str(csv)})
  lines = []
  with pytest.raises(InputError, match="10 to 45.*`feedback=stars`.*`feedback=counts`"):
    stages.prepare(config.data, tmp_path / "run", log=Recorder(lines))
  config = with_fields(config, {"positive_threshold": 40.0, "negative_threshold": 20.0})
  stages.prepare(config.data, tmp_path / "fitting", log=Recorder(lines))
  assert "ratings of column 'rating' (10 to 45): 12 likes (≥ 40), 24 dislikes (≤ 20)" in lines[0]


def test_non_finite_loss_names_the_step_and_keeps_the_good_checkpoint(tmp_path):
  write_table(tmp_path)
  config = with_fields(
    get_preset("bpr_mf"),
    {"dataset": str(tmp_path / "ratings.csv"), "evaluate_every": 1, "width": 4, "batch_size": 0}
    | {"epochs": 8, "learning_rate": 1e30, "schedule": "constant", "warmup_steps": 4},
  )
  with pytest.raises(InputError, match=r"at step \d+; .*(checkpoint|nothing)"):
    pipeline.train_and_evaluate(config, tmp_path / "run", log=SILENT)


def test_a_folder_of_another_version_is_refused_in_a_line(trained, tmp_path):
  folder = tmp_path / "copy"
  shutil.copytree(trained[0].workdir, folder)
  tree = json.loads((folder / "config.json").read_text())
  assert tree.pop("format") == 3 and tree.pop("digest")
  tree["config"]["model"]["former_setting"] = 1  # is not even looked at
  (folder / "config.json").write_text(json.dumps(tree))
  line = "made by another version of gatrec_jax \\(format 1, this version reads 3\\)"
  for read in (
    gatrec_jax.load_run,
    lambda folder: pipeline.train_and_evaluate(trained[0].config, folder, log=SILENT),
    open_finished,
  ):
    with pytest.raises(InputError, match=line) as caught:
      read(folder)
    assert caught.value.field == "workdir" and "\n" not in str(caught.value)


def test_silence_is_silent(tmp_path, capfd):
  """Of texts, fits, epochs, evaluation, search and serving."""
  write_table(tmp_path)
  common = {"dataset": str(tmp_path / "ratings.csv"), "bootstrap": 0, "ks": (10,)}
  texts = {"item_metadata": str(tmp_path / "items.jsonl"), "encoder": "lexical"}
  epochs = {"epochs": 1, "width": 4, "batch_size": 0, "evaluate_every": 1}
  for name, fields in (("content_knn", texts), ("bpr_mf", epochs)):
    config = with_fields(get_preset(name), common | fields)
    pipeline.train_and_evaluate(config, tmp_path / name, log=SILENT)
  search(with_fields(get_preset("ease"), common), tmp_path / "search", budget=1, log=SILENT)
  run = gatrec_jax.load_run(tmp_path / "content_knn")
  gatrec_jax.recommend(run, ["1"])
  gatrec_jax.recommend_to_new_user(run, ["1"])
  assert capfd.readouterr() == ("", "")


def test_configs_are_hashable_and_runs_are_frozen(trained):
  hash(trained[0].config)
  with pytest.raises(dataclasses.FrozenInstanceError):
    trained[0].config = None


def test_a_sweep_over_a_run_folder_chooses_on_validation(tmp_path):
  config = with_fields(get_preset("ease"), {"dataset": "demo", "valid_share": 0.1})
  lines = []
  result = pipeline.sweep_settings(
    config, tmp_path, [{"l2": 1.0}, {"l2": 100.0}], log=Recorder(lines)
  )
  values = [outcome.best_value for outcome in result.outcomes]
  assert len(set(values)) == 2 and all(0 < value < 1 for value in values)
  assert not (tmp_path / "checkpoints").exists() and any("sweep: 2 settings" in x for x in lines)
  with pytest.raises(InputError, match="iterations"):
    pipeline.sweep_settings(config, tmp_path, [{"iterations": 3}], log=Recorder(lines))


def test_a_folder_in_which_another_process_trains_is_left_as_it_is(tmp_path):
  """Its settings too: training has no checkpoint yet that would tell them from others."""
  folder = pipeline.open_run(quick_config(), tmp_path)
  before = {path.name: path.read_bytes() for path in folder.iterdir()}
  with runs.locked(folder), pytest.raises(InputError, match="another process is working in it"):
    pipeline.open_run(quick_config(seed=1), tmp_path)
  assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_reader_of_a_run_that_is_not_trained_yet_writes_nothing(trained, tmp_path):
  folder = tmp_path / "copy"
  shutil.copytree(trained[0].workdir, folder)
  shutil.rmtree(folder / "checkpoints")
  (folder / "checkpoints").mkdir()  # training has just begun
  with pytest.raises(InputError, match="its checkpoints are gone"):
    gatrec_jax.load_run(folder)
  (folder / "results.json").unlink()
  before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
  with pytest.raises(InputError, match="not trained yet"):
    gatrec_jax.load_run(folder)
  assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
