"""Files of reasons: continued by the same run and model, never mixed with those of another."""

import pytest

from gatrec_jax import runs
from gatrec_jax.errors import InputError
from gatrec_jax.explain.lists import _kept
from gatrec_jax.runs.log import SILENT, Recorder

ORIGIN = {"run": "hash", "model": "template", "model_hash": "", "style": "short", "top_n": 2}
LISTS = {"ann": ["a", "b"], "bob": ["b", "c"]}


def write(path, rows, **origin):
  lines = [
    runs.sealed_line({"user_id": user, "item_id": item, "text": "é", **ORIGIN, **origin})
    for user, item in rows
  ]
  path.write_text("".join(lines), "utf-8")
  return path


def items(kept):
  return {user: [row["item_id"] for row in rows] for user, rows in kept.items()}


def test_complete_users_are_kept_and_the_file_holds_nothing_else(tmp_path):
  path = write(tmp_path / "r.jsonl", [("ann", "a"), ("ann", "b"), ("bob", "b")])
  assert items(_kept(path, ORIGIN, LISTS, log=SILENT)) == {"ann": ["a", "b"]}
  assert path.read_text("utf-8").count("\n") == 2
  # Users who are not asked for now are not lost.
  assert items(_kept(path, ORIGIN, {"bob": ["b", "c"]}, log=SILENT)) == {"ann": ["a", "b"]}


def test_a_damaged_line_is_made_again_with_a_word(tmp_path):
  path = write(tmp_path / "r.jsonl", [("ann", "a"), ("ann", "b"), ("bob", "b"), ("bob", "c")])
  path.write_text(path.read_text("utf-8").replace('"b"', '"x"', 1), "utf-8")
  lines = []
  assert items(_kept(path, ORIGIN, LISTS, log=Recorder(lines))) == {"bob": ["b", "c"]}
  assert lines == [f"explain: 1 damaged lines in {path}: made again"]


@pytest.mark.parametrize(
  "changed, words",
  [
    ({"run": "of another seed"}, "another run, or this one as it was trained before"),
    ({"model": "builtin", "model_hash": "x"}, "model builtin instead of template, other weights"),
    ({"top_n": 3}, "top_n 3 instead of 2"),
  ],
)
def test_reasons_of_another_origin_are_refused_and_left_alone(tmp_path, changed, words):
  path = write(tmp_path / "r.jsonl", [("ann", "a"), ("ann", "b")], **changed)
  before = path.read_bytes()
  with pytest.raises(InputError, match=words):
    _kept(path, ORIGIN, LISTS, log=SILENT)
  assert path.read_bytes() == before


def test_reasons_for_another_list_are_refused(tmp_path):
  for rows in ([("ann", "c")], [("ann", "b"), ("ann", "a")]):
    path = write(tmp_path / "r.jsonl", rows)
    with pytest.raises(InputError, match="another list of user ann"):
      _kept(path, ORIGIN, LISTS, log=SILENT)


@pytest.mark.parametrize("content", ["no JSON\n", '{"user_id": "ann"}\n', "\n", "[1]\n{}\n"])
def test_something_else_is_refused_and_left_alone(tmp_path, content):
  path = tmp_path / "r.jsonl"
  path.write_text(content)
  with pytest.raises(InputError, match="does not contain reasons"):
    _kept(path, ORIGIN, LISTS, log=SILENT)
  assert path.read_text() == content
