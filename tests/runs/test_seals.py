"""Hashes of stored files: what is whole is read, whatever else is refused in one line."""

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatrec_jax import runs
from gatrec_jax.errors import DamagedFile, InputError
from gatrec_jax.runs import seals

PLAIN = st.recursive(
  st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
  lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
  max_leaves=8,
)
TREES = st.dictionaries(st.text().filter(lambda name: name not in ("digest", "files")), PLAIN)


@settings(max_examples=40)
@given(TREES)
def test_what_is_sealed_can_be_read(tree):
  assert runs.unsealed_line(runs.sealed_line(tree)) == tree


@settings(max_examples=40)
@given(TREES.filter(bool), st.data())
def test_no_changed_bit_goes_unseen(tree, data):
  line = runs.sealed_line(tree).encode()
  place, bit = data.draw(st.integers(0, len(line) - 2)), data.draw(st.integers(0, 7))
  changed = line[:place] + bytes([line[place] ^ 1 << bit]) + line[place + 1 :]
  assert runs.unsealed_line(changed) in (None, tree)


@pytest.mark.parametrize("line", ["", "[]", "3", "{}", '{"digest": "x"}', "[" * 100_000, b"\xff"])
def test_what_is_not_sealed_is_none(line):
  assert runs.unsealed_line(line) is None


@pytest.fixture
def record(tmp_path):
  (tmp_path / "a.txt").write_text("alpha")
  (tmp_path / "model" / "deep").mkdir(parents=True)
  (tmp_path / "model" / "deep" / "b.bin").write_bytes(b"\0" * 9)
  runs.write_sealed(tmp_path / "manifest.json", {"n": 1}, files=["a.txt", "model"])
  return tmp_path / "manifest.json"


def test_files_and_folders_are_recorded(record):
  assert runs.read_sealed(record) == {"n": 1}
  assert sorted(seals.recorded_files(record)) == ["a.txt", "model/deep/b.bin"]
  runs.require_intact(record)
  runs.require_intact(record, "model")
  assert runs.verify(record.parent) == 2


@pytest.mark.parametrize(
  "name, content, said",
  [
    ("a.txt", b"alphb", "not what was written"),
    ("a.txt", b"alpha ", "not what was written"),
    ("a.txt", None, "missing"),
    ("model/deep/b.bin", b"\0" * 8 + b"\1", "not what was written"),
  ],
)
def test_another_content_is_named(record, name, content, said):
  path = record.parent / name
  path.unlink() if content is None else path.write_bytes(content)
  for check in (lambda: runs.require_intact(record), lambda: runs.verify(record.parent)):
    with pytest.raises(DamagedFile, match=said) as error:
      check()
    assert str(path) in str(error.value) and "launch.train" in str(error.value)
  if name == "a.txt":
    runs.require_intact(record, "model")  # the rest is whole


def test_a_file_that_is_not_recorded_is_refused(record):
  with pytest.raises(DamagedFile, match="does not record other"):
    runs.require_intact(record, "other")


def test_large_files_are_hashed_where_their_time_differs(record, monkeypatch):
  monkeypatch.setattr(seals, "_ALWAYS", 5)
  path = record.parent / "a.txt"
  before = path.stat()
  path.write_text("alphb")
  os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
  runs.require_intact(record, "a.txt")  # same size, same time: trusted
  with pytest.raises(DamagedFile):
    runs.verify(record.parent)
  os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
  with pytest.raises(DamagedFile):
    runs.require_intact(record, "a.txt")
  path.write_text("alpha")
  runs.require_intact(record, "a.txt")  # a copy has another time and the same content


@pytest.mark.parametrize("content", ["", "null", "[1]", "{", '{"n": 1}', '{"n": 2, "digest": "x"}'])
def test_a_damaged_record_is_one_line(record, content):
  record.write_text(content)
  for check in (runs.read_sealed, runs.require_intact):
    with pytest.raises(DamagedFile, match="damaged") as error:
      check(record)
    assert "\n" not in str(error.value)
  record.unlink()
  with pytest.raises(InputError, match="not there"):
    runs.read_sealed(record)


def test_results_beside_a_file_speak_for_it(tmp_path):
  path = tmp_path / "lists.csv"
  path.write_text("a")
  runs.require_written(path)  # nothing is known of it
  (tmp_path / "results.json").write_text("[]")
  runs.require_written(path)
  runs.write_sealed(tmp_path / "results.json", {}, files=["lists.csv"])
  runs.require_written(path)
  path.write_text("b")
  with pytest.raises(DamagedFile):
    runs.require_written(path)


@settings(max_examples=20)
@given(st.sampled_from(["inputs", "facts", "digest", "files"]))
def test_a_manifest_without_a_part_is_damaged(tmp_path_factory, part):
  path = tmp_path_factory.mktemp("m") / "manifest.json"
  (path.parent / "f").write_text("")
  runs.write_sealed(path, {"inputs": "x", "facts": {}}, files=["f"])
  tree = json.loads(path.read_text())
  del tree[part]
  path.write_text(json.dumps(tree))
  with pytest.raises(DamagedFile):
    runs.facts_of_stage(path.parent, "f")
