"""Finds published archives in a folder or zip on this machine, or downloads and verifies them."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.util
import logging
import os
import queue
import threading
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from gatrec_jax import runs
from gatrec_jax.data.tables.files import require_ratio
from gatrec_jax.errors import InputError
from gatrec_jax.runs.paths import user_path

logger = logging.getLogger(__name__)

_PROBE_SECONDS = 8.0


@dataclasses.dataclass(frozen=True)
class Archive:
  """An unpacked folder or a zip; members are named relative to the archive's own folder."""

  path: Path

  @contextmanager
  def open(self, member: str) -> Iterator[IO[bytes]]:
    """Opens `member` for reading bytes.

    Raises:
      InputError: no such member, or a damaged or unreadable archive, also while it is read.
    """
    try:
      if self.path.is_dir():
        if not (self.path / member).is_file():
          raise InputError(f"{self.path}: has no file {member}; unpack the archive again")
        with open(self.path / member, "rb") as stream:
          yield stream
      else:
        with zipfile.ZipFile(self.path) as archive:
          entry = archive.getinfo(self._find(archive, member))
          require_ratio(self.where(member), packed=entry.compress_size, unpacked=entry.file_size)
          with archive.open(entry) as stream:
            yield stream
    # RuntimeError is what zipfile raises for a member that needs a password.
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
      raise InputError(f"{self.path}: damaged zip ({error}); fetch it again") from error
    except OSError as error:
      raise InputError(f"{self.where(member)}: cannot be read ({error})") from error

  def read(self, member: str) -> bytes:
    """All bytes of `member`; raises as `open` does."""
    with self.open(member) as stream:
      return stream.read()

  def where(self, member: str) -> str:
    """The path of `member` for messages."""
    return f"{self.path}/{member}"

  def _find(self, archive: zipfile.ZipFile, member: str) -> str:
    found = []
    for name in archive.namelist():
      path = PurePosixPath(name.replace("\\", "/"))
      # Nothing is unpacked here, but such a zip is malicious.
      if path.is_absolute() or ".." in path.parts or name[1:2] == ":":
        raise InputError(f"{self.path}: the entry {name!r} points outside; this zip is refused")
      if path.name == member and "__MACOSX" not in path.parts:
        found.append(name)
    if not found:
      raise InputError(f"{self.path}: has no member {member}; is it the right zip?")
    return min(found, key=len)


def given_bases(data_dir: str) -> list[Path]:
  """The folders given by the user: `data_dir`, then $GATREC_DATA.

  Raises:
    InputError: `data_dir` is given and is not a folder.
  """
  if data_dir and not user_path(data_dir).is_dir():
    raise InputError("is not a folder", field="data_dir", value=data_dir)
  given = [data_dir, os.environ.get("GATREC_DATA", "")]
  return [user_path(base).absolute() for base in given if base]


def cache_folder(remedy: str) -> Path:
  """The cache folder for downloads (`runs.cache_dir`).

  Raises:
    InputError: pooch is not installed; the message ends with `remedy`.
  """
  if importlib.util.find_spec("pooch") is None:
    raise InputError(f"{remedy} (a download needs `pip install pooch`)")
  return runs.cache_dir()


def find_archive(
  name: str,
  *,
  folder: str,
  key_members: Sequence[str],
  foreign_folders: Sequence[str],
  bases: Sequence[Path],
  md5: str,
) -> Archive | None:
  """The archive as an unpacked folder or a zip in the first of `bases` that has it, or None.

  Args:
    name: of the zip without its suffix, e.g. "ml-10m".
    folder: that the zip unpacks to, e.g. "ml-10M100K".
    key_members: files by which a base is recognized as the unpacked folder itself.
    foreign_folders: names of other archives' folders, which may hold files of the same names.
    bases: folders to look in; those that do not exist are skipped.
    md5: of the published zip, "" if it changes; a zip with another md5 is used with a warning.
  """
  for base in bases:
    for candidate in (base / folder, base / name):
      if candidate.is_dir():
        return Archive(candidate)
    is_itself = base.name in (name, folder) or base.name not in foreign_folders
    if is_itself and all((base / member).is_file() for member in key_members):
      return Archive(base)
    zipped = base / f"{name}.zip"
    if zipped.is_file():
      _check_md5(zipped, md5)
      return Archive(zipped)
  return None


