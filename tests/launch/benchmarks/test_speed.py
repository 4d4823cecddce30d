"""The suites of launch.benchmark that measure speed, on tiny inputs: files, tables, counts."""

import importlib.util
import json
import statistics

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.paths import ROOT
from helpers.programs import call, error_line
from helpers.rerank_table import write_table
from helpers.served import trained
from helpers.tiny_reranker import tiny_reranker

from gatrec_jax.config.overrides import with_fields
from gatrec_jax.config.presets import get_preset
from gatrec_jax.data.graph import bipartite_graph
from gatrec_jax.errors import InputError
from gatrec_jax.lm.folders.encoder_source import EncoderSource
from gatrec_jax.ops.attention import Edges
from launch.benchmarks import attention as benchmark_attention
from launch.benchmarks import embed as benchmark_embed
from launch.benchmarks import eval as benchmark_eval
from launch.benchmarks import graphs as benchmark_graphs
from launch.benchmarks import rerank as benchmark_rerank
from launch.benchmarks import scale as benchmark_scale
from launch.benchmarks import serve as benchmark_serve
from launch.benchmarks import train as benchmark_train
from launch.benchmarks.hardware import Rates
from launch.benchmarks.measure import HEADER, Counts, Figure, measure, plain, suite_results, table
from launch.benchmarks.peers import gatrec_step

ENCODERS = ROOT / "tests" / "lm" / "goldens"
# More than a CPU achieves with so little work, so that its share is below 1 on any machine.
RATES = Rates("a device", "float32", 4e10, "by hand", 2e11, "by hand")


@pytest.fixture
def suite(monkeypatch, tmp_path):
  """Runs a suite in this process with known device rates; returns its file and its output."""
  for module in (
    benchmark_attention,
    benchmark_embed,
    benchmark_eval,
    benchmark_rerank,
    benchmark_scale,
    benchmark_serve,
    benchmark_train,
  ):
    monkeypatch.setattr(module, "device_rates", lambda dtype: RATES)

  def run(name, *flags):
    done = call(
      "benchmark",
      f"--suite={name}",
      "--repeats=2",
      "--markdown",
      f"--json_out={name}.json",
      *flags,
      cwd=tmp_path,
      check=0,
    )
    return json.loads((tmp_path / f"{name}.json").read_text()), done.stdout

  return run


def check_tree(tree, printed, *, name, figures):
  """Checks what the files of all these suites have in common."""
  assert tree["suite"] == name and tree["repeats"] == 2 and tree["peer"] is None
  assert tree["machine"]["device"] == "a device" and "jax" in json.dumps(tree["environment"])
  assert len(tree["figures"]) == figures
  for figure in tree["figures"]:
    seconds = figure["seconds"]
    assert len(seconds) == 2 and min(seconds) > 0
    assert figure["median_seconds"] == statistics.median(seconds)
    assert figure["compile_seconds"] >= 0 and figure["peer_seconds"] == []
    assert figure["peak_mb"] is None or figure["peak_mb"] > 0
    if figure["counts"] is None:
      assert "bound_by" not in figure
      continue
    counts = figure["counts"]
    assert counts["bytes"] > 0 and counts["flops"] > 0
    bound = max(counts["bytes"] / RATES.bandwidth, counts["flops"] / RATES.flops)
    assert figure["share_of_bound"] == pytest.approx(bound / figure["median_seconds"])
    assert 0 < figure["share_of_bound"] < 1
  rows = [line for line in tree["markdown"].splitlines() if line.startswith("| ")]
  assert [row.split(" | ")[0][2:] for row in rows[1:]] == [
    figure["name"] for figure in tree["figures"]
  ]
  assert all(row.count(" | ") == len(HEADER) - 1 for row in rows[1:])
  assert tree["markdown"].strip() in printed
  assert all(f"- {note}" in tree["markdown"] for note in tree["notes"])


def test_attention(suite, monkeypatch):
  monkeypatch.setattr(benchmark_attention, "SIZES", ((400, 2, 4),))
  monkeypatch.setattr(
    benchmark_attention, "_implementations", lambda graph, size: ["segment", "dense"]
  )
  tree, printed = suite("attention")
  check_tree(tree, printed, name="attention", figures=2)
  assert [figure["name"] for figure in tree["figures"]] == [
    "800 edges, 2 × 4, segment",
    "800 edges, 2 × 4, dense",
  ]
  first, second = tree["figures"]
  assert first["counts"] == second["counts"]  # the task is the same
  assert first["compiled"]["temporary_mb"] > 0 and first["compiled"]["flops"] > 0
  assert tree["notes"][0].startswith("800 edges, 2 × 4: auto selects ")


