"""Candidates: lists to re-rank, with their relevant items."""

import numpy as np
import pytest
from helpers.rerank_rows import prepared, rows

from gatrec_jax.data.feedback import Feedback
from gatrec_jax.errors import InputError
from gatrec_jax.rerank.candidates import Candidates, file_candidates, judged

ROWS = rows((0, 0, 5, 1), (0, 1, 5, 2), (0, 2, 2, 3), (1, 3, 4, 4), (1, 0, 3, 5))
DATA = prepared(ROWS, train=[0], test=[1, 2, 3, 4])
LISTS = np.array([[2, 1, 5, 3], [3, 6, -1, -1]], np.int32)
SCORES = np.array([[4, 3, 2, 1], [2, 1, -np.inf, -np.inf]], np.float32)


def lists(top=3):
  return judged(np.array([0, 1], np.int32), LISTS, SCORES, DATA.test, Feedback(), top=top)


def test_relevant_items_are_counted_in_and_outside_the_list():
  one = lists()
  assert one.hits.tolist() == [[False, True, False], [True, False, False]]
  assert one.num_relevant.tolist() == [1, 1]
  assert one.valid.tolist() == [[True] * 3, [True, True, False]]


def test_reordering_moves_only_candidates():
  one = lists()
  scores = np.array([[0, 0, 1], [1, 2, 9]], float)
  assert one.reordered(scores).tolist() == [[5, 2, 1, 3], [6, 3, -1, -1]]
  assert one.reordered(one.base).tolist() == LISTS.tolist()
  assert one.reordered(np.zeros((2, 3))).tolist() == LISTS.tolist()


def test_more_candidates_than_items_take_the_whole_list():
  assert lists(top=99).top == 4
  with pytest.raises(InputError, match="top_candidates=0"):
    lists(top=0)


def written(tmp_path, text):
  path = tmp_path / "lists.csv"
  path.write_text("user_id,item_id,rank\n" + text)
  return path


def test_lists_of_a_file_are_scored_by_rank(tmp_path):
  path = written(tmp_path, "u1,i3,2\nu1,i6,1\nu0,i1,7\n")
  one = file_candidates(path, DATA, top=2)
  assert one.users.tolist() == [0, 1] and one.lists.tolist() == [[1, -1], [6, 3]]
  assert one.scores.tolist() == [[1.0, -np.inf], [1.0, 0.5]]
  assert one.hits.tolist() == [[True, False], [False, True]]


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("u0,i0,1\n", "user u0 rated item i0 in training"),
    ("u0,i99,1\n", "row 1: item_id i99 is unknown"),
    ("nobody,i1,1\n", "row 1: user_id nobody is unknown"),
    ("u0,i1,1\nu0,i1,2\n", "row 2: item_id i1"),
  ],
)
def test_an_invalid_file_is_refused_in_one_line(tmp_path, text, message):
  with pytest.raises(InputError, match=message):
    file_candidates(written(tmp_path, text), DATA, top=2)


def test_values_follow_their_candidates_into_another_order():
  lists = file_like([[4, 7, 2, 9], [1, 3, -1, -1]])
  other = np.array([[9, 7, 4, 2], [3, 1, -1, -1]])
  values = np.array([[0.4, 0.7], [0.1, 0.3]])
  along = lists.along(other, values)
  np.testing.assert_array_equal(along, [[np.nan, 0.7, 0.4, np.nan], [0.3, 0.1, np.nan, np.nan]])


def file_like(items):
  items = np.array(items)
  return Candidates(
    np.arange(len(items)), items, np.zeros(items.shape), 2, items < 0, np.zeros(len(items))
  )