@functools.cache
def _check_md5(path: Path, md5: str) -> None:
  """Warns, once per file and process, about a zip that differs from the published one."""
  try:
    with open(path, "rb") as stream:
      found = hashlib.file_digest(stream, "md5").hexdigest()
  except OSError as error:
    raise InputError(f"{path}: cannot be read ({error})") from error
  if found != md5:
    published = f"the published one has {md5}" if md5 else "this archive changes over time"
    logger.warning("%s: used with an unknown checksum (md5 %s; %s)", path, found, published)


def download_archive(name: str, *, url: str, md5: str, cache: Path, remedy: str) -> Archive:
  """Downloads `url` into `cache` as NAME.zip with a progress bar, verified by its md5.

  Args:
    md5: published checksum; if "", the one published beside the zip as URL.md5.
    remedy: what the user can do without a network, for the error message.

  Raises:
    InputError: the server cannot be reached (noticed within about ten seconds), the checksum
      differs, or the cache cannot be written.
  """
  import pooch

  help_text = f"{remedy}, or connect to the network"
  answer = _probe(f"{url}.md5")
  if isinstance(answer, Exception):
    host = url.split("/")[2]
    raise InputError(
      f"{name}: not on this machine, and {host} cannot be reached"
      f" ({type(answer).__name__}); {help_text}"
    ) from answer
  # The file says `MD5 (ml-25m.zip) = 6b51…`.
  published = md5 or (answer.split() or [""])[-1].lower()
  if len(published) != 32:
    raise InputError(f"{name}: {url}.md5 holds no checksum; {help_text}")
  try:
    path = pooch.retrieve(
      url,
      known_hash=f"md5:{published}",
      fname=f"{name}.zip",
      path=cache,
      downloader=pooch.HTTPDownloader(progressbar=_ProgressBar(name), timeout=30),
    )
  except ValueError as error:
    raise InputError(f"{url}: the download's md5 is not the published {published}") from error
  # requests' exceptions are OSErrors, like a full disk or an unwritable cache.
  except OSError as error:
    raise InputError(f"{name}: download into {cache} failed ({error}); {help_text}") from error
  return Archive(Path(path))


def _probe(url: str) -> str | Exception:
  """The text at `url`, or the exception, after at most `_PROBE_SECONDS`.

  Runs in a thread, because the time-outs of requests do not cover a name server that is silent.
  """
  answers: queue.Queue[str | Exception] = queue.Queue()

  def fetch() -> None:
    import requests

    try:
      response = requests.get(url, timeout=_PROBE_SECONDS)
      answers.put(response.text if response.ok else "")
    except requests.RequestException as error:
      answers.put(error)

  threading.Thread(target=fetch, daemon=True).start()
  try:
    return answers.get(timeout=_PROBE_SECONDS)
  except queue.Empty:
    return TimeoutError(f"no answer within {_PROBE_SECONDS} s")


class _ProgressBar:
  """The interface that pooch expects of a progress bar, implemented with rich on stderr."""

  def __init__(self, name: str) -> None:
    from rich import console, progress

    self.total = 0
    self._bar = progress.Progress(
      *progress.Progress.get_default_columns(),
      progress.DownloadColumn(),
      console=console.Console(file=None, stderr=True),
      transient=True,
    )
    self._task = self._bar.add_task(name, total=None)

  def update(self, count: int) -> None:
    self._bar.start()
    self._bar.update(self._task, advance=count, total=self.total or None)

  def reset(self) -> None:
    self._bar.reset(self._task)

  def close(self) -> None:
    self._bar.stop()
