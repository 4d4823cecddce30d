"""Parsers of the user's tables: interactions in every format, metadata, profiles, lists."""

from __future__ import annotations

import functools
import json
import types
from pathlib import Path
from typing import Any

import numpy as np

from launch.fuzzing.containers import compressed, in_compressed, in_parquet, in_zip, parquet, zipped
from launch.fuzzing.execute import Parser
from launch.fuzzing.mutate import Files, in_json, in_json_lines, in_rows, some_of

_NAMES = ("user_id", "item_id", "rating", "timestamp")
_ROWS = [
  (f"{u}", f"{i}", f"{(u * i) % 5 + 1}", f"{978300000 + u}") for u in (1, 2, 7) for i in (3, 4)
]
_IDS = {"user_ids": ("1", "2", "7"), "item_ids": ("3", "4", "5")}
_LISTS = ("user_id", "item_id", "rank")
_RANKS = [(user, item, rank) for user in (1, 2) for rank, item in enumerate((4, 3, 5), 1)]


def _text(separator: str, names: tuple[str, ...] = _NAMES, rows: Any = _ROWS) -> bytes:
  return "\n".join(separator.join(map(str, row)) for row in (names, *rows)).encode()


def _json_lines(names: tuple[str, ...] = _NAMES, rows: Any = _ROWS) -> bytes:
  objects = (dict(zip(names, map(_plain, row), strict=True)) for row in rows)
  return "\n".join(map(json.dumps, objects)).encode()


def _plain(value: Any) -> Any:
  return int(value) if str(value).isdecimal() else value


def _columns(names: tuple[str, ...] = _NAMES, rows: Any = _ROWS) -> dict[str, list[Any]]:
  return {name: [_plain(row[place]) for row in rows] for place, name in enumerate(names)}


def _first(folder: Path) -> Path:
  return min(folder.iterdir())


def _load(folder: Path) -> None:
  from gatrec_jax.data.tables.interaction_tables import load_interactions

  load_interactions(_first(folder), max_bad_share=0.5)


def _csv() -> list[Files]:
  quoted = _text(",").replace(b"978300001", b'"Jan 3, 2001"')
  times = _text(";").replace(b"978300001", b"03/04/2001").replace(b"978300002", b"13/04/2001")
  return [{"t.csv": _text(",")}, {"t.csv": quoted}, {"t.csv": times}, {"t.csv": _text(",")[:40]}]


def _tsv() -> list[Files]:
  return [{"t.tsv": _text("\t")}, {"t.dat": _text("::")}, {"t.txt": _text(" ")}]


def _jsonl() -> list[Files]:
  return [{"t.jsonl": _json_lines()}]


def _json() -> list[Files]:
  return [{"t.json": b"[" + _json_lines().replace(b"\n", b",\n") + b"]"}]


def _parquet() -> list[Files]:
  whole = _columns()
  return [
    {"t.parquet": parquet(whole)},
    {"t.parquet": parquet({name: whole[name] for name in _NAMES[:2]})},
  ]


def _recbole() -> list[Files]:
  names = ("user_id:token", "item_id:token", "rating:float", "timestamp:float")
  return [{"t.inter": _text("\t", names)}]


def _lightgcn() -> list[Files]:
  return [{"t.txt": b"0 1 2 3\n1 2\n2 0 3 4 5\n3 1"}]


def _compressed() -> list[Files]:
  return [{f"t.csv{end}": compressed(_text(","), end)} for end in (".gz", ".bz2", ".zst")]


def _zip() -> list[Files]:
  ratings = _text(",", ("userId", "movieId", "rating", "timestamp"))
  movies = b'movieId,title,genres\n3,A (1999),Drama|War\n4,"B, The (2001)",(no genres listed)'
  inside = {"ml-latest-small/ratings.csv": ratings, "ml-latest-small/movies.csv": movies}
  return [{"ml-latest-small.zip": zipped(inside)}]


