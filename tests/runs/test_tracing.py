"""Traces of the profiler: what is traced, and the arithmetic of the operations' own time."""

import os

import jax
import jax.numpy as jnp
import pytest
from helpers.programs import call, error_line

from gatrec_jax.errors import InputError
from gatrec_jax.runs import tracing as profiling


def test_time_inside_an_operation_is_not_its_own():
  loop, body = ("while", 0.0, 10e6), [("add", 1e6, 2e6), ("dot", 4e6, 5e6), ("copy", 5e6, 1e6)]
  after = ("dot", 10e6, 3e6)  # starts where the loop ends, and is not inside it
  assert profiling.self_times([after, *body, loop]) == [
    ("while", 3e6),
    ("add", 2e6),
    ("dot", 4e6),
    ("copy", 1e6),
    ("dot", 3e6),
  ]


def test_summary_adds_up_over_lines_and_names():
  lines = [[("while", 0.0, 10e6), ("dot", 2e6, 6e6)], [], [("dot", 0.0, 2e6)], [("add", 3.0, 0.0)]]
  rows = profiling.summary(lines)
  assert [(one.name, one.milliseconds, one.count) for one in rows] == [
    ("dot", 8.0, 2),
    ("while", 4.0, 1),
    ("add", 0.0, 1),
  ]
  assert sum(one.share for one in rows) == pytest.approx(1.0)
  assert profiling.summary([]) == [] and profiling.summary([[("add", 0.0, 0.0)]])[0].share == 0.0


def test_rounded_clocks_give_no_negative_time():
  assert profiling.self_times([("while", 0.0, 5.0), ("add", 0.0, 5.5)]) == [
    ("add", 0.5),
    ("while", 5.0),
  ]
  assert profiling.self_times([("a", 0.0, 5.0), ("b", 1.0, 3.0), ("c", 4.0, 2.5)])[0][1] == 0.0


@jax.jit
def work(x):
  return jax.lax.scan(lambda c, _: (jnp.tanh(c @ c), jnp.sort(c).sum()), x, None, length=5)


def parts(count, *, known=True):
  """Runs so many parts; the loop knows the last one, or it ends without having known it."""
  for n in range(1, count + 1):
    with profiling.part(f"part {n}", last=known and n == count):
      jax.block_until_ready(work(jnp.ones((64, 64))))


def test_a_trace_names_the_largest_operations(tmp_path):
  with profiling.recording(tmp_path / "new" / "folder") as found:
    parts(3)
    parts(2)  # of another training; one trace is enough
  assert found.what == "part 2" and found.trace.stat().st_size > 0
  assert len(list(found.trace.parent.glob("*.trace.json.gz"))) == 1  # for Perfetto
  assert len(list(tmp_path.rglob("*.xplane.pb"))) == 1
  rows = profiling.largest_operations(found.trace)
  assert 0 < len(rows) <= 5 and all(one.name for one in rows)
  assert all(0 < one.share <= 1 and one.count > 0 for one in rows)
  assert sum(one.share for one in rows) <= 1 + 1e-9
  everything = profiling.largest_operations(found.trace, most=10_000)
  assert everything[: len(rows)] == rows
  assert sum(one.share for one in everything) == pytest.approx(1.0)
  assert not any("::" in one.name or one.name.startswith("end: ") for one in everything)


@pytest.mark.parametrize(
  "count, known, what", [(1, True, "part 1"), (2, True, "part 2"), (1, False, "")]
)
def test_the_second_part_is_traced_or_the_only_one(tmp_path, count, known, what):
  with profiling.recording(tmp_path) as found:
    parts(count, known=known)
  assert found.what == what and (found.trace is None) == (not what)


def test_without_a_recording_parts_are_free(tmp_path):
  with profiling.recording(tmp_path):
    pass
  parts(2)
  assert not list(tmp_path.iterdir())


def test_a_part_that_fails_ends_its_trace(tmp_path):
  with profiling.recording(tmp_path), pytest.raises(KeyboardInterrupt):
    with profiling.part("it", last=True):
      raise KeyboardInterrupt
  with profiling.recording(tmp_path) as found:
    parts(1)
  assert found.trace is not None


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(InputError, match=r"trace=.*file: cannot be written to \(File exists\)"):
    with profiling.recording(tmp_path / "file"):
      pass
  done = call("train", "--preset=tiny", "--trace=file/in", "--workdir=w", cwd=tmp_path, check=1)
  assert "--trace=file/in: cannot be written to (Not a directory)" in error_line(done)
  assert not os.path.exists(tmp_path / "w")


def test_train_and_evaluate_tell_their_largest_operations(tmp_path):
  flags = ("--preset=bpr_mf", "--bootstrap=20", "--ks=10", "--workdir=w")
  train = (*flags, "--set=epochs=4", "--set=evaluate_every=2", "--trace=trace")
  done = call("train", *train, cwd=tmp_path, check=0)
  assert "trace of epochs 3 to 4" in done.stdout
  assert list(tmp_path.glob("trace/plugins/profile/*/*.xplane.pb"))
  done = call("train", *train, cwd=tmp_path, check=0)
  assert "trace: nothing was trained" in done.stdout
  done = call("evaluate", *flags, "--trace=other", cwd=tmp_path, check=0)
  assert "trace of the evaluation" in done.stdout and "share of the time" in done.stdout
