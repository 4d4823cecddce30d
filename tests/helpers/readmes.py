"""Running the code blocks of Markdown pages.

A comment on the line before a block changes what is done with it: `<!-- skip: reason -->` leaves a
Python block alone, and `<!-- run -->` executes the commands of a bash block, whose flags are only
checked otherwise. Blocks of other languages are output or files, and are not read.
"""

import contextlib
import importlib
import re
import shlex
import sys
from typing import NamedTuple

from helpers.paths import ROOT
from helpers.programs import _no_flags, call

_FENCE = re.compile(r"^(\s*)```(\w*)\s*$")
_MARKER = re.compile(r"^\s*<!-- (run|skip: .+) -->\s*$")
_ENDS = {"&&", "||", "|", ";", "&"}


class Block(NamedTuple):
  """Attributes: language: "" where none is named. line: of the first line of code, from 1. marker:
  "run", "skip: …" or ""."""

  language: str
  code: str
  line: int
  marker: str


def blocks(text):
  """The fenced blocks of a page."""
  found, lines, number = [], text.splitlines(), 0
  while number < len(lines):
    fence = _FENCE.match(lines[number])
    if not fence:
      number += 1
      continue
    before = lines[number - 1] if number else ""
    marker = _MARKER.match(before)
    indent, first = len(fence[1]), number + 1
    number = next(n for n in range(first, len(lines)) if lines[n].strip() == "```")
    code = "\n".join(line[indent:] for line in lines[first:number]) + "\n"
    found.append(Block(fence[2], code, first + 1, marker[1] if marker else ""))
    number += 1
  return found


def run_python(page, folder, name="README.md"):
  """Executes the Python blocks of a page in one namespace, inside `folder`."""
  namespace = {"__name__": "__main__"}
  with contextlib.chdir(folder):
    for block in blocks(page):
      if block.language == "python" and not block.marker.startswith("skip"):
        # With the lines above it, errors name the line of the page.
        exec(compile("\n" * (block.line - 1) + block.code, name, "exec"), namespace)


def commands(code):
  """The programs that a bash block starts: [(program, [flags])]; other commands are left out."""
  found = []
  for line in code.replace("\\\n", " ").splitlines():
    words = shlex.split(line.removeprefix("$ "), comments=True)
    while words:
      end = next((n for n, word in enumerate(words) if word in _ENDS), len(words))
      one, words = words[:end], words[end + 1 :]
      while one and re.fullmatch(r"[A-Z_]+=.*", one[0]):
        one = one[1:]
      if one[:1] == ["gatrec"] and one[1:] and not one[1].startswith("-"):
        found.append((one[1].replace("-", "_"), one[2:]))
      elif one[:2] in (["python", "-m"], ["python3", "-m"]) and one[2].startswith("launch."):
        found.append((one[2].removeprefix("launch."), one[3:]))
  return found


def check_command(program, flags):
  """Raises ValueError unless the program and all its flags exist and can be read."""
  from launch.cli import entry
  from launch.cli.flags import FLAGS
  from launch.cli.flags import flags as absl_flags

  if not (ROOT / "launch" / f"{program}.py").is_file():
    raise ValueError(f"there is no program {program}")
  if flags == ["--help"]:
    return
  with _no_flags():
    sys.modules.pop(f"launch.{program}", None)  # the import defines the program's flags
    importlib.import_module(f"launch.{program}")
    try:
      rest = FLAGS([program, *flags])[1:]
    except absl_flags.Error as error:
      raise ValueError(f"{program}: {error}") from error
    if rest:
      raise ValueError(f"{program}: {rest[0]} is not a flag")
    for setting in FLAGS["set"].value if "set" in FLAGS else ():
      name = setting.partition("=")[0]
      if entry._flag_of(name) is None:
        raise ValueError(f"{program}: --set {name} is no setting")


def check_bash(page):
  """Checks every command of the page's bash blocks; returns how many there were."""
  count = 0
  for block in blocks(page):
    if block.language in ("bash", "sh", "shell"):
      for program, flags in commands(block.code):
        check_command(program, flags)
        count += 1
  return count


def run_bash(page, folder):
  """Executes the commands of the bash blocks that are marked; returns how many there were."""
  count = 0
  for block in blocks(page):
    if block.marker == "run":
      for program, flags in commands(block.code):
        call(program, *flags, cwd=folder, check=0)
        count += 1
  return count
