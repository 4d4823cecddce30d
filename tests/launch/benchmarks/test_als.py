"""Suite als: the correspondence of the two objectives, its table, and both packages on the demo."""

import dataclasses
import importlib.util
import json

import numpy as np
import pytest
from helpers.dense_als import dense_half_step
from helpers.programs import call, error_line

from gatrec_jax.config.models import IalsConfig
from launch.benchmarks import als
from launch.benchmarks.als import OURS, PEER, corresponding, equal_time, table

needs_implicit = pytest.mark.skipif(
  importlib.util.find_spec("implicit") is None, reason="implicit is not installed"
)


def row(model, iterations, seconds, ndcg, compiling=None):
  return {
    "model": model,
    "iterations": iterations,
    "seconds": [seconds, seconds],
    "median_seconds": seconds,
    "median_cpu_seconds": 2 * seconds if model == OURS else 4 * seconds,
    "compile_seconds": compiling,
    "peak_mb": 100.4,
    "ndcg": ndcg,
  }


ROWS = [
  row(OURS, 4, 1.0, 0.30, 2.0),
  row(PEER, 4, 2.0, 0.29),
  row(OURS, 15, 3.0, 0.35, 2.5),
  row(PEER, 15, 6.0, 0.36),
]


def test_corresponding_settings_solve_the_same_rows():
  rng = np.random.default_rng(0)
  observed, items = (rng.random((6, 9)) < 0.4).astype(float), rng.normal(size=(9, 3))
  observed[:, 0] = 1
  for alpha0, l2 in ((0.3, 10.0), (2.0, 0.5)):
    settings = IalsConfig(width=3, unobserved_weight=alpha0, l2=l2, l2_power=0.0)
    peer, shrunk = corresponding(settings), (1 + alpha0) ** -0.5
    ours = dense_half_step(observed, items * shrunk, settings)
    for user, seen in zip(ours, observed, strict=True):
      weight = np.where(seen > 0, peer["alpha"], 1.0)
      normal = (items.T * weight) @ items + peer["regularization"] * np.eye(3)
      theirs = np.linalg.solve(normal, items.T @ (weight * seen))
      np.testing.assert_allclose(user, theirs * shrunk, rtol=1e-10)


def test_equal_time_by_hand():
  assert equal_time(ROWS) == [
    {"of": PEER, "seconds": 6.0, OURS: 0.35, PEER: 0.36},
    {"of": OURS, "seconds": 3.0, OURS: 0.35, PEER: 0.29},
  ]
  slow = [row(OURS, 4, 1.0, 0.3), row(PEER, 4, 2.0, 0.2)]
  assert equal_time(slow)[1][PEER] is None and equal_time(ROWS[::2]) == []


def test_the_table_by_hand():
  results = {"data": "rows.csv", "pairs": 12, "users": 3, "items": 5, "device": "cpu", "repeats": 2}
  results |= {"peer": {"implicit": "0.7", "threads": 2}, "rows": ROWS}
  made = table(results | {"equal_time": equal_time(ROWS)})
  assert made.rows[0] == (OURS, "4", "1 (1–1)", "2", "2", "100", "0.3000", "2.00", "4.00")
  assert made.rows[3] == (PEER, "15", "6 (6–6)", "24", "–", "100", "0.3600", "–", "–")
  assert all(len(one) == len(made.header) for one in made.rows)
  assert made.notes[-2:] == [
    "NDCG@10 in 6 s, the longest fit of implicit: gatrec_jax 0.3500, implicit 0.3600",
    "NDCG@10 in 3 s, the longest fit of gatrec_jax: gatrec_jax 0.3500, implicit 0.2900",
  ]


@pytest.fixture
def small(monkeypatch):
  monkeypatch.setattr(als, "ITERATIONS", (8,))
  monkeypatch.setattr(als, "SETTINGS", dataclasses.replace(als.SETTINGS, width=4, l2=2.0))


def test_the_suite_runs_without_a_peer(small, tmp_path):
  flags = ("--suite=als", "--dataset=demo", "--repeats=1", "--json_out=als.json")
  call("benchmark", *flags, cwd=tmp_path, check=0)
  tree = json.loads((tmp_path / "als.json").read_text())
  (own,) = tree["rows"]
  assert own["model"] == OURS and own["iterations"] == 8 and len(own["seconds"]) == 1
  assert 0 < own["ndcg"] < 1 and own["peak_mb"] > 0 and tree["equal_time"] == []


@needs_implicit
def test_the_peer_has_nearly_the_same_accuracy(small, tmp_path):
  flags = ("--compare=implicit", "--dataset=demo", "--repeats=2", "--json_out=als.json")
  call("benchmark", *flags, cwd=tmp_path, check=0)
  tree = json.loads((tmp_path / "als.json").read_text())
  ours, theirs = tree["rows"]
  assert (tree["suite"], theirs["model"], len(theirs["seconds"])) == ("als", PEER, 2)
  assert theirs["ndcg"] == pytest.approx(ours["ndcg"], abs=0.03)


@pytest.mark.skipif(importlib.util.find_spec("implicit") is not None, reason="implicit is here")
def test_a_package_that_is_not_there_is_one_line(tmp_path):
  done = call("benchmark", "--compare=implicit", "--dataset=demo", cwd=tmp_path, check=1)
  assert "--compare=implicit: this Python has no implicit; --peer_python" in error_line(done)


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (["--suite=als", "--compare=torch"], "--suite=als: suite als has the peer implicit"),
    (["--suite=lm", "--dataset=demo"], "--dataset=demo: only suite als reads it"),
    (["--suite=als", "--dataset=a", "--train_file=b"], "--train_file=b: and --dataset exclude"),
    (["--suite=als", "--dataset=/no/such.csv"], "/no/such.csv"),
  ],
)
def test_wrong_flags_are_one_line(tmp_path, flags, words):
  assert words in error_line(call("benchmark", *flags, cwd=tmp_path, check=1))