def test_implementations_that_are_measured():
  size = dict(heads=1, width=64, platform="cpu")
  few = bipartite_graph(benchmark_graphs.random_ratings(2_000, seed=0))
  assert benchmark_attention._implementations(few, size)[0] == "segment"
  assert "pallas" not in benchmark_attention._implementations(few, size)
  assert "pallas" in benchmark_attention._implementations(few, size | {"platform": "gpu"})


def test_steps_of_training():
  """The components of suite train, which itself needs MovieLens."""
  train = benchmark_graphs.random_ratings(500, seed=0)
  model = {"layer_widths": (4,), "heads": (2,), "attention_impl": "segment", "loss": "softmax"}
  config = with_fields(get_preset("paper"), model)
  figure = benchmark_train.measured_step("toy", train, config, repeats=2, threshold=4)
  found = plain(figure, RATES)
  assert len(found["seconds"]) == 2 and 0 < found["share_of_bound"] < 1
  nodes, text = train.num_users + train.num_items, 384
  attention = benchmark_graphs.attention_counts(
    Edges(np.zeros(2 * len(train)), None, None), nodes, heads=2, width=4, features=1
  )
  weights = 3 * text * 8  # sources, targets and the residual: 384 to 8
  assert figure.counts.flops == attention.flops + 6 * nodes * weights
  assert figure.counts.bytes == attention.bytes + 28 * (nodes * text + weights)


def test_no_counts_for_models_whose_work_is_not_counted():
  assert benchmark_train._counts(get_preset("lightgcn"), None) is None
  assert benchmark_train._counts(get_preset("best"), None) is None


def test_eval(suite, monkeypatch):
  ratings = benchmark_graphs.random_ratings(600, seed=0)
  pairs = np.stack([ratings.user, ratings.item])
  once = ratings.take(np.sort(np.unique(pairs, axis=1, return_index=True)[1]))

  class Data:
    interactions = once

  monkeypatch.setattr(benchmark_eval, "load_movielens", lambda name, data_dir: Data)
  monkeypatch.setattr(benchmark_eval, "WIDTH", 4)
  monkeypatch.setattr(benchmark_eval, "KS", (2, 10))
  tree, printed = suite("eval")
  check_tree(tree, printed, name="eval", figures=3)
  ranking, metrics, both = tree["figures"]
  cells = once.num_users * once.num_items
  assert ranking["counts"] == both["counts"] and metrics["counts"] is None
  assert ranking["counts"]["flops"] == 8 * cells
  assert ranking["counts"]["bytes"] == 4 * (cells + 4 * (once.num_users + once.num_items))


def test_embed(suite, monkeypatch, tmp_path):
  source = EncoderSource("folder", ENCODERS / "bert", "golden", "here", "")
  monkeypatch.setattr(benchmark_embed, "resolve_encoder", lambda name: source)
  folder = tmp_path / "published"
  folder.mkdir()
  lines = [json.dumps({"profile": f"A film of number {n}, liked by many."}) for n in range(6)]
  (folder / "profiles_ml100k_items.jsonl").write_text("\n".join(lines))
  tree, printed = suite("embed", f"--data_dir={tmp_path}")
  check_tree(tree, printed, name="embed", figures=1)
  assert tree["figures"][0]["name"].startswith("6 profiles, ")
  assert "texts/s at best; float32; here" in tree["notes"][0]


def test_rerank(suite, monkeypatch):
  monkeypatch.setattr(benchmark_rerank, "USERS", 2)
  monkeypatch.setattr(benchmark_rerank, "CANDIDATES", 3)
  monkeypatch.setattr(benchmark_rerank, "HISTORY", 2)
  monkeypatch.setattr(benchmark_rerank, "STRATEGIES", ["label"])
  monkeypatch.setattr(
    benchmark_rerank, "_model", lambda llm, titles, folder: tiny_reranker(titles[:40])
  )
  tree, printed = suite("rerank")
  check_tree(tree, printed, name="rerank", figures=1)
  assert tree["figures"][0]["name"] == "label, 2 users × 3 candidates"
  assert tree["figures"][0]["counts"] is None
  (note,) = tree["notes"]
  assert note.startswith("label: ") and "users/s" in note and " 0 tokens" not in note


