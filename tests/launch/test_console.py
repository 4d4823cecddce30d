"""The command `gatrec`, the help of every program, and its table of flags."""

import importlib
import pathlib
import subprocess
import sys
from importlib import metadata

import pytest
from helpers.paths import ROOT
from helpers.programs import environment, launch

from launch.cli import console, entry, flag_table
from launch.cli.flags import FLAGS, TABLE


def gatrec(*arguments, cwd):
  code = f"import sys; sys.argv[1:] = {list(arguments)!r}; from launch.cli import console\n"
  return subprocess.run(
    [sys.executable, "-c", f"{code}console.gatrec()\nassert 'jax' not in sys.modules"],
    capture_output=True,
    text=True,
    cwd=cwd,
    env=environment(cwd),
    timeout=120,
  )


def test_programs_are_listed_with_one_line_each(capsys, monkeypatch):
  monkeypatch.setattr(sys, "argv", ["gatrec"])
  console.gatrec()
  lines = capsys.readouterr().out.splitlines()
  files = {path.stem for path in (ROOT / "launch").glob("*.py")} - {"__init__", *console.RENAMED}
  assert set(console.PROGRAMS) == files
  for name in console.PROGRAMS:
    (line,) = [one for one in lines if one.split()[:1] == [name]]
    assert 30 < len(line) <= 100
  monkeypatch.setattr(sys, "argv", ["gatrec", "--version"])
  monkeypatch.setattr(metadata, "version", lambda name: {"gatrec_jax": "1.2.3"}[name])
  console.gatrec()
  assert capsys.readouterr().out == "gatrec_jax 1.2.3\n"


@pytest.mark.parametrize(
  ("name", "hint"),
  [
    ("trian", "did you mean train?"),
    ("write-profile", "did you mean write_profiles?"),
    ("nonsense", "the programs are quickstart, prepare"),
    ("--workdir=runs", "the programs are quickstart, prepare"),
  ],
)
def test_unknown_programs_suggest_the_nearest(capsys, monkeypatch, name, hint):
  monkeypatch.setattr(sys, "argv", ["gatrec", name])
  with pytest.raises(SystemExit) as stop:
    console.gatrec()
  error = capsys.readouterr().err
  assert stop.value.code == 2 and error.count("\n") == 1
  assert error.startswith("error: ") and "is not a gatrec program" in error and hint in error


def test_a_program_runs_by_its_name_and_by_its_former_one(tmp_path):
  for name, errors in (("evaluate", ""), ("profile", "profile is now called write_profiles\n")):
    done = gatrec(name, "--help", cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == errors and "--workdir: " in done.stdout
  done = launch("profile", "--help", cwd=tmp_path, check=0)
  assert done.stderr == errors and "launch.write_profiles" in done.stdout
  done = gatrec("train", "--seed=one", cwd=tmp_path)
  assert done.returncode == 2 and done.stderr.startswith("error: flag --seed=one")


@pytest.mark.parametrize("program", console.PROGRAMS)
def test_help_names_the_program_and_its_flags_by_topic(program, capsys):
  for name in [name for name in TABLE if name in FLAGS]:
    delattr(FLAGS, name)
  sys.modules.pop(f"launch.{program}", None)
  module = importlib.import_module(f"launch.{program}")
  with pytest.raises(SystemExit) as stop:
    entry.run(module.main, module.__doc__, [program, "--help"])
  text = capsys.readouterr().out
  assert stop.value.code == 0 and f"python -m launch.{program}" in text
  own = [name for name in TABLE if name in FLAGS]
  assert len(own) > 3 and all(f"\n  --{name}: " in text for name in own)
  assert all(len(line) <= 100 for line in text.splitlines())


def test_every_flag_is_in_the_table_once_and_is_defined_by_a_program():
  names = [flag.name for topic in flag_table.TOPICS.values() for flag in topic]
  assert len(names) == len(set(names))
  sources = "".join(path.read_text() for path in (ROOT / "launch").glob("*.py"))
  groups = pathlib.Path(ROOT / "launch/cli/flags.py").read_text()
  grouped = {flag.name for flag in (*flag_table.DATA, *flag_table.SPLIT, *flag_table.TEXT)}
  for name in set(names) - grouped:
    assert f'"{name}"' in sources + groups, name
