"""The run folder: whole files or none, stages skipped or made, lines after a resume, one owner."""

import json

import pytest

from gatrec_jax import runs
from gatrec_jax.errors import InputError
from gatrec_jax.runs.log import SILENT, Recorder


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
  path = tmp_path / "a.json"
  runs.write_json(path, {"x": 1})
  with pytest.raises(RuntimeError), runs.atomic_path(path) as temporary:
    temporary.write_text("half")
    raise RuntimeError
  assert runs.read_json(path) == {"x": 1} and [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_reading_what_is_missing_or_damaged_is_one_line(tmp_path):
  with pytest.raises(InputError, match="launch.train"):
    runs.read_json(tmp_path / "none.json")
  (tmp_path / "bad.json").write_text('{"x": ')
  with pytest.raises(InputError, match="bad.json: damaged"):
    runs.read_json(tmp_path / "bad.json")


def test_stages_run_once_and_again_when_inputs_or_outputs_change(tmp_path):
  made, lines = [], []

  def run(inputs):
    def make():
      made.append(inputs)
      (tmp_path / "out").write_text(inputs)
      return {"count": len(made)}

    return runs.stage(
      tmp_path, name="thing", inputs=inputs, outputs=("out",), make=make, log=Recorder(lines)
    )

  assert run("a") == {"count": 1} and run("a") == {"count": 1} and made == ["a"]
  assert "unchanged" in lines[0]
  assert run("b") == {"count": 2}
  (tmp_path / "out").unlink()
  assert run("b") == {"count": 3}


def test_a_stage_that_fails_is_not_taken_for_done(tmp_path):
  def fail():
    (tmp_path / "out").write_text("half")
    raise InputError("no")

  with pytest.raises(InputError):
    runs.stage(tmp_path, name="t", inputs="a", outputs=("out",), make=fail, log=SILENT)
  assert not (tmp_path / "manifest.json").exists()


def test_metrics_lines_behind_the_checkpoint_are_dropped(tmp_path):
  path = tmp_path / "metrics.jsonl"
  first = runs.MetricsFile(path, after_step=0)
  for step in (1, 2, 3):
    first.write(step, loss=step / 2)
  first.close()
  with open(path, "a") as handle:
    handle.write('{"step": 4, "na')  # the process died here
  again = runs.MetricsFile(path, after_step=2)
  again.write(3, loss=9.0)
  again.close()
  assert [json.loads(line) for line in path.open()] == [
    {"step": 1, "name": "loss", "value": 0.5},
    {"step": 2, "name": "loss", "value": 1.0},
    {"step": 3, "name": "loss", "value": 9.0},
  ]


def test_digest_depends_on_parts_and_their_borders():
  assert runs.digest("ab", "c") != runs.digest("a", "bc") != runs.digest("a", "bc", "")
  assert runs.digest({"b": 1, "a": 2}) == runs.digest({"a": 2, "b": 1})


def test_unwritable_folder(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(InputError, match="workdir"):
    runs.open_workdir(tmp_path / "file" / "run")


def test_lock_is_exclusive_and_released(tmp_path):
  with runs.locked(tmp_path), pytest.raises(InputError, match="another process"):
    with runs.locked(tmp_path):
      pass
  with runs.locked(tmp_path):
    pass


def test_environment_names_packages_and_device():
  facts = runs.environment()
  assert facts["packages"]["jax"] and "cpu" in facts["device"]


def test_what_checkpoints_were_trained_on_is_fixed_once_there_are_any(tmp_path):
  runs.require_same_origin(tmp_path, "data", "a")
  runs.require_same_origin(tmp_path, "profiles", "x")
  runs.require_same_origin(tmp_path, "data", "b")  # nothing is trained yet
  (tmp_path / "checkpoints" / "5").mkdir(parents=True)
  runs.require_same_origin(tmp_path, "data", "b")
  runs.require_same_origin(tmp_path, "profiles", "x")
  with pytest.raises(InputError, match="other data than"):
    runs.require_same_origin(tmp_path, "data", "a")
  assert runs.read_sealed(tmp_path / "checkpoints.json") == {"data": "b", "profiles": "x"}
