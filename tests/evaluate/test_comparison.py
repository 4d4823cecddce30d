"""Comparisons of many systems: averages by hand, refusals, corrections, files."""

import numpy as np
import pytest

from gatrec_jax.errors import InputError
from gatrec_jax.evaluate.comparison import average_over_runs, compare_systems, comparison_json
from gatrec_jax.evaluate.evaluation import Evaluation
from gatrec_jax.evaluate.significance import holm
from gatrec_jax.evaluate.user_values import UserValues, read_user_values, write_user_values

NAN = float("nan")


def run(system, values, *, part="u1", seed=0, users=None, truth="t", protocol="full", metric="m@1"):
  users = users or tuple("abcdefgh"[: len(values)])
  return UserValues(
    system, part, seed, protocol, users, None, {metric: np.array(values, float)}, f"{truth}-{part}"
  )


def test_seeds_are_averaged_within_a_part_before_parts():
  runs = [
    run("x", [0.0, 1.0], seed=0),
    run("x", [0.5, NAN], seed=1),
    run("x", [0.75, 0.5], part="u2", users=("a", "c")),
  ]
  # a: (mean(0, .5) + .75) / 2; b: its only counted value; c: of u2 alone; d: nowhere.
  np.testing.assert_allclose(average_over_runs(runs, "m@1", "abcd"), [0.5, 1.0, 0.5, NAN])


def test_users_are_the_unit():
  """Twenty copies of a user's runs say no more than one."""
  rng = np.random.default_rng(0)
  base, other = rng.random(30), rng.random(30)
  users = tuple(map(str, range(30)))
  once = {"x": [run("x", base, users=users)], "y": [run("y", other, users=users)]}
  often = {
    name: [run(name, own[0].values["m@1"], users=users, seed=s) for s in range(20)]
    for name, own in once.items()
  }
  a, b = (
    compare_systems(r, reference="x", metrics=["m@1"], num_resamples=500).against["y"]["m@1"]
    for r in (once, often)
  )
  assert a.difference.lo == pytest.approx(b.difference.lo) and a.difference.n == 30
  assert a.difference.p_value == b.difference.p_value


def compared(**systems):
  users = tuple(map(str, range(40)))
  runs = {name: [run(name, values, users=users)] for name, values in systems.items()}
  return compare_systems(runs, reference="base", metrics=["m@1"], num_resamples=1000)


def test_verdicts_order_and_correction():
  rng = np.random.default_rng(1)
  base = rng.random(40)
  found = compared(
    base=base,
    worse=base - 0.1,
    better=base + 0.2 + 0.05 * rng.random(40),
    noise=base + rng.normal(0, 0.2, 40),
  )
  verdicts = {name: own["m@1"].difference.verdict for name, own in found.against.items()}
  assert verdicts == {"worse": "behind", "better": "ahead", "noise": "not separated"}
  assert list(found.estimates)[0] == "better" and list(found.estimates)[-1] == "worse"
  raw = [own["m@1"].difference.p_value for own in found.against.values()]
  np.testing.assert_array_equal(
    [own["m@1"].holm_p_value for own in found.against.values()], holm(raw)
  )
  # All differ by the same: no spread, so no standardized effect.
  assert found.against["better"]["m@1"].difference.effect > 5


def test_a_copy_is_not_separated():
  base = np.random.default_rng(2).random(40)
  difference = compared(base=base, copy=base).against["copy"]["m@1"].difference
  assert difference.verdict == "not separated" and difference.effect is None
  assert (difference.mean, difference.p_value) == (0.0, 1.0)


@pytest.mark.parametrize(
  ("other", "message"),
  [
    (dict(truth="other"), "y was tested on u1, x on u1, with other ratings"),
    (dict(part="u2"), "y was tested on u2, x on u1"),
    (dict(protocol="judged"), r"different protocols cannot be compared: y and x \(judged; full\)"),
    (dict(metric="n@5"), "metrics=m@1: y has no such metric, but n@5"),
  ],
)
def test_what_cannot_be_compared_is_refused(other, message):
  runs = {"x": [run("x", [0.1, 0.2])], "y": [run("y", [0.1, 0.2], **other)]}
  with pytest.raises(InputError, match=message):
    compare_systems(runs, reference="x", metrics=["m@1"])


