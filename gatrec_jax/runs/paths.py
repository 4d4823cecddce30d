"""Paths as users write them, and as libraries that read more into a path can take them."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import tempfile
from collections.abc import Iterator

# Orbax finds its own files by `glob` on the whole path, and TensorStore reads "\" as "/".
_MISREAD = re.compile(r"[\[\]*?\\]|[\ud800-\udfff]")


def user_path(path: str | os.PathLike[str]) -> pathlib.Path:
  """The path with `~` or `~name` at its beginning expanded, where there is such a user.

  >>> user_path("~nobody-of-this-name/x").parts
  ('~nobody-of-this-name', 'x')
  """
  return pathlib.Path(os.path.expanduser(path))


@contextlib.contextmanager
def plain_path(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """An absolute path of `folder` that Orbax can take: its own, or a temporary link to it."""
  own = folder.absolute()
  if not _MISREAD.search(str(own)):
    yield own
    return
  places = (tempfile.gettempdir(), "/tmp", "/var/tmp")
  place = next((place for place in places if not _MISREAD.search(place)), "/tmp")
  with tempfile.TemporaryDirectory(prefix="gatrec-", dir=place) as links:
    link = pathlib.Path(links) / "folder"
    link.symlink_to(own, target_is_directory=True)
    yield link
