"""Runs a program: parses its flags, turns errors into one line, sets the exit code."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import textwrap
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from launch.cli import flag_table, memory
from launch.cli.flags import FLAGS, TABLE, flags
from launch.cli.output import say


def run(main: Callable[[], None], doc: str, argv: Sequence[str] | None = None) -> None:
  """Parses the flags and calls `main`; errors that users can fix are printed as one line.

  Exit codes: 0 success; 1 bad input, or a full disk or memory; 2 wrong usage; 130 after Ctrl-C;
  128 + the signal's number when a signal stopped training after its state was saved.
  """
  args = list(sys.argv if argv is None else argv)
  if any(arg in ("--help", "-h", "-help") for arg in args[1:]):
    show(_help(doc))
    sys.exit(0)
  for arg in args:
    if not _is_text(arg):
      fail(f"{ascii(arg)} is not UTF-8; rename the file or folder", 2)
  try:
    rest = FLAGS(args)[1:]
  except flags.Error as error:
    fail(f"{error} (--help lists the flags)", 2)
  if rest:
    fail(f"'{rest[0]}' is not a flag; write --name=value (--help lists the flags)", 2)
  try:
    from gatrec_jax.errors import InputError, Interrupted
  except KeyboardInterrupt:
    fail("stopped", 130)
  if lacking := memory.lacking_address_space():
    fail(lacking, 1)
  try:
    _let_blas_threads_sleep()
    _keep_compiled_programs()
    _quiet_libraries()
    main()
  except InputError as error:
    fail(error.named(_flag_of), 1)
  except Interrupted as error:
    say(str(error), err=True)
    sys.exit(128 + error.signum)
  except KeyboardInterrupt:
    fail("stopped; finished work is kept, and the same command continues from there", 130)
  except BrokenPipeError:
    _discard_output()
    sys.exit(0)
  except Exception as error:  # anything but these is a bug and keeps its traceback
    from gatrec_jax.runs.folder import is_disk_full

    if memory.is_out_of_memory(error) and not is_disk_full(error):
      fail(memory.advice(error).named(_flag_of), 1)
    if not isinstance(error, OSError):
      raise
    unnamed = "standard output" if is_disk_full(error) else "files"
    fail(f"{error.filename or unnamed}: {error.strerror or error}", 1)


def show(text: str) -> None:
  """Prints help; a reader that stops early, such as `head`, is no error."""
  try:
    print(text, flush=True)
  except BrokenPipeError:
    _discard_output()


def fail(message: str, code: int) -> None:
  """Prints `error: …` as one line to standard error and exits."""
  say(f"error: {' '.join(message.split())}", err=True)
  sys.exit(code)


def _let_blas_threads_sleep() -> None:
  """Has OpenBLAS's threads sleep soon after a product, 2^10 cycles; it has to be loaded later.

  By default they stay awake for 2^26, on the cores that XLA's threads need next.
  """
  os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "10")


def _is_text(arg: str) -> bool:
  """Whether an argument is text, which reports and error lines are printed as."""
  try:
    arg.encode()
  except UnicodeEncodeError:
    return False
  return True


def _flag_of(name: str) -> str | None:
  """The flag for an argument of the library (for `fold` also --folds), or None if there is none."""
  from gatrec_jax.config.overrides import is_field

  for flag in (name, f"{name}s"):
    if flag in FLAGS and flag in TABLE:
      return f"--{flag}"
  return f"--set {name}" if is_field(name) else None


def _help(doc: str) -> str:
  """The program's docstring and its flags by topic."""
  lines = [
    doc.strip(),
    "",
    "Flags, with defaults in parentheses (--refit sets a true/false flag, --norefit clears it):",
  ]
  for topic, topic_flags in flag_table.TOPICS.items():
    own = [flag for flag in topic_flags if flag.name in FLAGS]
    if own:
      lines += ["", f"{topic}:"]
    for flag in own:
      lines += textwrap.wrap(
        f"--{flag.name}: {flag.help}{_shown_default(flag.help, FLAGS[flag.name].default)}",
        width=98,
        initial_indent="  ",
        subsequent_indent="      ",
      )
  return "\n".join(lines)


def _shown_default(text: str, default: Any) -> str:
  """The default in parentheses, or "" if there is none or the help text ends with it."""
  if default is None or default == []:
    return ""
  if isinstance(default, list):
    default = ",".join(default)
  shown = f" ({str(default).lower() if isinstance(default, bool) else default})"
  return "" if text.endswith(shown) else shown


def _discard_output() -> None:
  """Discards output that is still buffered, since the reader has closed the pipe."""
  os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _quiet_libraries() -> None:
  """Shows warnings as one line each, and silences messages that do not concern users."""
  logging.basicConfig(format="warning: %(message)s", level=logging.WARNING)
  logging.captureWarnings(True)
  warnings.formatwarning = _message_only
  # Orbax logs whole tracebacks through absl.
  logging.getLogger("absl").setLevel(logging.CRITICAL)
  # transformers would warn that PyTorch is missing, which is intended.
  os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")


def _message_only(message: Warning | str, *_: Any) -> str:
  from gatrec_jax.runs.visible import visible

  return visible(str(message))


def _keep_compiled_programs() -> None:
  """Caches compiled programs in the user's cache folder, so that a second start is quick.

  Small programs are cached too: a run has some fifty, which together take seconds.
  $JAX_COMPILATION_CACHE_DIR names another folder. Nothing is cached if the folder is not writable.
  """
  import jax

  from gatrec_jax.runs.folder import cache_dir

  if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
    return
  folder = cache_dir() / "compiled"
  with contextlib.suppress(OSError):
    folder.mkdir(parents=True, exist_ok=True)
    if os.access(folder, os.W_OK):  # otherwise JAX warns about every program that it cannot store
      jax.config.update("jax_compilation_cache_dir", str(folder))
      jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
