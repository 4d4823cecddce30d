"""Suite `fusion`: its figures on synthetic lists, and its three claims on the published ones."""

import numpy as np
import pytest
from helpers.paths import SHARED
from helpers.programs import call, error_line

from gatrec_jax.data.interactions import Interactions
from gatrec_jax.evaluate.metrics import ndcg
from gatrec_jax.runs.log import SILENT, Recorder
from launch.benchmarks import fusion as benchmark_fusion
from launch.cli.grid import markdown_grid

USERS, ITEMS = 160, 40


@pytest.fixture(scope="module")
def synthetic():
  """Lists of 20 of 40 items, by number; items with low numbers are liked more often."""
  rng = np.random.default_rng(0)
  liked = rng.random((USERS, ITEMS)) < 0.5 * np.exp(-np.arange(ITEMS) / 8)
  liked[3] = False
  rated = liked | (rng.random(liked.shape) < 0.1)
  users, items = np.nonzero(rated)
  ids = {"user_ids": tuple(map(str, range(USERS))), "item_ids": tuple(map(str, range(ITEMS)))}
  test = Interactions(
    users.astype(np.int32),
    items.astype(np.int32),
    np.where(liked[rated], 5.0, 2.0).astype("f4"),
    np.zeros(len(users), np.int64),
    **ids,
  )
  candidates = np.tile(np.arange(20, dtype=np.int32), (USERS, 1))
  candidates[5, 15:] = -1
  order = np.array([19, 3, 30, 0], np.int32)
  valid = candidates >= 0
  return benchmark_fusion.Published(
    test.take(np.array([], np.int64)),
    test,
    np.arange(USERS, dtype=np.int32),
    candidates,
    base=np.broadcast_to(1 / np.arange(1.0, 21), candidates.shape),
    relevant=np.take_along_axis(liked, np.maximum(candidates, 0), axis=1) & valid,
    num_relevant=liked.sum(axis=1),
    orders={"turned": (np.arange(1, USERS, dtype=np.int32), np.tile(order, (USERS - 1, 1)))},
  )


def test_orders_become_scores_by_rank(synthetic):
  scores = benchmark_fusion.order_as_scores(synthetic, *synthetic.orders["turned"])
  expected = np.zeros(20)
  expected[[19, 3, 0]] = 1.0, 1 / 2, 1 / 4  # item 30 is no candidate
  assert np.array_equal(scores[1], expected)
  assert not scores[0].any()  # a user without such a list
  assert scores[5, 3] == 1 / 2 and scores[5, 19] == 0.0  # whose candidates end before item 19


def test_figures_agree_with_each_other(synthetic):
  lines = []
  results = benchmark_fusion.run_fusion(
    synthetic,
    log=Recorder(lines),
    methods=("zscore", "reciprocal"),
    noise_rankers=2,
    simulated_rankers=1,
    partitions=1,
  )
  assert lines == ["fusion: zscore", "fusion: reciprocal"]
  counted = synthetic.num_relevant > 0
  own = np.asarray(ndcg(synthetic.relevant, synthetic.num_relevant.astype(np.int32), k=10))[counted]
  assert results["users"] == counted.sum() < USERS
  assert results["base"] == pytest.approx(own.mean(), abs=1e-6)
  assert results["alone"]["turned"] < results["base"]
  for found in results["methods"].values():
    for one in (*found["noise"], *found["planted"], *found["orders"]["turned"]):
      assert one["ndcg"] - results["base"] == pytest.approx(one["mean"], abs=1e-6)
      assert one["lo"] <= one["mean"] <= one["hi"] and one["n"] == results["users"]
      assert one["non_inferior"] == (one["lo"] > -0.002)
      if not any(one["weights"]):
        assert one["rules"] == ["0", "0"] and one["mean"] == one["lo"] == one["hi"] == 0
    assert all(weight > 0 for weight in found["planted"][0]["weights"])
    assert found["planted"][0]["lo"] > 0
  text = markdown_grid(benchmark_fusion.table(results))
  assert "| turned | reciprocal |" in text and "a simulated ranker gains .02 or more: yes" in text


def test_claims_fail_where_one_figure_does():
  def results(noise=0.0, planted=0.03, non_inferior=True):
    orders = {"a": [{"non_inferior": True}, {"non_inferior": non_inferior}]}
    found = {"noise": [{"mean": 0.0}, {"mean": noise}], "planted": [{"mean": planted}]}
    return {"methods": {"zscore": found | {"orders": orders}}}

  def holds(**given):
    return list(benchmark_fusion.claims(results(**given)).values())

  assert holds() == [True, True, True]
  assert holds(noise=-0.002) == [False, True, True]
  assert holds(planted=0.019) == [True, False, True]
  assert holds(non_inferior=False) == [True, True, False]


def test_missing_lists_are_one_line(tmp_path):
  flags = ("--suite=fusion", f"--data_dir={tmp_path}")
  line = error_line(call("benchmark", *flags, cwd=tmp_path, check=1, env={"GATREC_DATA": ""}))
  assert f"--data_dir={tmp_path}: --suite=fusion needs" in line and "published/" in line


@pytest.mark.skipif(not (SHARED / "data" / "published").is_dir(), reason="../shared is not here")
def test_the_claims_hold_over_the_published_lists():
  """For two of the four methods; the suite itself checks all of them with more rankers."""
  published = benchmark_fusion.open_published(str(SHARED / "data"))
  results = benchmark_fusion.run_fusion(
    published,
    log=SILENT,
    methods=("zscore", "linear"),
    noise_rankers=1,
    simulated_rankers=1,
    partitions=1,
  )
  assert results["base"] == pytest.approx(0.4244, abs=5e-5) and results["users"] == 456
  # Ebrat et al. 2025 (arXiv 2508.01514) round these to three digits.
  expected = {"batch": 0.313, "bst": 0.294, "relevancy_local": 0.369, "relevancy_4o": 0.367}
  assert results["alone"] == pytest.approx(expected, abs=6e-4)
  assert results["claims"] and all(results["claims"].values())