def _load_zip(folder: Path) -> None:
  from gatrec_jax.data.movielens import load_movielens

  load_movielens("ml-latest-small", data_dir=str(folder))


def _metadata() -> list[Files]:
  names = ("item_id", "title", "genres", "year", "overview", "brand")
  rows = [
    ("3", "A film", "Drama|War", "1999", "It rains.", "X"),
    ("4", "B film", "['Comedy', 'War']", "2001", "It snows; a lot", "Y"),
    ("5", "C film", "Drama", "2002", "http://a.b/c", "Z"),
  ]
  typed = _text(
    "\t", ("item_id:token", "title:token_seq", "genres:token_seq"), [r[:3] for r in rows]
  )
  return [
    {"m.csv": _text(",", names, [(*r[:2], r[2].replace(",", ""), *r[3:]) for r in rows])},
    {"m.tsv": _text("\t", names, rows)},
    {"m.jsonl": _json_lines(names, rows)},
    {"m.parquet": parquet(_columns(names, rows))},
    {"m.item": typed},
  ]


def _load_metadata(folder: Path) -> None:
  from gatrec_jax.data.tables.metadata import load_item_metadata, matches_by_column

  found = load_item_metadata(_first(folder), max_bad_share=0.5)
  matches_by_column(found, {"3", "4"})


def _any_text() -> list[Files]:
  return [*_csv(), *_tsv(), *_recbole(), *_jsonl()]


def _sniff(folder: Path) -> None:
  from gatrec_jax.data.tables.columns import Columns, find_columns
  from gatrec_jax.data.tables.row_reader import column_names, first_rows
  from gatrec_jax.data.tables.source import open_source

  source = open_source(_first(folder))
  first_rows(source, 20)
  find_columns("t", Columns(), column_names(source), numeric={})


def _times() -> list[Files]:
  styles = (
    "978300000\n978300760",
    "978300000123\n978300760456",
    "2001-01-03T10:00:00\n2001-02-03",
    "20010103\n20020304",
    "13/04/2001 10:00\n04/05/2001 11:30",
    "Jan 3, 2001\nFeb 13, 2002",
    "3.1.2001, 10:00\n14.2.2002, 11:00",
  )
  return [{"times": one.encode()} for one in styles]


def _read_times(folder: Path) -> None:
  from gatrec_jax.data.tables.times import style_of, style_of_numbers

  texts = (folder / "times").read_bytes().decode("utf-8", "replace").split("\n")
  numbers = [float(one) for one in texts if one.replace(".", "", 1).isdecimal() and len(one) < 300]
  kinds = [texts, numbers, [int(one) for one in numbers if abs(one) < 1e300]]
  for values in kinds:
    style = style_of(values, column="time")
    for value in values:
      try:
        style.seconds(value)
      except ValueError:
        continue
  if numbers:
    try:
      style_of_numbers(np.array(numbers)).seconds_of(np.array(numbers))
    except ValueError:
      return


def _profiles() -> list[Files]:
  rows = [{"item_id": int(i), "profile": f"# Title\n- about {i}"} for i in _IDS["item_ids"]]
  summaries = [{"item_id": i, "summary": "a text"} for i in _IDS["item_ids"]]
  return [{"p.jsonl": "\n".join(map(json.dumps, one)).encode()} for one in (rows, summaries)]


def _read_profiles(folder: Path) -> None:
  from gatrec_jax.profiles.provided import check_user_profiles_leak, read_profiles

  path = folder / "p.jsonl"
  found = read_profiles(path, id_field="item_id", ids=_IDS["item_ids"])
  check_user_profiles_leak(
    found.texts.values(),
    path=path,
    dataset="x",
    fold=None,
    trains_on_all_training=False,
    data_content="",
  )


def _lists() -> list[Files]:
  return [
    {"r.csv": _text(",", _LISTS, _RANKS)},
    {"r.tsv": _text("\t", _LISTS, _RANKS)},
    {"r.jsonl": _json_lines(_LISTS, _RANKS)},
    {"r.parquet": parquet(_columns(_LISTS, _RANKS))},
  ]


