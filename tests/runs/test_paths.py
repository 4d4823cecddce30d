"""A path is a path, whatever libraries read into it."""

import os
import subprocess
import sys
import tempfile

import jax
import jax.numpy as jnp
import pytest
from helpers.strange_names import ALL, NAMES

from gatrec_jax import runs
from gatrec_jax.errors import InputError
from gatrec_jax.runs.checkpoints import Checkpoints, read_best
from gatrec_jax.runs.paths import plain_path, user_path


def tree(x):
  return {"params": {"w": jnp.full((200, 200), x, jnp.float32)}}


@pytest.mark.parametrize("name", [*NAMES, ALL, "\udcff"], ids=ascii)
def test_checkpoints_are_kept_and_read_in_folders_of_any_name(tmp_path, name):
  folder = tmp_path / name / "checkpoints"
  store = Checkpoints(folder)
  for epoch, value in ((1, 0.1), (2, 0.5), (3, 0.2)):
    store.save(epoch, tree(epoch), value=value, meta={"epoch": epoch})
  store.close()
  assert sorted(os.listdir(folder)) == ["2", "3"]
  assert os.listdir(tmp_path) == [name]
  assert float(read_best(folder, jax.eval_shape(lambda: tree(0)))["params"]["w"][0, 0]) == 2


def test_a_folder_named_like_a_pattern_is_not_mixed_up_with_those_that_match(tmp_path):
  stores = {name: Checkpoints(tmp_path / name) for name in ("*", "a", "b")}
  for epoch in (1, 2, 3):
    for value, (name, store) in enumerate(stores.items()):
      store.save(epoch, tree(10 * value + epoch), value=1.0 * epoch, meta={"name": name})
  for value, (name, store) in enumerate(stores.items()):
    store.close()
    found = read_best(tmp_path / name, jax.eval_shape(lambda: tree(0)))
    assert float(found["params"]["w"][7, 7]) == 10 * value + 3


def test_the_line_about_damage_names_the_folder_and_not_the_link(tmp_path):
  folder = tmp_path / "a[b]"
  store = Checkpoints(folder)
  store.save(1, tree(1), value=0.0, meta={})
  store.close()
  for path in (folder / "1" / "params").rglob("*"):
    if path.is_file():
      path.write_bytes(b"")
  with pytest.raises(InputError, match="damaged") as caught:
    read_best(folder, jax.eval_shape(lambda: tree(0)))
  assert str(folder) in str(caught.value) and "gatrec-" not in str(caught.value)


@pytest.mark.parametrize("name", ["a[b]", "a\\b"])
def test_the_link_is_removed_also_where_temporary_files_are_in_such_a_folder(
  tmp_path, monkeypatch, name
):
  own = tmp_path / name
  own.mkdir()
  monkeypatch.setattr(tempfile, "tempdir", str(own))
  with plain_path(own) as plain:
    assert plain != own and plain.samefile(own)
    assert not set("[]\\*?") & set(str(plain))
    (plain / "x").write_text("x")
  assert not plain.parent.exists() and os.listdir(own) == ["x"]
  with plain_path(tmp_path) as plain:
    assert plain == tmp_path


def test_home_is_expanded_where_there_is_such_a_user(monkeypatch):
  monkeypatch.setenv("HOME", "/somewhere")
  assert str(user_path("~/a")) == "/somewhere/a"
  assert str(user_path("~nobody~here/a")) == "~nobody~here/a"
  assert str(user_path("a/~")) == "a/~"


@pytest.mark.parametrize("name", ["x" * 255, "漢" * 85, ALL], ids=("latin", "wide", "all"))
def test_a_file_may_have_any_name_that_the_system_allows(tmp_path, name):
  runs.write_json(tmp_path / name, {"a": 1})
  assert runs.read_json(tmp_path / name) == {"a": 1} and os.listdir(tmp_path) == [name]


def test_what_a_killed_process_left_of_a_file_is_removed_and_nothing_else(tmp_path):
  process = subprocess.Popen([sys.executable, "-c", ""])
  process.wait()
  child = process.pid  # free now
  names = (f".a.{child}.tmp", f".a.{os.getppid()}.tmp", f".ab.{child}.tmp", ".a.b.tmp", "a.1.tmp")
  for name in names:
    (tmp_path / name).write_text("x")
  runs.write_json(tmp_path / "a", 1)
  assert sorted(os.listdir(tmp_path)) == sorted((*names[1:], "a"))
