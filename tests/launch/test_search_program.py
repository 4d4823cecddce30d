"""`launch.train --search` as users call it."""

import json
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest
from helpers.programs import call, environment, error_line, launch

FLAGS = ("--model=ease", "--bootstrap=0", "--workdir=w")


def test_search_trains_the_chosen_settings_and_a_larger_budget_trains_again(tmp_path):
  done = launch("train", *FLAGS, "--search=2", cwd=tmp_path, check=0)
  assert "search: trial 1 l2=" in done.stdout and "best is trial" in done.stdout
  assert "2 trials reached the end" in done.stdout
  config = json.loads((tmp_path / "w/config.json").read_text())["config"]
  chosen = json.loads((tmp_path / "w/search/chosen.json").read_text())
  assert config == chosen["config"] and config["data"]["valid_share"] == 0
  assert config["model"]["l2"] == chosen["settings"]["l2"]
  done = call("train", *FLAGS, "--search=4", cwd=tmp_path, check=0)
  assert "search: kept 2 earlier trainings" in done.stdout and "trial 1 " not in (
    "".join(line for line in done.stdout.splitlines(True) if line.startswith("search: trial"))
  )
  table = pq.read_table(tmp_path / "w/search/trials.parquet").to_pylist()
  best = max(table, key=lambda row: row["value"])
  assert len(table) == 4
  config = json.loads((tmp_path / "w/config.json").read_text())["config"]
  assert config["model"]["l2"] == best["l2"]


def test_a_terminated_search_resumes(tmp_path):
  flags = (
    "--model=bpr_mf",
    "--set=epochs=3",
    "--set=evaluate_every=1",
    "--set=width=8",
    "--bootstrap=0",
    "--set=batch_size=0",
    "--search=2.4",
    "--workdir=w",
  )
  process = subprocess.Popen(
    [sys.executable, "-m", "launch.train", *flags],
    cwd=tmp_path,
    env=environment(tmp_path),
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  trials, deadline = tmp_path / "w/search/trials.parquet", time.monotonic() + 120
  while not trials.exists() and process.poll() is None and time.monotonic() < deadline:
    time.sleep(0.02)
  process.send_signal(signal.SIGTERM)
  output = process.communicate(timeout=120)[0]
  assert process.returncode != 0, output
  killed = pq.read_table(trials).to_pylist()
  assert killed and not (tmp_path / "w/results.json").exists()
  call("train", *flags, cwd=tmp_path, check=0)
  table = pq.read_table(trials).to_pylist()
  assert len(table) > len(killed) and all(row in table for row in killed)  # seconds and all
  assert (tmp_path / "w/results.json").exists()


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (["--search=0.5"], ["--search=0.5", "too small for one trial", "at least 1"]),
    (["--search=4", "--search_space=l2=5:1"], ["--search_space=l2=5:1", "empty"]),
    (["--search_space=l2=1:5"], ["need --search=N"]),
  ],
)
def test_bad_searches_are_refused_in_one_line(tmp_path, flags, words):
  line = error_line(call("train", *FLAGS, *flags, cwd=tmp_path, check=1))
  assert all(word in line for word in words), line
  assert not (tmp_path / "w").exists()


def test_a_run_without_search_is_not_overwritten(tmp_path):
  (tmp_path / "w/checkpoints/1").mkdir(parents=True)
  line = error_line(call("train", *FLAGS, "--search=2", cwd=tmp_path, check=1))
  assert "trained without --search" in line
