"""launch.damage: kinds of damage, what counts as which outcome, and one small call of it all."""

import numpy as np
import pytest

from gatrec_jax.runs.log import SILENT
from launch.fuzzing.damage_trials import BAD, by_outcome, try_damages
from launch.fuzzing.damages import DAMAGES, damaged
from launch.fuzzing.reading_programs import READERS, Reader, artifact


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("content", [b"", b"a", b"one 1\ntwo 2\n" * 20, bytes(range(256)) * 3])
def test_damage_is_one_of_its_kind_and_repeats(tmp_path, kind, content):
  path, seen = tmp_path / "file", []
  for seed in (0, 0, 1):
    path.write_bytes(content)
    changed = damaged(path, kind, np.random.default_rng(seed))
    after = path.read_bytes() if path.exists() else None
    assert changed == (after != content)
    seen.append(after)
  assert seen[0] == seen[1]
  if kind == "bit" and content:
    (place,) = [n for n, (a, b) in enumerate(zip(content, seen[0], strict=True)) if a != b]
    assert (content[place] ^ seen[0][place]).bit_count() == 1
  if kind == "digit" and b"1" in content and content.isascii():
    assert len(seen[0]) == len(content) and seen[0].decode().isascii()


def test_every_reader_reads_something_that_is_made():
  made = {"run/results", "run/data", "run/checkpoints", "compared", "searched", "written"}
  for reader in READERS.values():
    assert any(one.startswith(reader.reads) for one in {*made, "reasons.jsonl"})
  assert artifact("run/checkpoints/3/params/d/x") == "run/checkpoints"
  assert artifact("run/checkpoints.json") == "run/checkpoints"
  assert artifact("cache/builtin/k/model/config.json") == "cache/builtin"
  assert artifact("compared/a/b.json") == "compared"


def test_silent_damage_is_found_and_other_damage_is_not_held_against_a_program(tmp_path):
  """A table of the user's own holds no hash, so that damage to it is told late or not at all."""
  run = ("--dataset=ratings.csv", "--model=popularity", "--bootstrap=0", "--workdir=run")
  read = (
    *("--dataset=ratings.csv", "--max_bad_share=1", "--bootstrap=0", "--json_out=out.json"),
    "--recommendations=run/recommendations.parquet",
  )
  readers = {
    "train": Reader("train", run, ("run/data",), ("run",), makes=True),
    "evaluate": Reader("evaluate", read, ("ratings.csv", "run/recomm"), ("out.json",)),
  }
  found = try_damages(tmp_path, trials=20, seed=0, log=SILENT, readers=readers)
  wrong = [one for one in found if one["outcome"] in BAD]
  assert wrong and {one["file"] for one in wrong} == {"ratings.csv"}
  assert all((tmp_path / "findings" / one["key"] / "report.json").exists() for one in wrong)
  counts = by_outcome(found, "artifact")
  assert counts["run/data"]["made again"] and counts["run/recommendations"]["refused"]