def test_serve(suite, monkeypatch, tmp_path):
  write_table(tmp_path)
  monkeypatch.chdir(tmp_path)
  trained("ease_rated", tmp_path, dataset="ratings.csv", bootstrap=0, ks=(10,))
  tree, printed = suite("serve", "--workdir=ease_rated")
  check_tree(tree, printed, name="serve", figures=11)
  names = [figure["name"] for figure in tree["figures"]]
  assert names[5:8] == ["new user, 40 liked", "known user", "another user"]
  refused = call("benchmark", "--suite=serve", cwd=tmp_path, check=1)
  assert "--workdir" in error_line(refused)


def test_scale(suite, monkeypatch):
  """With stub processes in place of those that measure steps."""
  asked = []

  class Child:
    def ask(self, job, **arguments):
      asked.append((job, arguments))
      if job == "step":
        return {
          "seconds": [0.25, 0.5],
          "compile_seconds": 1.0,
          "peak_mb": 512.0,
          "idle_mb": 256.0,
          "nodes": 1000,
        }
      share = arguments["devices"]
      return {name: 2**24 / share for name in ("arguments", "temporaries", "together", "sharded")}

    def __enter__(self):
      return self

    def __exit__(self, *error):
      return None

  monkeypatch.setattr(benchmark_scale, "_child", lambda devices=1: Child())
  monkeypatch.setattr(benchmark_scale, "RATINGS", (1000, 5000))
  monkeypatch.setattr(benchmark_scale, "MESH_RATINGS", 3000)
  tree, printed = suite("scale")
  check_tree(tree, printed, name="scale", figures=2)
  assert asked == [
    ("step", {"ratings": 1000, "repeats": 2}),
    ("step", {"ratings": 5000, "repeats": 2}),
    ("memory", {"ratings": 3000, "devices": 1}),
    ("memory", {"ratings": 3000, "devices": 8}),
  ]
  assert "1,000: 93750 ns per edge and layer, peak 0.50 GiB" in tree["notes"][0]
  assert "16 MiB on one, 2 MiB on 8 (1/8.0)" in tree["notes"][2]
  assert tree["memory"]["8"]["sharded"] == 2**21


def test_the_jobs_of_scale(monkeypatch):
  monkeypatch.setattr(benchmark_scale, "LAYERS", 1)
  found = gatrec_step.step(ratings=300, repeats=1)
  memory = gatrec_step.memory(ratings=300, devices=1)
  rows = benchmark_graphs.random_ratings(300, seed=0)
  assert found["nodes"] == rows.num_users + rows.num_items
  assert len(found["seconds"]) == 1 and found["seconds"][0] > 0 < found["compile_seconds"]
  # Edges of 12 bytes; three tables of 64 numbers a node and the weights: values and two moments.
  assert memory["sharded"] > 12 * 600 + 3 * 4 * 64 * found["nodes"]
  assert memory["together"] == memory["arguments"] + memory["temporaries"] > memory["sharded"]


def test_the_process_of_scale_answers_jobs_that_fail():
  with (
    benchmark_scale._child() as child,
    pytest.raises(InputError, match="measuring a step: KeyError: 'nothing'"),
  ):
    child.ask("nothing")


def test_predicted_bytes_by_hand():
  # 10 ratings: 97 bytes each are sharded, 21 are not; tables of 256 bytes per node: 3.5 and 8.
  assert benchmark_scale.predicted_bytes(10, 3) == 970 + 3.5 * 768 + 210 + 8 * 768
  sharded = (970 + 3.5 * 768) / 4
  assert benchmark_scale.predicted_bytes(10, 3, devices=4) == sharded + 210 + 8 * 768
  assert benchmark_scale.WIDTH == 64  # as the formula that is printed says


def test_counts_by_hand():
  edges = Edges(np.zeros(10), None, None)
  found = benchmark_graphs.attention_counts(edges, 3, heads=2, width=4, features=1)
  # Twice both ends and the feature of 10 edges; 4 rows of 8 numbers an edge, and 6 a node.
  assert found == Counts(2 * 10 * 12 + 4 * 8 * 4 * 10 + 4 * 8 * 6 * 3, 30 * 8 * 10)
  assert benchmark_graphs.matmul_flops([(2, 3, 5), (1, 1, 1)]) == 6 * 30 + 6


