"""Suite size: its data, and a whole run of the small shape."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers.programs import call, error_line

from launch.benchmarks.size_data import SHAPES, Shape, draw_ratings, table_of


@pytest.mark.parametrize(
  "shape", [SHAPES["small"], Shape(50, 400, 2_000, True), Shape(400, 50, 2_000, False)]
)
def test_data_have_exactly_the_shape(shape):
  user, item, rating = draw_ratings(shape, seed=1)
  assert len(user) == len(item) == len(rating) == shape.ratings
  assert len(np.unique(user)) == shape.users and len(np.unique(item)) == shape.items
  assert len({*zip(user.tolist(), item.tolist(), strict=True)}) == shape.ratings
  assert set(np.unique(rating)) == {1, 2, 3, 4, 5}
  for again, first in zip(draw_ratings(shape, seed=1), (user, item, rating), strict=True):
    np.testing.assert_array_equal(again, first)


def test_a_few_items_have_much_of_all():
  shape = Shape(5_000, 2_000, 100_000, False)
  user, item, _ = draw_ratings(shape, seed=0)
  for ends, count in ((item, shape.items), (user, shape.users)):
    falling = np.sort(np.bincount(ends, minlength=count))[::-1]
    assert falling[: count // 10].sum() > 0.3 * shape.ratings
    assert falling[-count // 2 :].sum() < 0.35 * shape.ratings


def test_a_table_is_written_once(tmp_path):
  path = table_of("small", tmp_path)
  first = path.stat().st_mtime_ns
  assert table_of("small", tmp_path) == path and path.stat().st_mtime_ns == first
  assert pq.read_metadata(path).num_rows == SHAPES["small"].ratings


def test_an_unknown_shape_is_refused(tmp_path):
  flags = ("--suite=size", "--shapes=small,ml-2m")
  line = error_line(call("benchmark", *flags, cwd=tmp_path, check=1))
  assert line.startswith("error: --shapes=ml-2m: must be among small, ml-1m")


def test_a_whole_run_is_planned_and_measured(tmp_path):
  flags = ("--suite=size", "--shapes=small", "--epochs=1", "--json_out=size.json")
  done = call("benchmark", *flags, cwd=tmp_path, check=0)
  found = json.loads((tmp_path / "size.json").read_text())["shapes"]["small"]
  stages = ["data", "evaluation", "graph", "linear", "texts", "training", "validation"]
  assert sorted(found["stages"]) == stages
  for stage in found["stages"].values():
    assert stage["measured_mb"] > 100 and stage["planned_mb"] > 100
    assert stage["measured_seconds"] >= 0 and stage["planned_seconds"] >= 0
  assert found["measured_mb"] == max(one["measured_mb"] for one in found["stages"].values())
  assert "planned ÷ measured" in done.stdout and "together" in done.stdout