def test_two_kinds_of_one_part_are_refused():
  runs = {"x": [run("x", [0.1, 0.2]), run("x", [0.1, 0.2], truth="other", seed=1)]}
  with pytest.raises(InputError, match="x has two kinds of 'u1' among its runs"):
    compare_systems(runs, reference="x", metrics=["m@1"])


def test_a_run_given_twice_is_refused():
  runs = {"x": [run("x", [0.1, 0.2])], "y": [run("y", [0.1, 0.2]), run("y", [0.3, 0.4])]}
  with pytest.raises(InputError, match="y was given twice for 'u1' with seed 0"):
    compare_systems(runs, reference="x", metrics=["m@1"])


def test_fewer_seeds_are_fine_fewer_parts_are_not():
  seeds = [run("y", [0.2, 0.4], seed=0), run("y", [0.4, 0.6], seed=1)]
  found = compare_systems(
    {"x": [run("x", [0.1, 0.2])], "y": seeds}, reference="x", metrics=["m@1"], num_resamples=50
  )
  assert found.against["y"]["m@1"].difference.mean == pytest.approx(0.25)
  assert (found.seeds["x"], found.seeds["y"]) == ((0,), (0, 1))
  both = [run("x", [0.1, 0.2]), run("x", [0.1, 0.2], part="u2")]
  with pytest.raises(InputError, match="y was tested on u1, x on u1, u2"):
    compare_systems({"x": both, "y": seeds}, reference="x", metrics=["m@1"])


def test_an_absent_reference_is_refused():
  with pytest.raises(InputError, match="reference=z: not among x"):
    compare_systems({"x": [run("x", [0.1])]}, reference="z", metrics=["m@1"])


def test_json_has_everything_by_model_and_protocol():
  base = np.random.default_rng(3).random(40)
  tree = comparison_json([compared(base=base, up=base + 0.1)], {"up": {"train_seconds": 2.0}})
  up = tree["models"]["up"]
  assert up["full"]["m@1"]["against_reference"]["verdict"] == "ahead"
  assert set(up["full"]["m@1"]) == {"mean", "lo", "hi", "n", "against_reference"}
  assert up["train_seconds"] == 2.0 and up["parts"] == ("u1",) and up["seeds"] == (0,)
  assert "against_reference" not in tree["models"]["base"]["full"]["m@1"]


def evaluation(protocol, values):
  return Evaluation(protocol, np.array([0, 2], np.int32), np.array([4, 9]), values, {}, {})


def test_files_keep_users_who_do_not_count(tmp_path):
  path = tmp_path / "v.parquet"
  evaluations = {
    "full": evaluation("full", {"ndcg@10": np.float32([0.25, NAN]), "mrr@10": np.float32([1, 0])}),
    "judged": evaluation("judged", {"ndcg@10": np.float32([0.5, 0.75])}),
  }
  write_user_values(path, ("u", "v", "w"), evaluations, truth="abc")
  full, judged = read_user_values(path, system="s", part="p", seed=3)
  assert (full.protocol, full.user_ids, full.truth, full.seed) == ("full", ("u", "w"), "abc", 3)
  np.testing.assert_array_equal(full.values["ndcg@10"], [0.25, NAN])
  assert set(judged.values) == {"ndcg@10"} and list(judged.values["ndcg@10"]) == [0.5, 0.75]
  few = judged.below(9)
  assert few.protocol == "judged_below_9" and few.user_ids == ("u",)
  assert list(few.values["ndcg@10"]) == [0.5] and list(judged.below(5).training_ratings) == [4]
  assert not judged.below(4).user_ids


def test_a_file_that_does_not_say_how_many_ratings_there_were():
  with pytest.raises(InputError, match="below=5: the run x of u1 was made before"):
    run("x", [0.1]).below(5)


def test_other_files_are_refused(tmp_path):
  import pyarrow as pa
  import pyarrow.parquet as pq

  with pytest.raises(InputError, match="cannot be read"):
    read_user_values(tmp_path / "none.parquet", system="s", part="p", seed=0)
  (tmp_path / "bad.parquet").write_bytes(b"nothing")
  with pytest.raises(InputError, match="cannot be read"):
    read_user_values(tmp_path / "bad.parquet", system="s", part="p", seed=0)
  pq.write_table(pa.table({"user_id": ["1"]}), tmp_path / "foreign.parquet")
  with pytest.raises(InputError, match="not a file of metrics by user"):
    read_user_values(tmp_path / "foreign.parquet", system="s", part="p", seed=0)
