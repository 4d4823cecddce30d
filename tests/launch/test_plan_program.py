"""`--plan_only` and `--memory_limit` of launch.train."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from helpers.programs import TINY, call, error_line, launch


def test_a_plan_is_a_table_and_nothing_is_written(tmp_path):
  flags = (*TINY, "--plan_only", "--workdir=run")
  done = call("train", *flags, cwd=tmp_path, check=0)
  for word in ("data", "texts", "graph", "training", "validation", "evaluation", "together"):
    assert word in done.stdout
  assert "memory, GiB" in done.stdout and "time" in done.stdout
  assert not (tmp_path / "run").exists() and not (tmp_path / "runs").exists()


def test_a_plan_for_devices_that_are_not_here(tmp_path):
  flags = (*TINY, "--plan_only", "--mesh=1x64x1", "--memory_limit=0.1")
  done = call("train", *flags, cwd=tmp_path, check=0)
  assert "on a mesh of 1x64x1 training needs" in " ".join(done.stdout.split())
  line = error_line(call("train", *TINY, "--plan_only", "--mesh=64", cwd=tmp_path, check=1))
  assert line.startswith("error: --mesh=64: two or three numbers")


def test_a_plan_as_json(tmp_path):
  call("train", "--model=ease", "--plan_only", "--json_out=plan.json", cwd=tmp_path, check=0)
  stages = json.loads((tmp_path / "plan.json").read_text())["stages"]
  assert list(stages) == ["data", "texts", "graph", "training", "evaluation"]
  assert stages["training"]["choice"] == "exact: 1 × 800 × 800 weights"
  assert all(stage["memory_mb"] > 250 and stage["seconds"] >= 0 for stage in stages.values())


def test_a_table_that_is_too_large_is_refused_before_it_is_read(tmp_path):
  zeros = np.zeros(5_000_000, np.int32)
  pq.write_table(pa.table({"user_id": zeros, "item_id": zeros}), tmp_path / "t.parquet")
  flags = ("--dataset=t.parquet", "--memory_limit=0.75", "--workdir=run")
  done = launch("train", *flags, cwd=tmp_path, check=1)
  line = error_line(done)
  assert line.startswith("error: --memory_limit=0.75: ") and " needs at least " in line
  assert "the limit is 0.8 GiB" in line and "--memory_limit=" in line.split("; or ")[-1]
  assert not (tmp_path / "run").exists()


def test_settings_that_fit_have_the_names_of_flags(tmp_path):
  items, users = np.meshgrid(np.arange(40), np.arange(300))
  rows = pa.table({"user_id": users.ravel(), "item_id": items.ravel() * 1000 % 20_011})
  pq.write_table(rows, tmp_path / "t.parquet")
  flags = ("--dataset=t.parquet", "--plan_only", "--memory_limit=0.4", "--workdir=run")
  line = error_line(call("train", *flags, cwd=tmp_path, check=1))
  assert line.startswith("error: --memory_limit=0.4: ") and "`" not in line
  assert not (tmp_path / "run").exists()


def test_a_run_says_its_plan(tmp_path):
  done = call("train", *TINY, "--workdir=run", cwd=tmp_path, check=0)
  assert done.stdout.count("plan: at most ") == 1
  results = json.loads((tmp_path / "run" / "results.json").read_text())
  stages = results.get("content", results)["stages"]
  assert {"data", "texts", "graph", "training", "validation", "evaluation"} <= set(stages)
