"""The bytes of a table's file: decompressed, checked in one pass, and brought to UTF-8 lines."""

from __future__ import annotations

import bz2
import codecs
import csv
import dataclasses
import functools
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from gatrec_jax.errors import InputError
from gatrec_jax.runs.memory import free_bytes, gibibytes

MOST_RATIO = 200  # tables of text become some 3 to 50 times smaller
ALWAYS_BYTES = 64 << 20  # unpacked, are read whatever the ratio is
_CHUNK = 1 << 24
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@contextmanager
def readable(path: Path) -> Iterator[None]:
  """Converts errors of the disk, of decompression and of pyarrow to an InputError with `path`."""
  import pyarrow as pa

  try:
    yield
  # UnicodeDecodeError: a column of Parquet whose name is not UTF-8.
  except (OSError, EOFError, zlib.error, pa.ArrowException, csv.Error, UnicodeDecodeError) as error:
    reason = " ".join(str(error).split())[:200]
    raise InputError(f"{path}: cannot be read ({reason})") from error


def open_file(path: Path) -> IO[bytes]:
  """The file's bytes, decompressed as its suffix says.

  While it is read, InputError is raised where a compressed file grows beyond `MOST_RATIO` times its
  size, or beyond the memory that is free.
  """
  suffix = path.suffix.lower()
  if suffix == ".gz":
    stream = gzip.open(path)
  elif suffix == ".bz2":
    stream = bz2.open(path)
  elif suffix == ".zst":
    import pyarrow as pa

    stream = pa.input_stream(str(path), compression="zstd")
  else:
    return open(path, "rb")
  return io.BufferedReader(_Bounded(stream, path))


def require_ratio(path: Path | str, *, packed: int, unpacked: int) -> None:
  """Raises InputError where data are implausibly larger than the compressed data that hold them.

  Args: path: of the file, for the message. packed, unpacked: bytes.
  """
  if unpacked > max(ALWAYS_BYTES, MOST_RATIO * packed):
    raise InputError(
      f"{path}: unpacks to more than {unpacked >> 20} MiB, over {MOST_RATIO} times its own size, "
      "as archives do that are made to fill memories; if its contents are right, unpack it and "
      "name the unpacked file"
    )


def require_memory_for(path: Path, count: int, *, what: str) -> None:
  """Raises InputError where `count` bytes are not free. Args: what: needs them, in the plural."""
  free = free_bytes()
  if free is not None and count > free:
    raise InputError(
      f"{path}: {what} need about {gibibytes(count)} of memory, {gibibytes(free)} are free; use a "
      "machine with more memory, or a part of the rows"
    )


class _Bounded(io.RawIOBase):
  """The unpacked bytes of a compressed file, as long as there are not too many of them."""

  def __init__(self, stream: IO[bytes], path: Path) -> None:
    self._stream, self._path = stream, path
    self._packed, self._unpacked = path.stat().st_size, 0

  def readable(self) -> bool:
    return True

  def seekable(self) -> bool:
    return False

  def readinto(self, buffer: memoryview) -> int:
    # Not `read`, which in pyarrow never frees what it allocates where it then fails.
    count = self._stream.readinto(buffer)
    self._unpacked += count
    require_ratio(self._path, packed=self._packed, unpacked=self._unpacked)
    return count

  def close(self) -> None:
    self._stream.close()
    super().close()


def parquet_input(path: Path) -> Path | IO[bytes]:
  """What pyarrow reads Parquet from: the file itself unless it is compressed as a whole."""
  if path.suffix.lower() == ".parquet":
    return path
  return io.BytesIO(read_whole(path))


def read_whole(path: Path) -> bytes:
  """All bytes of the file, unpacked. Raises InputError where they do not fit into memory."""
  parts, size = [], 0
  with open_file(path) as stream:
    for chunk in iter(functools.partial(stream.read, _CHUNK), b""):
      size += len(chunk)
      require_memory_for(path, 2 * size, what="its unpacked contents")
      parts.append(chunk)
  return b"".join(parts)


