"""Every parser of files that went wrong somewhere: it finds data, or says one line."""

import warnings

import pytest

from gatrec_jax.data.tables.interaction_tables import load_interactions
from gatrec_jax.data.tables.metadata import load_item_metadata
from gatrec_jax.errors import InputError
from gatrec_jax.evaluate.files import read_recommendations
from gatrec_jax.profiles.provided import read_profiles

IDS = [str(k) for k in range(1, 9)]
TABLE = "user_id,item_id,rating,timestamp,title,rank\n" + "".join(
  f"{k},{k},{k % 5 + 1},{1_600_000_000 + k},Film {k},1\n" for k in range(1, 9)
)
JSON = "".join(
  f'{{"user_id": "{k}", "item_id": "{k}", "rating": {k % 5 + 1}, "timestamp": {k}, "rank": 1,'
  f' "title": "Film {k}", "profile": "## Overview\\nA film."}}\n'
  for k in range(1, 9)
)
PARSERS = {
  "interactions": lambda path: load_interactions(path),
  "metadata": lambda path: load_item_metadata(path),
  "recommendations": lambda path: read_recommendations(path, user_ids=IDS, item_ids=IDS),
  "profiles": lambda path: read_profiles(path, id_field="item_id", ids=IDS),
}
FAULTS = {
  "nothing": lambda text: text.encode(),
  "a mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
  "Windows lines": lambda text: text.replace("\n", "\r\n").encode(),
  "old lines": lambda text: text.replace("\n", "\r").encode(),
  "blank lines": lambda text: text.replace("\n", "\n\n").encode(),
  "UTF-16": lambda text: text.encode("utf-16"),
  "UTF-16 without a mark": lambda text: text.encode("utf-16-le"),
  "Latin-1": lambda text: text.replace("Film 3", "\xe9\xe8").encode("latin-1"),
  "NUL": lambda text: text.replace("Film 3", "\0\0").encode(),
  "NUL in an id": lambda text: (
    text.replace("3,3,", "3,\0,").replace('"item_id": "3"', '"item_id": "\0"').encode()
  ),
  "a long number": lambda text: (
    text.replace("1600000003", "9" * 4301)
    .replace('"rating": 4', '"rating": ' + "9" * 4301)
    .encode()
  ),
  "floats as ids": lambda text: text.replace("\n3,3,", "\n3.0,3.0,").replace('"3"', "3.0").encode(),
  "padded ids": lambda text: text.replace("\n3,3,", "\n003,003,").replace('"3"', '"003"').encode(),
  "blanks around ids": lambda text: (
    text.replace("\n3,3,", "\n 3, 3 ,").replace('"3"', '" 3"').encode()
  ),
  "an open quote": lambda text: text.replace("Film 3", '"Film 3').encode(),
  "a column twice": lambda text: text.replace("rating", "item_id", 1).encode(),
  "names alone": lambda text: text.split("\n")[0].encode(),
  "no byte": lambda text: b"",
  "null": lambda text: b"null\n" + text.encode(),
  "deep": lambda text: text.encode() + b'{"item_id": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
  "binary": lambda text: bytes(range(256)) * 20,
}


def outcome(parse, path):
  try:
    parse(path)
  except InputError as error:
    assert "\n" not in str(error) and path.name in str(error), str(error)
    return "refused"
  return "read"


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
  ("parser", "suffix"),
  [(parser, ".jsonl") for parser in PARSERS]
  + [(parser, ".csv") for parser in PARSERS if parser != "profiles"]
  + [("interactions", ".tsv"), ("metadata", ".tsv"), ("interactions", ".inter")],
)
def test_data_or_one_line(parser, suffix, fault, tmp_path):
  text = JSON if suffix == ".jsonl" else TABLE
  if suffix in (".tsv", ".inter"):
    text = text.replace(",", "\t")
  path = tmp_path / f"x{suffix}"
  path.write_bytes(FAULTS[fault](text))
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    found = outcome(PARSERS[parser], path)
  if fault in ("nothing", "a mark", "Windows lines", "blank lines"):
    assert found == "read"
  if fault in ("no byte", "binary"):
    assert found == "refused"