def test_random_ratings_have_the_proportions_of_movielens():
  rows = benchmark_graphs.random_ratings(100_000, seed=0)
  assert len(rows) == 100_000 and rows.num_users == 625
  million = benchmark_graphs._ITEMS_SCALE * 1e6**benchmark_graphs._ITEMS_POWER
  assert million == pytest.approx(3_706, rel=0.05)
  assert (np.diff(rows.user) >= 0).all() and rows.item.max() < rows.num_items
  assert set(np.unique(rows.rating)) == {1, 2, 3, 4, 5}
  of_users, of_items = np.bincount(rows.user), np.bincount(rows.item)
  for counts in (of_users, of_items):  # long tails: the first tenth has far more than a tenth
    assert np.sort(counts)[-len(counts) // 10 :].sum() > 0.25 * len(rows)
  again, other = (benchmark_graphs.random_ratings(100_000, seed=seed) for seed in (0, 1))
  assert np.array_equal(again.item, rows.item) and not np.array_equal(other.item, rows.item)
  small = benchmark_graphs.random_ratings(10, seed=0)
  assert (small.num_users, small.num_items, len(small)) == (50, 100, 10)


def test_a_peer_runs_between_the_halves_of_our_runs():
  calls = []

  def ours():
    calls.append("ours")
    return jnp.zeros(())

  def theirs():
    calls.append("theirs")
    return {"seconds": [2.0, 4.0], "peak_memory_mb": 7.0}

  figure = measure("both", ours, repeats=3, peer=theirs, counts=Counts(4e10, 1e11))
  assert calls == ["ours"] * 3 + ["theirs", "ours"]  # the first one compiles
  assert len(figure.seconds) == 3 and figure.peer_peak_mb == 7.0
  figure.seconds = [1.5, 2.0, 4.0]
  tree = plain(figure, RATES)
  assert tree["times_as_fast"] == 1.5 and tree["bound_by"] == "memory"
  assert tree["bound_seconds"] == 1.0 and tree["share_of_bound"] == 0.5
  results = suite_results("a title", [figure], rates=RATES, repeats=3, peer={"torch": "2.0"})
  _, header, (row,), notes = table(results)
  assert len(row) == len(header) and row[3] == "3 (2–4)" and row[4] == "1.50" and row[7] == "50%"
  assert "peer: torch 2.0" in notes
  bound = plain(Figure("arithmetic", [1.0], counts=Counts(4e10, 4e11)), RATES)
  assert bound["bound_by"] == "arithmetic" and bound["bound_seconds"] == 2.0


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (["--compare=other"], "--compare=other: torch and implicit are the peers"),
    (["--compare=implicit"], ": suite als has the peer implicit, the others torch"),
    (["--repeats=0"], "--repeats=0: must be at least 1"),
    (["--peer_python=/no/such"], "--peer_python=/no/such: no such program"),
    (["--compare=torch", "--peer_python=/no/such"], "--peer_python=/no/such: no such program"),
    (["--peer_python=true"], "--peer_python=true: ended with exit code 0"),
  ],
)
@pytest.mark.parametrize("name", ["attention", "train"])
def test_wrong_peers_are_one_line(suite, tmp_path, name, flags, words):
  done = call("benchmark", f"--suite={name}", *flags, cwd=tmp_path, check=1)
  assert words in error_line(done)


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is here")
def test_torch_that_is_not_there_is_one_line(suite, tmp_path):
  done = call("benchmark", "--suite=attention", "--compare=torch", cwd=tmp_path, check=1)
  assert "--compare=torch: this Python has no torch; --peer_python" in error_line(done)


def test_missing_profiles_are_one_line(suite, monkeypatch, tmp_path):
  source = EncoderSource("folder", ENCODERS / "bert", "golden", "here", "")
  monkeypatch.setattr(benchmark_embed, "resolve_encoder", lambda name: source)
  done = call("benchmark", "--suite=embed", f"--data_dir={tmp_path}", cwd=tmp_path, check=1)
  assert "profiles_ml100k_items.jsonl does not exist" in error_line(done)