def _read_lists(folder: Path) -> None:
  from gatrec_jax.evaluate.files import read_recommendations, run_of_lists

  read_recommendations(_first(folder), **_IDS)
  run_of_lists(_first(folder))


@functools.cache
def _run() -> Any:
  """What filters and candidates read of a run."""
  from gatrec_jax.data.feedback import Feedback
  from gatrec_jax.data.interactions import Interactions
  from gatrec_jax.data.prepared import Prepared
  from gatrec_jax.data.split_draws import Split

  rows = Interactions.from_arrays([1, 2, 7], [3, 4, 5], [5, 4, 3])
  split = Split(np.array([0]), np.array([1]), np.array([2]))
  fields = [
    {"title": "A (1999)", "genres": ["Drama", "War"], "price": 3.5, "released": "2001-04-05"},
    {"title": "B (2001)", "genres": ["War"], "price": "x"},
    {},
  ]
  return types.SimpleNamespace(
    prepared=Prepared(rows, split, fields, Feedback(), {}),
    recommender=types.SimpleNamespace(num_items=3),
    item_index={item: place for place, item in enumerate(rows.item_ids)},
    user_index={user: place for place, user in enumerate(rows.user_ids)},
  )


def _read_candidates(folder: Path) -> None:
  from gatrec_jax.errors import InputError
  from gatrec_jax.rerank.candidates import file_candidates
  from gatrec_jax.runs.log import SILENT
  from gatrec_jax.serve.filters import pairs_of, read_candidates

  run = _run()
  try:
    file_candidates(_first(folder), run.prepared, top=2)
  except InputError as error:
    if len(str(error).splitlines()) != 1:
      raise
  pairs_of(run, read_candidates(run, str(_first(folder)), log=SILENT))


def _filters() -> list[Files]:
  texts = (
    "genres=Drama|War",
    "year=1990..1999",
    "price=..20",
    "age=..5",
    "title=A",
    "released=2001",
  )
  return [{"only": one.encode()} for one in texts]


def _apply_filter(folder: Path) -> None:
  from gatrec_jax.runs.log import SILENT
  from gatrec_jax.serve.filters import item_mask

  text = (folder / "only").read_bytes().decode("utf-8", "replace").replace("/", "_")
  item_mask(_run(), only=[text], exclude=[text], log=SILENT)


_BY_SUFFIX = {
  ".csv": in_rows(","),
  ".tsv": in_rows("\t"),
  ".dat": in_rows("::"),
  ".txt": in_rows(" "),
  ".inter": in_rows("\t"),
  ".item": in_rows("\t"),
  ".jsonl": in_json_lines,
  ".json": in_json,
  ".parquet": in_parquet,
  ".zip": in_zip(in_rows(",")),
  "times": in_rows(" "),
  "only": in_rows("="),
  **{end: in_compressed(end, in_rows(",")) for end in (".gz", ".bz2", ".zst")},
}
_change = some_of(_BY_SUFFIX)

PARSERS = (
  Parser("interactions_csv", _csv, _change, _load),
  Parser("interactions_tsv", _tsv, _change, _load),
  Parser("interactions_jsonl", _jsonl, _change, _load),
  Parser("interactions_json", _json, _change, _load),
  Parser("interactions_parquet", _parquet, _change, _load),
  Parser("interactions_recbole", _recbole, _change, _load),
  Parser("interactions_lightgcn", _lightgcn, _change, _load),
  Parser("interactions_compressed", _compressed, _change, _load),
  Parser("movielens_zip", _zip, _change, _load_zip),
  Parser("metadata", _metadata, _change, _load_metadata),
  Parser("sniffing", _any_text, _change, _sniff),
  Parser("times", _times, _change, _read_times),
  Parser("profiles", _profiles, _change, _read_profiles),
  Parser("recommendations", _lists, _change, _read_lists),
  Parser("candidates", _lists, _change, _read_candidates),
  Parser("filters", _filters, _change, _apply_filter),
)
