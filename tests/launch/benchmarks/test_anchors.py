"""RecBole's own split, without PyTorch."""

import numpy as np
import pytest
from helpers.paths import SHARED

from gatrec_jax.data.interactions import Interactions
from gatrec_jax.runs.log import SILENT
from launch.benchmarks import anchors as suite


def test_permutations_equal_those_of_pytorch():
  # torch.manual_seed(0); torch.randperm(10) and seed 2020; torch.randperm(6), torch 2.13, CPU.
  assert suite.torch_permutation(10, 0).tolist() == [4, 1, 7, 5, 3, 9, 0, 8, 6, 2]
  assert sorted(suite.torch_permutation(1000, 2020).tolist()) == list(range(1000))


def test_small_users_are_tested_as_recbole_does():
  user = np.repeat(np.arange(5), [1, 2, 3, 9, 25]).astype(np.int32)
  rows = Interactions(
    user,
    np.arange(40, dtype=np.int32),
    np.ones(40, np.float32),
    np.zeros(40, np.int64),
    tuple("abcde"),
    tuple(map(str, range(40))),
  )
  split = suite.recbole_split(rows, 1)
  counts = [
    np.bincount(user[part], minlength=5).tolist() for part in (split.train, split.valid, split.test)
  ]
  assert counts == [[1, 1, 1, 7, 21], [0, 0, 1, 1, 2], [0, 1, 1, 1, 2]]
  everything = np.concatenate([split.train, split.valid, split.test])
  assert sorted(everything.tolist()) == list(range(40))


@pytest.mark.skipif(not (SHARED / "data/ml-100k.zip").exists(), reason="../shared is not here")
def test_ease_gives_the_published_value_on_that_split(monkeypatch):
  key = ("ml-100k", "recbole_b")
  ease = {key: {"ease": suite.ANCHORS[key]["ease l2=200"]}}
  monkeypatch.setattr(suite, "ANCHORS", ease)
  (row,) = suite.run_anchors(str(SHARED / "data"), log=SILENT)["rows"]
  assert row["ndcg@10"] == pytest.approx(0.2805, abs=5e-5)
