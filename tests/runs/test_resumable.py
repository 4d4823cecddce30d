"""Long jobs that go on where they were killed."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatrec_jax.errors import InputError
from gatrec_jax.runs.log import SILENT
from gatrec_jax.runs.resumable import in_chunks

KEYS = [f"k{n}" for n in range(11)]


def run(path, keys=KEYS, *, chunk=3, calls=None, most=None):
  def make(places):
    if calls is not None:
      calls.append(list(places))
    return [{"value": place**2, "beside": list(places)} for place in places]

  return in_chunks(path, keys, make, chunk=chunk, name="job", log=SILENT, most=most)


def test_every_key_has_its_record(tmp_path):
  calls = []
  records = run(tmp_path / "a" / "file.jsonl", calls=calls)
  assert [(record["key"], record["value"]) for record in records] == [
    (key, n**2) for n, key in enumerate(KEYS)
  ]
  assert calls == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10]]
  assert run(tmp_path / "a" / "file.jsonl", calls=(more := [])) == records and more == []


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_file_cut_anywhere_is_completed_to_the_same_bytes(tmp_path_factory, data):
  path = tmp_path_factory.mktemp("chunks") / "file.jsonl"
  run(path)
  whole = path.read_bytes()
  kept = data.draw(st.integers(0, len(whole)))
  path.write_bytes(whole[:kept])
  calls = []
  run(path, calls=calls)
  assert path.read_bytes() == whole
  lines = whole[:kept].count(b"\n")
  assert sum(map(len, calls)) == (len(KEYS) - lines // 3 * 3 if lines < len(KEYS) else 0)


def test_the_first_keys_can_be_taken_before_the_others(tmp_path):
  path, whole = tmp_path / "file.jsonl", run(tmp_path / "whole.jsonl")
  calls = []
  values = [record["value"] for record in run(path, most=7, calls=calls)]
  assert values == [n**2 for n in range(7)] and calls == [[0, 1, 2], [3, 4, 5], [6]]
  assert run(path, most=99) == whole  # the chunk that was cut is made again
  kept = path.read_bytes()
  assert run(path, most=4, calls=(more := [])) == whole[:4] and more == []
  assert path.read_bytes() == kept
  assert run(path, most=0) == []


def test_another_job_is_refused(tmp_path):
  path = tmp_path / "file.jsonl"
  run(path)
  with pytest.raises(InputError, match="of another job"):
    run(path, ["x", *KEYS[1:]])
  path.write_text("nonsense\n" * 11)
  with pytest.raises(InputError, match="damaged"):
    run(path)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_flipped_bit_is_found_and_made_again(tmp_path_factory, data):
  path = tmp_path_factory.mktemp("chunks") / "file.jsonl"
  records = run(path)
  whole = path.read_bytes()
  place, bit = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 7))
  path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
  assert run(path) == records and path.read_bytes() == whole


def test_records_are_plain_json(tmp_path):
  run(tmp_path / "file.jsonl", ["é"], chunk=8)
  assert json.loads((tmp_path / "file.jsonl").read_text("utf-8"))["key"] == "é"


@pytest.mark.parametrize("line", ["[" * 100_000, "[]", "null", "9" * 5000])
def test_a_file_that_is_no_chunk_is_one_line(tmp_path, line):
  path = tmp_path / "part.jsonl"
  path.write_text(f"{line}\n" * 3)
  with pytest.raises(InputError, match="damaged or of another job"):
    run(path)
