"""Errors that users read: names of arguments in messages, and lists that must be lists."""

import types

import numpy as np
import pytest
from helpers import evaluation as support

from gatrec_jax import evaluate, models
from gatrec_jax.errors import InputError, require_list
from gatrec_jax.explain import explain_items
from gatrec_jax.rerank.sources import _rows
from gatrec_jax.serve import recommend, recommend_to_new_user, score


@pytest.mark.parametrize("values", ["12", b"12", 12, 1.5, None])
def test_a_lone_value_is_refused_with_its_argument(values):
  with pytest.raises(InputError, match="must be a list") as caught:
    require_list(values, field="users")
  assert caught.value.field == "users" and caught.value.value == values


@pytest.mark.parametrize("values", [["12", 3], ("12", 3), iter(["12", 3]), {"12": 0, 3: 1}])
def test_any_iterable_is_a_list(values):
  assert require_list(values, field="users") == ["12", 3]


def test_arrays_are_lists():
  assert require_list(np.arange(3), field="users") == [0, 1, 2]


TRAIN = support.interactions([(0, 0, 5), (0, 1, 4), (1, 1, 5)], 2, 3)
RUN = types.SimpleNamespace(prepared=types.SimpleNamespace(interactions=TRAIN))
RANKING = {"train": TRAIN, "test": support.interactions([(0, 2, 5)], 2, 3)}


@pytest.mark.parametrize(
  ("field", "call"),
  [
    ("users", lambda: recommend(RUN, "u0")),
    ("users", lambda: score(RUN, "u0")),
    ("liked", lambda: recommend_to_new_user(RUN, "i0")),
    ("disliked", lambda: recommend_to_new_user(RUN, ["i0"], disliked="i1")),
    ("items", lambda: explain_items(None, 0, 3)),
    ("users", lambda: _rows("12", ("1", "2"))),
    ("users", lambda: models.fit("popularity", TRAIN).score(1)),
    ("users", lambda: models.fit("popularity", TRAIN).top_items(1)),
    ("ks", lambda: evaluate.full_ranking(np.array([[2]]), np.array([0]), ks=10, **RANKING)),
    ("ks", lambda: evaluate.judged_ranking(np.array([[2]]), np.array([0]), ks="10", **RANKING)),
  ],
)
def test_functions_refuse_a_lone_id_before_anything_else(field, call):
  with pytest.raises(InputError, match="must be a list") as caught:
    call()
  assert caught.value.field == field


def test_metrics_to_compare_are_a_list():
  run = evaluate.UserValues("a", "u1", 0, "full", ("1",), None, {"ndcg@10": np.ones(1)}, "x")
  with pytest.raises(InputError, match="metrics=ndcg@10: must be a list"):
    evaluate.compare_systems({"a": [run]}, reference="a", metrics="ndcg@10")


def test_a_message_is_one_line_of_bounded_length():
  error = InputError("a\nb\u2028c" + "x" * 5000, field="f\n" * 500, value="v\r" * 500)
  line = str(error)
  assert len(line.splitlines()) == 1 and len(line) < 2000 and "a b c" in line
  assert str(InputError("fine", field="top_n", value=3)) == "top_n=3: fine"
