"""launch.fuzz: finds planted faults, survives what they do, resumes, and is reproducible."""

import json
import random

import pytest
from helpers import planted_parsers
from helpers.programs import call

from gatrec_jax.runs.log import SILENT
from launch.fuzzing import campaign, execute, mutate
from launch.fuzzing.parsers import PARSERS

PLANTED = {parser.name: parser for parser in planted_parsers.PARSERS}


def run(workdir, *names, executions=60, processes=0, seed=0):
  chosen = [PLANTED[name] for name in names]
  return campaign.fuzz(
    chosen, workdir, executions=executions, seed=seed, processes=processes, log=SILENT
  )


def kinds(workdir, name):
  return {kind for parser, kind in campaign.findings_of(workdir) if parser == name}


def test_the_parsers_of_the_library_have_no_faults(tmp_path):
  flags = ("--executions=25", "--processes=0", f"--workdir={tmp_path / 'fuzz'}")
  done = call("fuzz", *flags, cwd=tmp_path)
  assert done.returncode == 0, done.stdout
  counts = json.loads((tmp_path / "fuzz" / "counts.json").read_text())["0"]
  assert set(counts) == {parser.name for parser in PARSERS} and len(PARSERS) >= 15
  for name, one in counts.items():
    assert one["executions"] == one["accepted"] + one["refused"] == 25, name
    assert one["accepted"], name  # a parser that refuses even its seeds is not tested


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)
def test_every_seed_is_accepted(parser, tmp_path):
  found = [execute.execute(parser, tmp_path / "x", files) for files in parser.seeds()]
  assert any(one is True for one in found)


def test_planted_faults_are_found(tmp_path):
  counts = run(tmp_path, "read", "wrong_type", "two_lines")
  assert counts["read"]["findings"] == 0 and counts["read"]["refused"] > 5
  assert counts["wrong_type"]["findings"] > 5 and counts["two_lines"]["findings"] > 5
  assert any(kind.startswith("TypeError in ") for kind in kinds(tmp_path, "wrong_type"))
  assert kinds(tmp_path, "two_lines") == {"message of several lines"}
  number = campaign.findings_of(tmp_path)["two_lines", "message of several lines"][1]
  kept = tmp_path / "findings" / f"two_lines-{number}"
  files = execute.input_of(PLANTED["two_lines"], list(planted_parsers.SEEDS), 0, number)
  assert {one.name: one.read_bytes() for one in (kept / "files").iterdir()} == files
  assert "message of several lines" in (kept / "finding.txt").read_text("utf-8")


def test_the_program_ends_with_1_where_something_is_found(tmp_path, monkeypatch):
  monkeypatch.setattr("launch.fuzzing.parsers.PARSERS", planted_parsers.PARSERS)
  flags = ("--parser=wrong_type", "--executions=30", "--processes=0", "--workdir=w")
  done = call("fuzz", *flags, cwd=tmp_path, check=1)
  assert "TypeError" in done.stdout and "times, first w/findings/wrong_type-" in done.stdout
  assert call("fuzz", "--parser=read", *flags[1:], cwd=tmp_path).returncode == 0
  done = call("fuzz", "--parser=none", *flags[1:], cwd=tmp_path, check=1)
  assert "must be one of all, read" in done.stderr


def test_workers_that_crash_or_hang_are_replaced(tmp_path, monkeypatch):
  monkeypatch.setattr(campaign, "LIMIT_SECONDS", -2.0)  # stuck after a second
  # As many executions as reach the first fault, since starting a worker takes a second.
  for name, most, kind in (("crash", 23, "the process ended with -6"), ("hang", 10, "stuck")):
    one = run(tmp_path, name, executions=most, processes=1)[name]
    assert kinds(tmp_path, name) == {kind}
    assert one["findings"] >= 1
    assert one["executions"] == one["accepted"] + one["refused"] + one["findings"] == most


def test_an_interrupted_campaign_goes_on(tmp_path, monkeypatch):
  monkeypatch.setattr(campaign, "CHUNK", 10)
  run(tmp_path / "a", "read", executions=20)
  ran = []
  execute_range = campaign.execute_range

  def record(parser, numbers, **rest):
    ran.extend(numbers)
    execute_range(parser, numbers, **rest)

  monkeypatch.setattr(campaign, "execute_range", record)
  parts = run(tmp_path / "a", "read", executions=50)
  assert ran == list(range(20, 50))
  whole = run(tmp_path / "b", "read", executions=50)
  for key in ("executions", "accepted", "refused", "findings"):
    assert parts["read"][key] == whole["read"][key]
  assert run(tmp_path / "b", "read", executions=50, seed=1)["read"]["executions"] == 50


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)
def test_inputs_depend_on_seed_and_number_alone(parser):
  seeds = parser.seeds()
  inputs = [execute.input_of(parser, seeds, 0, number) for number in range(100, 130)]
  assert inputs == [
    execute.input_of(parser, parser.seeds(), 0, number) for number in range(100, 130)
  ]
  assert sum(one not in seeds for one in inputs) > 15
  assert inputs != [execute.input_of(parser, seeds, 1, number) for number in range(100, 130)]


def test_json_mutations_are_mostly_json():
  rng = random.Random(0)
  data = json.dumps(planted_parsers.TREE).encode()
  texts = [mutate.in_json(rng, data) for _ in range(300)]
  assert len(set(texts)) > 150
  readable = 0
  for text in texts:
    try:
      json.loads(text)
      readable += 1
    except (ValueError, RecursionError):
      continue
  assert readable > 200
