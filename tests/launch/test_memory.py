"""Memory that does not suffice ends a program in one line."""

import errno
import resource
from unittest import mock

import numpy as np
import pytest
from helpers.programs import call, error_line

from gatrec_jax.data.tables import interaction_tables
from launch.cli import memory


def test_a_limit_of_address_space_is_refused_before_anything_starts(tmp_path):
  most = 1 << 30
  with mock.patch.object(resource, "getrlimit", lambda _: (most, most)):
    done = call("train", "--preset=tiny", cwd=tmp_path, check=1)
  line = error_line(done)
  assert "the address space is limited to 1.0 GiB (ulimit -v)" in line
  assert "ulimit -v unlimited" in line and not (tmp_path / "runs").exists()
  assert memory.lacking_address_space() == ""


@pytest.mark.parametrize(
  ("error", "expected"),
  [
    (MemoryError("Unable to allocate 3.00 TiB for an array"), "Unable to allocate 3.00 TiB"),
    (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 12 bytes.\nmore"), "12 bytes"),
    (RuntimeError("std::bad_alloc"), "std::bad_alloc"),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), "Cannot allocate memory"),
  ],
)
def test_what_was_being_made_and_what_helps_is_said(tmp_path, monkeypatch, error, expected):
  (tmp_path / "t.csv").write_text("user_id,item_id\n1,2\n")

  def fail(*_, **__):
    raise error

  monkeypatch.setattr(interaction_tables, "understand", fail)
  done = call("train", f"--dataset={tmp_path / 't.csv'}", cwd=tmp_path, check=1)
  line = error_line(done)
  assert line.startswith("error: out of memory while reading the data (") and expected in line
  assert line.endswith("use a part of the rows, or fewer columns")


def test_other_errors_keep_their_traceback(tmp_path, monkeypatch):
  def fail(*_, **__):
    raise RuntimeError("a bug")

  monkeypatch.setattr(interaction_tables, "understand", fail)
  (tmp_path / "t.csv").write_text("user_id,item_id\n1,2\n")
  with pytest.raises(RuntimeError, match="a bug"):
    call("train", f"--dataset={tmp_path / 't.csv'}", cwd=tmp_path)


def test_what_numpy_and_pyarrow_raise_counts():
  import pyarrow as pa

  for make in (lambda: np.zeros(1 << 50), lambda: pa.allocate_buffer(1 << 50)):
    with pytest.raises(MemoryError) as error:
      make()
    assert memory.is_out_of_memory(error.value)
  assert not memory.is_out_of_memory(RuntimeError("a bug"))
