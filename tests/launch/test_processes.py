"""Several processes train a run like a single one; which meshes and processes are refused."""

import json
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from helpers.programs import call, environment, error_line, launch

from gatrec_jax import runs
from gatrec_jax.errors import InputError
from gatrec_jax.serve.run import load_run
from gatrec_jax.sharding.mesh import parse_mesh, start_processes

# The 1,400 users and items of the demo are sharded without further settings. This layer compiles
# quickly.
FLAGS = (
  "--dataset=demo",
  "--preset=tiny",
  "--encoder=lexical",
  "--set=epochs=2",
  "--set=evaluate_every=1",
  "--set=convolution=light",
  "--set=attention=none",
  "--set=layers=1",
  "--set=edge_features=rating",
  "--set=combine=last",
  "--set=feature_width=8",
  "--set=edge_dropout=0",
  "--set=feature_dropout=0",
  "--bootstrap=0",
  "--ks=10",
)


def free_port():
  with socket.socket() as found:
    found.bind(("127.0.0.1", 0))
    return found.getsockname()[1]


def start(cwd, *flags):
  return subprocess.Popen(
    [sys.executable, "-m", "launch.train", *FLAGS, *flags],
    cwd=cwd,
    env=environment(cwd),
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def test_two_processes_train_as_one_and_the_first_alone_writes_the_run(tmp_path):
  call("train", *FLAGS, "--workdir=one", cwd=tmp_path, check=0)
  address = f"--coordinator=127.0.0.1:{free_port()}"
  common = ("--mesh=1x2x1", address, "--num_processes=2", "--workdir=two")
  processes = [
    start(tmp_path, *common, f"--process_id={k}", f"--json_out={k}.json") for k in range(2)
  ]
  try:
    (first, first_errors), (second, second_errors) = [p.communicate(timeout=300) for p in processes]
  finally:
    for process in processes:
      process.kill()
  assert [p.returncode for p in processes] == [0, 0], first_errors + second_errors
  assert "2 devices (graph 2)" in first and "NDCG@10" in first
  assert all(line.startswith("[Gloo]") for line in second.splitlines())  # printed by JAX

  one, two = (runs.read_sealed(tmp_path / name / "results.json") for name in ("one", "two"))
  assert two["epoch"] == one["epoch"] and two["epochs_run"] == 2
  for name, value in one["full"].items():
    assert two["full"][name]["mean"] == pytest.approx(value["mean"], rel=0, abs=1e-5), name
  curves = [
    [json.loads(line)["value"] for line in (tmp_path / name / "metrics.jsonl").open()]
    for name in ("one", "two")
  ]
  assert len(curves[0]) == 4 and curves[1] == pytest.approx(curves[0], rel=0, abs=1e-5)

  assert json.loads((tmp_path / "0.json").read_text()) == two
  assert not (tmp_path / "1.json").exists()
  names = [{p.name for p in (tmp_path / name).iterdir()} for name in ("one", "two")]
  assert names[1] == names[0] | {"processes"}
  assert [p.name for p in (tmp_path / "two/processes").iterdir()] == ["1"]
  assert not (tmp_path / "two/processes/1/checkpoints").exists()
  # A single process with one device reads what two processes saved.
  vectors = [load_run(tmp_path / name).params for name in ("one", "two")]
  for one, other in zip(*map(jax.tree.leaves, vectors), strict=True):
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mesh", ("8", "", "2x", "axb", "-1x2", "2x2x2x2", "2×2", "1.0x1"))
def test_text_that_is_no_mesh_is_refused(mesh):
  with pytest.raises(InputError, match=r"^mesh=.*: two or three numbers with an x between"):
    parse_mesh(mesh)


@pytest.mark.parametrize(
  ("mesh", "sizes"), (("1x99", "1 × 1 × 99"), ("1x99x1", "1 × 99 × 1"), ("99x1", "99 × 1 × 1"))
)
def test_a_mesh_for_which_devices_are_missing_is_refused(mesh, sizes):
  with pytest.raises(InputError, match=rf"^mesh={mesh}: a mesh of {sizes} devices .* are here"):
    parse_mesh(mesh)


def test_a_mesh_of_no_device_is_refused():
  with pytest.raises(InputError, match=r"^mesh=0x1: each number must be at least 1"):
    parse_mesh("0x1")


def test_a_mesh_of_one_device_is_none():
  assert parse_mesh("1x1") is None and parse_mesh(" 1 x 1 x 1 ") is None


def test_a_coordinator_without_numbers_is_refused():
  with pytest.raises(InputError, match=r"^coordinator=127.0.0.1:1: needs `num_processes` and"):
    start_processes("127.0.0.1:1")
  with pytest.raises(InputError, match=r"^process_id=2: must be at least 0 and below"):
    start_processes("127.0.0.1:1", num_processes=2, process_id=2)


def test_the_program_refuses_in_one_line(tmp_path):
  """Exit code 1, one line that names the flag, nothing made."""

  def refuse(by, *flags):
    return error_line(by("train", *FLAGS, *flags, cwd=tmp_path, check=1))

  assert refuse(launch, "--mesh=1x99x1").startswith("error: --mesh=1x99x1: a mesh of 1 × 99 × 1")
  assert refuse(call, "--mesh=eight").startswith("error: --mesh=eight: two or three numbers")
  for flag in ("--process_id=0", "--num_processes=2"):
    assert refuse(call, flag) == (
      "error: --num_processes and --process_id need --coordinator=HOST:PORT"
    )
  for flag in ("--refit", "--search=2"):
    line = refuse(call, "--coordinator=127.0.0.1:1", flag)
    assert line.startswith("error: --coordinator: several processes train a single run")
  assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("mesh", ("1x1", "1x1x1"))
def test_processes_without_a_mesh_of_all_devices_are_refused(tmp_path, monkeypatch, mesh):
  monkeypatch.setattr("gatrec_jax.sharding.mesh.start_processes", lambda *_, **__: None)
  monkeypatch.setattr("jax.process_count", lambda: 2)
  monkeypatch.setattr("jax.device_count", lambda: 2)
  flags = (f"--mesh={mesh}", "--coordinator=127.0.0.1:1", "--num_processes=2", "--process_id=0")
  line = error_line(call("train", *FLAGS, *flags, cwd=tmp_path, check=1))
  assert line == (
    f"error: --mesh={mesh}: several processes need a mesh of all their devices, here 2, such as "
    "1x2x1"
  )
