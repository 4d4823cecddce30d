"""A table's file: its format, compression, encoding, separator and names, before it is read."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Literal

from gatrec_jax.data.tables.files import lines_of_array, open_file, readable, recode, scan_bytes
from gatrec_jax.data.tables.shards import shard_files, shard_names
from gatrec_jax.errors import InputError

TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".dat", ".inter", ".item", ".user")
JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
COMPRESSED_SUFFIXES = (".gz", ".bz2", ".zst")
SUFFIXES = (*TEXT_SUFFIXES, ".parquet", *JSON_SUFFIXES)

Format = Literal["table", "lists", "jsonl", "parquet"]
_SEPARATORS = ("\t", ",", ";", "|", "::", " ")
_NAMED_SEPARATORS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "space": " "}
_SAMPLED_LINES = 50
# RecBole's atomic files name a type behind each column.
_TYPED = re.compile(r"(.+):(token|float|token_seq|float_seq)")
# A native parser of JSON recurses, and ends the process where lines nest deeper than its stack.
_MOST_BRACKETS = 1000


@dataclasses.dataclass(frozen=True)
class TableOptions:
  """What the user says about a table of text; everything else is found out.

  Attributes:
    separator: between fields, also as `tab`, `comma`, `semicolon` or `space`; "" = found out.
    encoding: of files that are not UTF-8, as Python names it.
    names: of the columns, where the file does not begin with them.
  """

  separator: str = ""
  encoding: str = ""
  names: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Source:
  """A table's file and how to read it.

  Attributes:
    path: of the file, or of the folder of a data set of Parquet files.
    format: `table` (fields between separators), `lists` (a user and their items on each line),
      `jsonl` (an object on each line) or `parquet`.
    names: of the columns; of `jsonl`, () before it is read.
    separator: of a `table`.
    quoted: whether quotation marks of a `table` enclose fields; elsewhere they are plain text.
    has_header: whether the first line holds names.
    lists: columns whose texts are lists of words separated by blanks (RecBole's `token_seq`).
    lines: number of lines of text.
    is_plain: whether a fast parser reads the text as we do: no quotation marks, no line ends other
      than LF or CRLF, no NUL, no line of JSON that is anything but a small object.
    has_quotes: whether there are quotation marks.
    files: of `parquet`, the file itself or those of the folder, in their order.
    recoded: the whole file as lines in UTF-8, where its encoding or its form is another one.
  """

  path: Path
  format: Format
  names: tuple[str, ...] = ()
  separator: str = ","
  quoted: bool = True
  has_header: bool = True
  lists: frozenset[str] = frozenset()
  lines: int = 0
  is_plain: bool = True
  has_quotes: bool = False
  files: tuple[Path, ...] = ()
  recoded: bytes | None = None

  def open(self) -> IO[bytes]:
    """The file's bytes, decompressed and in UTF-8."""
    return open_file(self.path) if self.recoded is None else io.BytesIO(self.recoded)

  def text(self) -> IO[str]:
    """The file's text; line ends stay as they are."""
    return io.TextIOWrapper(self.open(), encoding="utf-8-sig", newline="")


def has_known_suffix(path: Path) -> bool:
  """Whether the name ends in one of `SUFFIXES`, with or without that of a compression."""
  return plain_suffix(path) in SUFFIXES


def open_source(path: Path, options: TableOptions = TableOptions()) -> Source:  # noqa: B008
  """Finds out how the file, or the folder of Parquet files, is to be read.

  Raises: InputError where it cannot be.
  """
  if os.path.isdir(path):  # unlike pathlib's, also for names that no system takes
    with readable(path):
      return _parquet(path, shard_files(path))
  suffix = plain_suffix(path)
  if not path.suffix and not os.path.exists(path):
    raise InputError(f"{path}: there is no such file or folder")
  if suffix not in SUFFIXES:
    raise InputError(
      f"{path}: format unknown; the name must end in {', '.join(SUFFIXES)}, and may then end in "
      f"{', '.join(COMPRESSED_SUFFIXES)}"
    )
  if not os.path.isfile(path):
    raise InputError(f"{path}: there is no such file")
  with readable(path):
    if suffix == ".parquet":
      return _parquet(path, (path,))
    is_json = suffix in JSON_SUFFIXES
    scan = scan_bytes(open_file(path))
    recoded = recode(path, scan, options.encoding)
    if is_json:
      recoded = lines_of_array(path, recoded) or recoded
    if recoded is not None:
      scan = scan_bytes(io.BytesIO(recoded))
    plain = not (scan.has_odd_ends or scan.has_nul)
    source = Source(
      path,
      "jsonl" if is_json else "table",
      lines=scan.lines,
      is_plain=plain,
      has_quotes=scan.has_quotes,
      recoded=recoded,
    )
    if is_json:
      return dataclasses.replace(source, is_plain=plain and _is_small_objects(source))
    return _with_dialect(source, suffix, options)


def split_line(line: str, separator: str) -> list[str]:
  """The fields of a line of plain text, for separators that a CSV reader does not know."""
  return line.split() if separator == " " else line.split(separator)


def plain_suffix(path: Path) -> str:
  """The suffix of a name in lower case, without that of a compression; "" if there is none."""
  suffixes = [suffix.lower() for suffix in path.suffixes]
  if suffixes and suffixes[-1] in COMPRESSED_SUFFIXES:
    suffixes.pop()
  return suffixes[-1] if suffixes else ""


def _parquet(path: Path, files: tuple[Path, ...]) -> Source:
  return Source(path, "parquet", _distinct(path, shard_names(files)), files=files)


def _distinct(path: Path, names: Sequence[str]) -> tuple[str, ...]:
  if not any(names):
    raise InputError(f"{path}: is empty; names of columns and rows are needed")
  repeated = sorted({name for name in names if names.count(name) > 1})
  if repeated:
    raise InputError(f"{path}: column {repeated[0]!r} is there twice")
  return tuple(names)


def _is_small_objects(source: Source) -> bool:
  """Whether every line of JSON is an object, or blank, and nests no deeper than a few brackets."""
  with source.open() as stream:
    for line in stream:
      text = line.lstrip()
      if text and not text.startswith(b"{") and not text.startswith(b"\xef\xbb\xbf{"):
        return False
      if len(text) > _MOST_BRACKETS and text.count(b"[") + text.count(b"{") > _MOST_BRACKETS:
        return False
  return True


def _with_dialect(source: Source, suffix: str, options: TableOptions) -> Source:
  """`source` with separator, quotation and names of its columns."""
  lines = _first_lines(source)
  given = _NAMED_SEPARATORS.get(options.separator, options.separator)
  if not options.names and not given and suffix in (".txt", ".dat") and are_lists(lines):
    return dataclasses.replace(source, format="lists", names=("user_id", "item_id"))
  separator = given or _separator(lines, suffix)
  # A quotation mark is plain text where tabs separate, unless the names are in quotes themselves.
  quoted = len(separator) == 1 and separator != " "
  if separator == "\t":
    fields = lines[0].split("\t") if lines else []
    quoted = bool(fields) and all(re.fullmatch(r'".*"', field) for field in fields)
  if options.names:
    source = dataclasses.replace(source, has_header=False)
    names, lists = list(options.names), frozenset()
  else:
    header = _fields(lines[0], separator, quoted) if lines else []
    names, lists = _without_types([name.strip() for name in header])
  return dataclasses.replace(
    source,
    names=_distinct(source.path, names),
    separator=separator,
    quoted=quoted,
    lists=lists,
    is_plain=source.is_plain and len(separator) == 1 and separator != " ",
  )


def _first_lines(source: Source) -> list[str]:
  """The first lines that are not blank, without their ends."""
  found: list[str] = []
  with source.text() as stream:
    for line in stream:
      if text := line.strip("\r\n"):
        # Old files end lines with CR alone.
        found += [part for part in text.split("\r") if part]
      if len(found) >= _SAMPLED_LINES:
        break
  return found[:_SAMPLED_LINES]


def are_lists(lines: Sequence[str]) -> bool:
  """Whether lines are `user item item …`, as LightGCN's files: whole numbers, of varying count."""
  split = [line.split() for line in lines]
  return len({len(tokens) for tokens in split}) > 1 and all(
    token.isdecimal() for tokens in split for token in tokens
  )


def _fields(line: str, separator: str, quoted: bool) -> list[str]:
  if not quoted:
    return split_line(line, separator)
  return next(csv.reader([line], delimiter=separator), [])


def _separator(lines: Sequence[str], suffix: str) -> str:
  """The separator that gives the most lines the same number of fields, and most fields."""
  best, best_score = "\t" if suffix == ".tsv" else ",", (0.0, 0)
  for separator in _SEPARATORS:
    counts = [len(_fields(line, separator, len(separator) == 1)) for line in lines]
    if not counts or counts[0] < 2:
      continue
    score = (sum(count == counts[0] for count in counts) / len(counts), counts[0])
    # Blanks separate only where nothing else does.
    if separator == " " and best_score[0] > 0:
      continue
    if score > best_score:
      best, best_score = separator, score
  return best


def _without_types(names: Sequence[str]) -> tuple[list[str], frozenset[str]]:
  """Names without RecBole's types, and those of lists; as they are unless all have a type."""
  typed = [_TYPED.fullmatch(name) for name in names]
  if not names or not all(typed):
    return list(names), frozenset()
  plain = [match[1] for match in typed]
  return plain, frozenset(
    name for name, match in zip(plain, typed, strict=True) if match[2].endswith("_seq")
  )
