"""What programs print: lines in which data can neither steer the terminal nor begin a line."""

from __future__ import annotations

import sys


def say(line: str = "", *, err: bool = False) -> None:
  """Prints one line; line breaks in it are shown as escapes. Args: err: to standard error."""
  print(_visible(line, lines=False), file=sys.stderr if err else sys.stdout, flush=True)


def say_text(text: str, *, end: str = "\n") -> None:
  """Prints a text of several lines, such as a table in Markdown or what a model wrote."""
  print(_visible(text, lines=True), end=end, flush=True)


def _visible(text: str, *, lines: bool) -> str:
  if text.isascii() and text.isprintable():
    return text  # without importing the library, and JAX with it
  from gatrec_jax.runs.visible import visible

  return visible(text, lines=lines)