@dataclasses.dataclass
class Scan:
  """What one pass over the bytes of a text says.

  Attributes:
    lines: their number.
    bad_line, bad_byte: the first line that is not UTF-8 and its first wrong byte; 0 without one.
    has_quotes, has_nul: whether there are quotation marks and NUL bytes.
    has_odd_ends: whether lines end at CR alone.
    is_utf16: whether the text begins with UTF-16's byte-order mark.
    is_mostly_nul: whether it has so many NUL bytes as UTF-16 has.
  """

  lines: int = 0
  bad_line: int = 0
  bad_byte: int = 0
  has_quotes: bool = False
  has_odd_ends: bool = False
  has_nul: bool = False
  is_utf16: bool = False
  is_mostly_nul: bool = False


def scan_bytes(stream: IO[bytes]) -> Scan:
  """One pass over the bytes of a text."""
  found = Scan()
  decoder = codecs.getincrementaldecoder("utf-8")()
  last, is_open = b"", False
  with stream:
    for chunk in iter(functools.partial(stream.read, _CHUNK), b""):
      if not last:
        found.is_utf16 = chunk.startswith(_UTF16_MARKS)
        found.is_mostly_nul = chunk.count(b"\0") > len(chunk) / 5
      found.has_quotes = found.has_quotes or b'"' in chunk
      found.has_nul = found.has_nul or b"\0" in chunk
      if b"\r" in chunk or last == b"\r":
        # A CR at the end of a chunk belongs to the next one.
        joined = (last if last == b"\r" else b"") + chunk
        body = joined[:-1] if joined.endswith(b"\r") else joined
        found.has_odd_ends |= body.count(b"\r") != body.count(b"\r\n")
      if not found.bad_line and (is_open or not chunk.isascii()):
        try:
          decoder.decode(chunk)
          is_open = bool(decoder.getstate()[0])
        except UnicodeDecodeError as error:
          found.bad_line = found.lines + error.object[: error.start].count(b"\n") + 1
          found.bad_byte = error.object[error.start]
      found.lines += chunk.count(b"\n")
      last = chunk[-1:]
  if last == b"\r":
    found.has_odd_ends = True
  if is_open and not found.bad_line:
    found.bad_line, found.bad_byte = found.lines + 1, decoder.getstate()[0][0]
  found.lines += last not in (b"", b"\n")
  return found


def recode(path: Path, scan: Scan, encoding: str) -> bytes | None:
  """The file in UTF-8, None where it is that already.

  Raises: InputError: it is neither UTF-8 nor in the encoding that was named.
  """
  if scan.is_utf16:
    encoding = encoding or "utf-16"
  elif scan.is_mostly_nul and not encoding:
    raise InputError(
      f"{path}: looks like UTF-16; give `encoding=utf-16-le` or `encoding=utf-16-be`"
    )
  elif not scan.bad_line and not (scan.has_nul and encoding):
    return None
  if not encoding:
    raise InputError(
      f"{path}: line {scan.bad_line} is not UTF-8 (byte 0x{scan.bad_byte:02x}); "
      "name the encoding, such as `encoding=latin-1`, `encoding=cp1252` or `encoding=utf-16`"
    )
  data = read_whole(path)
  try:
    return data.decode(encoding).encode()
  except UnicodeDecodeError as error:
    line = data[: error.start].count(b"\n") + 1
    raise InputError(
      f"{path}: line {line} is not {encoding} either ({error.reason}); name another one",
      field="encoding",
      value=encoding,
    ) from None
  except (LookupError, ValueError):
    raise InputError(
      "is not an encoding that Python knows", field="encoding", value=encoding
    ) from None


def lines_of_array(path: Path, recoded: bytes | None) -> bytes | None:
  """A file that is one JSON array, with its elements on lines; None for other files."""
  with open_file(path) if recoded is None else io.BytesIO(recoded) as stream:
    start = stream.read(1 << 12).removeprefix(codecs.BOM_UTF8).lstrip()
    # A line `[1]` between others is a row that cannot be read.
    if not re.match(rb"\[\s*\{", start):
      return None
  data = read_whole(path) if recoded is None else recoded
  try:
    rows = json.loads(data.decode("utf-8-sig"))
  except (ValueError, RecursionError) as error:
    raise InputError(f"{path}: begins as a JSON array, but is none ({error})") from None
  return "\n".join(json.dumps(row) for row in rows).encode()
