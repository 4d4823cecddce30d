"""The small tables of ../shared/cases on which an earlier version was wrong."""

import pytest
from helpers.paths import DATA

from gatrec_jax.data.tables.interaction_tables import load_interactions
from gatrec_jax.errors import InputError

CASES = DATA.parent / "cases" / "tables"

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason=f"no shared cases in {CASES}")


@pytest.mark.parametrize(
  ("name", "rows", "users"),
  [
    ("never_closed.tsv", 400, 40),
    ("ratings_quotes.tsv", 840, 60),
    ("ratings_one_quote.tsv", 840, 60),
    ("plain.csv", 840, 60),
    ("spaces.csv", 840, 60),
  ],
)
def test_every_row_is_there(name, rows, users):
  found = load_interactions(CASES / name).interactions
  assert (len(found), found.num_users) == (rows, users)


def test_blanks_around_ids_are_trimmed():
  spaces, plain = (load_interactions(CASES / name) for name in ("spaces.csv", "plain.csv"))
  assert spaces.interactions.item_ids == plain.interactions.item_ids


def test_a_quotation_mark_that_never_closes_stops_the_run():
  with pytest.raises(InputError, match="350 of 400 rows cannot be read: line 52 .*never closes"):
    load_interactions(CASES / "never_closed.csv")


def test_lines_of_json_that_are_no_objects(caplog):
  table = load_interactions(CASES / "null_line.jsonl", max_bad_share=0.5)
  assert len(table.interactions) == 4
  assert "line 1 (not a JSON object), 4 (rating [3.5] is not a number)" in caplog.text
