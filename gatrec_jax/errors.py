"""The exceptions that users are meant to read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

# A hint in a message: an argument, or an argument and its value, in backticks.
_HINT = re.compile(r"`([a-z_]+)((?:=[^`]*)?)`")


class InputError(Exception):
  """Bad input: one line that names the file, row or argument and says what would be right.

  Other arguments that the message mentions stand in backticks (`` `valid_share=0.1` ``). The launch
  programs print the line with the names of their flags (`named`) and exit with code 1, without a
  traceback.

  Attributes:
    message: what is wrong and what would be right, without the field.
    field: the argument or setting at fault, None where it is a file or a row.
    value: what was given for it; None where it is not shown.

  >>> str(InputError("must be at least 1", field="top_n", value=0))
  'top_n=0: must be at least 1'
  """

  def __init__(self, message: str, *, field: str | None = None, value: Any = None) -> None:
    super().__init__(message)
    self.message, self.field, self.value = message, field, value

  def __str__(self) -> str:
    return self.named(lambda name: None)

  def named(self, flag_of: Callable[[str], str | None]) -> str:
    """The line with other names for arguments.

    Args: flag_of: argument -> what it is called there ("--top_n"); None leaves it as it is.
    """

    def renamed(hint: re.Match[str]) -> str:
      flag = flag_of(hint[1])
      return f"{flag}{hint[2]}" if flag else hint[0]

    message = _HINT.sub(renamed, self.message)
    if self.field is None:
      return message
    shown = "" if self.value is None else f"={self.value}"
    return f"{flag_of(self.field) or self.field}{shown}: {message}"


class DamagedFile(InputError):
  """A stored file does not hold the bytes that were written."""


def require_list(values: Iterable[Any], *, field: str) -> list[Any]:
  """The values as a list; a lone string is refused instead of read character by character.

  Args: values: any iterable except a string. field: the argument that held it.
  Raises: InputError for a string, bytes, or something that is not iterable.

  >>> require_list(("12", 7), field="users")
  ['12', 7]
  >>> require_list("12", field="users")
  Traceback (most recent call last):
  ...
  gatrec_jax.errors.InputError: users=12: must be a list, such as ['12']
  """
  if isinstance(values, str | bytes) or not isinstance(values, Iterable):
    raise InputError(f"must be a list, such as [{values!r}]", field=field, value=values)
  return list(values)


class Interrupted(Exception):
  """A signal stopped training after its state was saved; the same command goes on.

  Attributes:
    signum: which signal; the programs exit with 128 + signum.
  """

  def __init__(self, message: str, signum: int) -> None:
    super().__init__(message)
    self.signum = signum
