"""The command `gatrec`: runs a program of this folder by its name."""

from __future__ import annotations

import ast
import difflib
import importlib
import pathlib
import sys

from launch.cli.entry import fail, run, show
from launch.cli.output import say

PROGRAMS = (
  "quickstart",
  "prepare",
  "embed",
  "write_profiles",
  "train",
  "evaluate",
  "compare",
  "ablate",
  "recommend",
  "explain",
  "rerank",
  "finetune",
  "generate",
  "benchmark",
  "fuzz",
  "damage",
  "soak",
)
"""In the order in which a user meets them."""
RENAMED = {"profile": "write_profiles"}


def gatrec() -> None:
  """Runs `gatrec PROGRAM [flags]`; the entry point of the console command."""
  name, *rest = sys.argv[1:] or ["--help"]
  if name in ("--help", "-h", "help"):
    show(_usage())
  elif name == "--version":
    show(_version())
  else:
    run_program(name.replace("-", "_"), rest)


def run_program(name: str, flags: list[str]) -> None:
  """Runs a program by its name or its former name.

  Args: name: one of `PROGRAMS` or `RENAMED`. flags: the rest of the command line.
  """
  if name in RENAMED:
    say(f"{name} is now called {RENAMED[name]}", err=True)
    name = RENAMED[name]
  if name not in PROGRAMS:
    near = difflib.get_close_matches(name, PROGRAMS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"the programs are {', '.join(PROGRAMS)}"
    fail(f"'{name}' is not a gatrec program; {hint}", 2)
  module = importlib.import_module(f"launch.{name}")
  run(module.main, module.__doc__, [f"gatrec {name}", *flags])


def _usage() -> str:
  width = max(map(len, PROGRAMS))
  lines = [
    "gatrec: recommendations by graph attention and language models, in JAX",
    "",
    "  gatrec PROGRAM [--flag=value …]     the same as python -m launch.PROGRAM",
    "  gatrec PROGRAM --help               what it does, and its flags",
    "  gatrec --version",
    "",
    "Programs:",
  ]
  lines += [f"  {name:<{width}}  {summary(name)}" for name in PROGRAMS]
  return "\n".join(lines)


def summary(name: str) -> str:
  """The first line of a program's docstring, read without importing it."""
  source = (pathlib.Path(__file__).parents[1] / f"{name}.py").read_text(encoding="utf-8")
  return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0].rstrip(".:")


def _version() -> str:
  from importlib import metadata

  return f"gatrec_jax {metadata.version('gatrec_jax')}"
