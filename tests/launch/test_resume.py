"""Runs that are killed or terminated continue and end with the same bytes as uninterrupted ones."""

import json
import signal
import subprocess
import sys
import time

import jax
import numpy as np
from helpers.programs import arrays_equal, call, environment
from helpers.rerank_table import write_table

from gatrec_jax.serve.run import load_run

# Four steps per epoch, and so many epochs that the last kill comes long before the end. This layer
# compiles quickly; negatives and both kinds of dropout draw random numbers in every step.
FLAGS = (
  "--preset=tiny",
  "--set=convolution=light",
  "--set=attention=none",
  "--set=layers=1",
  "--set=feature_dropout=0.1",
  "--set=edge_dropout=0.1",
  "--set=feature_width=8",
  "--encoder=lexical",
  "--set=epochs=24",
  "--set=evaluate_every=1",
  "--set=patience=24",
  "--set=batch_size=128",
  "--bootstrap=20",
  "--ks=10",
  "--dataset=ratings.csv",
  "--item_metadata=items.jsonl",
)


def last_epoch(workdir):
  folder = workdir / "checkpoints"
  done = [int(p.name) for p in folder.iterdir() if p.name.isdigit()] if folder.is_dir() else []
  return max(done, default=0)


def start(workdir):
  return subprocess.Popen(
    [sys.executable, "-m", "launch.train", *FLAGS, f"--workdir={workdir}"],
    cwd=workdir.parent,
    env=environment(workdir.parent),
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def test_killed_and_terminated_it_ends_bit_for_bit_the_same(tmp_path):
  """Kills at many more moments, of every program, are those of launch.soak."""
  write_table(tmp_path)
  call("train", *FLAGS, "--workdir=whole", cwd=tmp_path, check=0)
  workdir = tmp_path / "run"
  rng, seen, outputs = np.random.default_rng(0), 0, []
  for signum in (signal.SIGKILL, signal.SIGTERM):
    process = start(workdir)
    deadline = time.monotonic() + 120
    while last_epoch(workdir) <= seen and process.poll() is None and time.monotonic() < deadline:
      time.sleep(0.005)
    time.sleep(rng.uniform(0, 0.05))  # anywhere in the epoch, or in the next save
    process.send_signal(signum)
    outputs.append(process.communicate(timeout=120)[0])
    assert process.returncode == (128 + signum if signum == signal.SIGTERM else -signum), outputs[
      -1
    ]
    assert last_epoch(workdir) > seen
    seen = last_epoch(workdir)
  assert "stopped by SIGTERM at epoch" in outputs[1]
  assert not (workdir / "results.json").exists()

  finish = call("train", *FLAGS, f"--workdir={workdir}", cwd=tmp_path, check=0)
  assert f"resumed from the checkpoint of epoch {seen} (step " in finish.stdout
  assert "(step 0)" not in finish.stdout

  ours, whole = load_run(workdir), load_run(tmp_path / "whole")
  assert arrays_equal(jax.tree.leaves(ours.params), jax.tree.leaves(whole.params))
  lines = [
    [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    for folder in (workdir, tmp_path / "whole")
  ]
  assert lines[0] == lines[1]
  metrics = [
    json.loads((f / "results.json").read_text())["full"] for f in (workdir, tmp_path / "whole")
  ]
  assert metrics[0] == metrics[1]
