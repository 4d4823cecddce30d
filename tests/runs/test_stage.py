"""Stages: made once, made again where damaged, and tied to what was trained on."""

import pytest

from gatrec_jax import runs
from gatrec_jax.errors import DamagedFile, InputError
from gatrec_jax.runs.log import SILENT, Recorder


def make_stage(folder, inputs="a", content="made", log=SILENT):
  def make():
    (folder / "out").write_text(content)
    return {"content": content}

  return runs.stage(folder, name="t", inputs=inputs, outputs=("out",), make=make, log=log)


@pytest.mark.parametrize("damage", ["changed", "gone", "manifest"])
def test_a_damaged_stage_is_made_again_with_a_line(tmp_path, damage):
  make_stage(tmp_path)
  if damage == "changed":
    (tmp_path / "out").write_text("mode")
  elif damage == "gone":
    (tmp_path / "out").unlink()
  else:
    (tmp_path / "manifest.json").write_text("{}")
  with pytest.raises(DamagedFile):
    runs.facts_of_stage(tmp_path)
  lines = []
  assert make_stage(tmp_path, log=Recorder(lines)) == {"content": "made"}
  assert (tmp_path / "out").read_text() == "made"
  assert len(lines) == 1 and lines[0].startswith("t: made again, since") and "damaged" in lines[0]
  assert runs.facts_of_stage(tmp_path)["facts"] == {"content": "made"}


def test_a_stage_that_cannot_be_made_the_same_again_says_so(tmp_path):
  make_stage(tmp_path)
  (tmp_path / "out").unlink()
  lines = []
  make_stage(tmp_path, content="other", log=Recorder(lines))
  assert "warning: t: what was made again is not byte for byte" in lines[1]


def test_other_inputs_are_no_damage(tmp_path):
  make_stage(tmp_path)
  lines = []
  make_stage(tmp_path, inputs="b", content="other", log=Recorder(lines))
  assert lines == []


def test_a_damaged_record_of_what_was_trained_on_is_one_line(tmp_path):
  runs.require_same_origin(tmp_path, "data", "a")
  (tmp_path / "checkpoints.json").write_text("{}")
  runs.require_same_origin(tmp_path, "data", "a")  # nothing is trained yet: written anew
  (tmp_path / "checkpoints" / "1").mkdir(parents=True)
  (tmp_path / "checkpoints.json").write_text("{}")
  with pytest.raises(InputError, match=r"checkpoints.json: damaged .* delete this file"):
    runs.require_same_origin(tmp_path, "data", "a")
