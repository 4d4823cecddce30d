"""Suite `statistics` on few comparisons."""

import numpy as np

from gatrec_jax.runs.log import SILENT
from launch.benchmarks import statistics as suite


def test_simulated_systems_have_the_specified_quality():
  pairs = [suite.simulate(np.random.default_rng(seed), gain=0.1) for seed in range(8)]
  gains = [new.mean() / old.mean() - 1 for old, new in pairs]
  assert 0.05 < np.mean(gains) < 0.1  # a full list cannot get better
  old, copy = suite.simulate(np.random.default_rng(0), gain=0.0)
  assert old.shape == (suite.USERS,) and not np.array_equal(old, copy)
  assert 0.9 < np.corrcoef(old, copy)[0, 1] < 1
  assert 0 <= old.min() and old.max() <= 1


def test_ideal_lists_score_1():
  hits = np.zeros((1, 2, 10), bool)
  hits[0, 0, :3] = True
  found = suite._ndcg(hits, np.array([[[3], [5]]]))
  np.testing.assert_allclose(found, [[1.0, 0.0]])


def test_verdicts_are_counted(monkeypatch):
  monkeypatch.setattr(suite, "RESAMPLES", 200)
  monkeypatch.setattr(suite, "LEVEL_RESAMPLES", 200)
  results = suite.run_statistics(comparisons=6, level_comparisons=20, log=SILENT)
  copies, better, one_fold, level = results["checks"]
  assert copies["not separated"] >= 4 and better["ahead"] == 6
  assert one_fold["comparisons"] == 6 and one_fold["behind"] == 0
  assert level["ahead"] + level["not separated"] + level["behind"] == 20
  _, header, rows, _ = suite.table(results)
  assert all(len(row) == len(header) for row in rows) and "ahead 100.0% (≥ 90%)" in rows[1]
