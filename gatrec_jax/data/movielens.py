"""Loads every published MovieLens version from a folder or zip, or downloads it from GroupLens."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import logging
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from gatrec_jax.data import archives
from gatrec_jax.data.archives import Archive
from gatrec_jax.data.interactions import Dataset, build_interactions
from gatrec_jax.errors import InputError

logger = logging.getLogger(__name__)

FOLDS = ("u1", "u2", "u3", "u4", "u5", "ua", "ub")
_BASE_URL = "https://files.grouplens.org/datasets/movielens"
_NO_GENRES = "(no genres listed)"
# Read in large blocks: a zip's stream is in Python, and each block takes the interpreter lock.
_BLOCK_BYTES = 1 << 24

Ratings = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Version:
  """How one version is published.

  Attributes:
    layout: "100k" (u.data), "dat" (ratings.dat, separated by ::) or "csv" (ratings.csv).
    ratings: rows of the published file; 0 if it changes.
    md5: of the zip; "" if it changes (GroupLens then publishes it beside the zip).
    folder: that the zip unpacks to; "" for the version's name.
    encoding: of the text files.
    has_users: whether users.dat lists the users.
  """

  layout: str
  ratings: int
  md5: str
  folder: str = ""
  encoding: str = "utf-8"
  has_users: bool = False


VERSIONS: Mapping[str, Version] = {
  "ml-100k": Version("100k", 100_000, "0e33842e24a9c977be4e0107933c0723", encoding="latin-1"),
  "ml-1m": Version(
    "dat", 1_000_209, "c4d9eecfca2ab87c1945afe126590906", encoding="latin-1", has_users=True
  ),
  "ml-10m": Version("dat", 10_000_054, "ce571fd55effeba0271552578f2648bd", folder="ml-10M100K"),
  "ml-20m": Version("csv", 20_000_263, "cd245b17a1ae2cc31bb14903e1204af3"),
  "ml-25m": Version("csv", 25_000_095, "6b51fb2759a8657d3bfcbfc42b592ada"),
  "ml-32m": Version("csv", 32_000_204, "d472be332d4daa821edc399621853b57"),
  "ml-latest-small": Version("csv", 0, ""),
  "ml-latest": Version("csv", 0, ""),
}
_KEY_MEMBERS = {
  "100k": ("u.data", "u.item"),
  "dat": ("ratings.dat", "movies.dat"),
  "csv": ("ratings.csv", "movies.csv"),
}


def load_movielens(name: str, *, data_dir: str = "", fold: str = "") -> Dataset:
  """Loads a MovieLens version: ratings, titles (with the year, as shipped) and genres.

  The vocabularies come from the lists of users and movies if there are any, so that they do not
  depend on the ratings. tags.csv is not read: tags are users' own words with times, and would leak
  interactions that a split holds out.

  Args:
    name: one of `VERSIONS`.
    data_dir: folder that holds the zip or the unpacked folder, or is that folder; searched first,
      before $GATREC_DATA and the user's cache, into which a missing zip is downloaded.
    fold: one of `FOLDS`, for ml-100k: the rows are those of its .base file, then of its .test
      file, and `test_rows` marks the latter.

  Raises:
    InputError: unknown name or fold, no archive and no network, or a damaged archive.
  """
  version = VERSIONS.get(name)
  if version is None:
    raise InputError(f"unknown; one of {', '.join(VERSIONS)}", field="dataset", value=name)
  if fold and version.layout != "100k":
    raise InputError(f"{name} has no shipped folds; leave the flag out", field="fold", value=fold)
  if fold and fold not in FOLDS:
    raise InputError(f"unknown; ml-100k has {', '.join(FOLDS)}", field="fold", value=fold)
  archive = _locate(name, version, data_dir)
  if version.layout == "100k":
    return _load_100k(name, version, archive, fold)
  return _load_dat_or_csv(name, version, archive)


def _locate(name: str, version: Version, data_dir: str) -> Archive:
  folder = version.folder or name
  look = functools.partial(
    archives.find_archive,
    name,
    folder=folder,
    key_members=_KEY_MEMBERS[version.layout],
    foreign_folders=[other.folder or key for key, other in VERSIONS.items() if key != name],
    md5=version.md5,
  )
  bases = archives.given_bases(data_dir)
  served_by = f"{name}.zip or the unpacked folder {folder}"
  # The given folders come first, so that they work without pooch.
  found = look(bases=bases)
  if found is None:
    cache = archives.cache_folder(f"{name}: put {served_by} into `data_dir`")
    found = look(bases=[cache]) or archives.download_archive(
      name,
      url=f"{_BASE_URL}/{name}.zip",
      md5=version.md5,
      cache=cache,
      remedy=f"put {served_by} into {' or '.join(map(str, [*bases, cache]))}",
    )
  return found


def _load_100k(name: str, version: Version, archive: Archive, fold: str) -> Dataset:
  user_ids = _first_fields(archive, "u.user", version.encoding, "|")
  fields = _read_u_item(archive, version.encoding)
  members = (f"{fold}.base", f"{fold}.test") if fold else ("u.data",)
  parts = [_read_ratings(archive, member, delimiter="\t") for member in members]
  ratings = tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))
  _warn_if_short(archive, members, len(ratings[0]), version)
  interactions, notes = build_interactions(
    *ratings, user_ids=user_ids, item_ids=fields, source=archive.where(members[0])
  )
  test_rows = None
  if fold:
    if notes:
      raise InputError(
        f"{archive.path}: {members[0]} and {members[1]} hold some (user, item) pairs twice;"
        " unpack the archive again"
      )
    test_rows = np.arange(len(interactions)) >= len(parts[0][0])
  item_fields = [fields.get(item_id, {}) for item_id in interactions.item_ids]
  return Dataset(name, interactions, item_fields, test_rows, notes=notes)


def _load_dat_or_csv(name: str, version: Version, archive: Archive) -> Dataset:
  user_ids = None
  if version.layout == "dat":
    member = "ratings.dat"
    if version.has_users:
      user_ids = _first_fields(archive, "users.dat", version.encoding, "::")
    fields = _read_movies_dat(archive, version.encoding)
    # pyarrow takes one character: with ":", each "::" contains an empty field.
    ratings = _read_ratings(archive, member, delimiter=":", step=2)
  else:
    member = "ratings.csv"
    fields = _read_movies_csv(archive, version.encoding)
    header = "userId,movieId,rating,timestamp"
    ratings = _read_ratings(archive, member, delimiter=",", header=header)
  _warn_if_short(archive, (member,), len(ratings[0]), version)
  interactions, notes = build_interactions(
    *ratings, user_ids=user_ids, item_ids=fields, source=archive.where(member)
  )
  item_fields = [fields.get(item_id, {}) for item_id in interactions.item_ids]
  return Dataset(name, interactions, item_fields, notes=notes)


def _read_ratings(
  archive: Archive, member: str, *, delimiter: str, step: int = 1, header: str = ""
) -> Ratings:
  """Reads (user, item, rating, timestamp) from every `step`-th field of each line.

  Returns: [R] int32, [R] int32, [R] float32, [R] int64.
  """
  import pyarrow as pa
  from pyarrow import csv as arrow_csv

  names = ["user", "item", "rating", "timestamp"]
  types = dict(zip(names, (pa.int32(), pa.int32(), pa.float32(), pa.int64()), strict=True))
  all_names = [names[i // step] if i % step == 0 else f"gap{i}" for i in range(3 * step + 1)]
  with archive.open(member) as stream:
    if header:
      found = stream.readline().decode("utf-8", "replace").strip().removeprefix("\ufeff")
      if found != header:
        raise InputError(f"{archive.where(member)}: starts with {found[:80]!r}, not {header!r}")
    try:
      table = arrow_csv.read_csv(
        stream,
        read_options=arrow_csv.ReadOptions(block_size=_BLOCK_BYTES, column_names=all_names),
        parse_options=arrow_csv.ParseOptions(delimiter=delimiter, quote_char=False),
        convert_options=arrow_csv.ConvertOptions(
          column_types=types, include_columns=names, null_values=[]
        ),
      )
    except pa.ArrowInvalid as error:
      raise InputError(f"{archive.where(member)}: {_one_line(error)}") from error
  return tuple(table.column(column).to_numpy() for column in names)


def _one_line(error: Exception) -> str:
  return " ".join(str(error).split())[:300]


def _warn_if_short(archive: Archive, members: Iterable[str], rows: int, version: Version) -> None:
  """Warns about a file with too few rows, which may have been truncated at the end of a line."""
  if version.ratings and rows != version.ratings:
    where = archive.where("+".join(members))
    logger.warning("%s: %d ratings, where %d are published", where, rows, version.ratings)


def _lines(archive: Archive, member: str, encoding: str) -> list[tuple[int, str]]:
  """Numbered nonempty lines. Titles may contain characters that str.splitlines splits at."""
  try:
    text = archive.read(member).decode(encoding)
  except UnicodeDecodeError as error:
    raise InputError(f"{archive.where(member)}: not {encoding} text ({error})") from error
  stripped = (line.rstrip("\r") for line in text.split("\n"))
  return [(number, line) for number, line in enumerate(stripped, start=1) if line]


def _first_fields(archive: Archive, member: str, encoding: str, separator: str) -> list[str]:
  return [line.split(separator, 1)[0] for _, line in _lines(archive, member, encoding)]


def _read_u_item(archive: Archive, encoding: str) -> dict[str, dict[str, Any]]:
  genres = [
    name for _, line in _lines(archive, "u.genre", encoding) if (name := line.split("|")[0])
  ]
  fields = {}
  for number, line in _lines(archive, "u.item", encoding):
    parts = line.split("|")
    if len(parts) != 5 + len(genres):
      raise InputError(
        f"{archive.where('u.item')}: line {number} has {len(parts)} fields,"
        f" not 5 and one for each of {len(genres)} genres"
      )
    flags = zip(genres, parts[5:], strict=True)
    fields[parts[0]] = {"title": parts[1], "genres": [name for name, flag in flags if flag == "1"]}
  return fields


def _read_movies_dat(archive: Archive, encoding: str) -> dict[str, dict[str, Any]]:
  fields = {}
  for number, line in _lines(archive, "movies.dat", encoding):
    parts = line.split("::")
    if len(parts) < 3:
      raise InputError(
        f"{archive.where('movies.dat')}: line {number} is not MovieID::Title::Genres"
      )
    # A title may itself contain "::".
    fields[parts[0]] = _movie("::".join(parts[1:-1]), parts[-1])
  return fields


def _read_movies_csv(archive: Archive, encoding: str) -> dict[str, dict[str, Any]]:
  where = archive.where("movies.csv")
  try:
    text = archive.read("movies.csv").decode(encoding).removeprefix("\ufeff")
    rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
  except UnicodeDecodeError as error:
    raise InputError(f"{where}: not {encoding} text ({error})") from error
  except csv.Error as error:
    raise InputError(f"{where}: not readable as CSV ({error})") from error
  if not rows or rows[0] != ["movieId", "title", "genres"]:
    raise InputError(f"{where}: does not start with movieId,title,genres")
  for number, row in enumerate(rows, start=1):
    if len(row) not in (0, 3):
      raise InputError(f"{where}: row {number} has {len(row)} fields, not 3")
  return {row[0]: _movie(row[1], row[2]) for row in rows[1:] if row}


def _movie(title: str, genres: str) -> dict[str, Any]:
  listed = [] if genres == _NO_GENRES else [genre for genre in genres.split("|") if genre]
  return {"title": title, "genres": listed}
