"""Pretraining texts of the built-in re-ranker: from training ratings alone, with true answers."""

import json

import numpy as np
from helpers.rerank_rows import rows

from gatrec_jax.data.feedback import Feedback
from gatrec_jax.rerank.learning.pretraining_texts import pretraining_texts
from gatrec_jax.rerank.prompting.prompts import LABELS, RANK_LABELS, RANK_TITLES, RATE, YES_NO

TITLES = tuple(f"Title {n} (1999)" for n in range(30))
LIKED = {0: set(range(12)), 1: {20, 21, 22}}
TRAIN = rows(
  *[(0, item, 5, item) for item in sorted(LIKED[0])],
  *[(0, item, 1, item) for item in (14, 15)],
  *[(1, item, 4, item) for item in sorted(LIKED[1])],
  (1, 3, 3, 9),
  (2, 25, 5, 1),
  num_items=30,
)


def texts(rounds=60, train=TRAIN):
  return pretraining_texts(
    train,
    titles=TITLES,
    user_profiles=["calm", None, ""],
    item_profiles=["a drama"] + [None] * 29,
    feedback=Feedback(),
    rounds=rounds,
    seed=0,
  )


def history_of(text):
  """Indices of the titles in a history."""
  return [
    TITLES.index(line.partition(": ")[2])
    for line in text.splitlines()
    if line.startswith(("liked: ", "disliked: "))
  ]


def answered(mark):
  """(prompt, letters to titles, answer) of the texts with one kind of prompt."""
  for text in texts():
    if mark in text:
      prompt, _, answer = text.partition(mark)
      block = prompt.partition("Candidates\n")[2].splitlines()
      letters = dict(line.split(": ", 1) for line in block)
      yield prompt, {letter: TITLES.index(title) for letter, title in letters.items()}, answer


def liked_of(prompt):
  return LIKED[0] if "disliked" in prompt or set(history_of(prompt)) & LIKED[0] else LIKED[1]


def test_each_history_is_a_permutation_that_differs_between_rounds():
  histories = [text for text in texts() if "Candidates" not in text and "candidate" not in text]
  first = [tuple(history_of(text)) for text in histories if len(history_of(text)) == 14]
  assert len(first) == 60 and len(set(first)) == 60
  assert {frozenset(order) for order in first} == {frozenset(LIKED[0] | {14, 15})}
  assert histories[0] == "Profile\na drama\nHistory, oldest first\nliked: Title 0 (1999)\n"
  shares = np.mean(["Profile\ncalm" in text for text in histories if len(history_of(text)) == 14])
  assert 0.02 < shares < 0.45  # a fifth of sixty, give or take four standard deviations


def test_neutral_ratings_are_left_out():
  histories = [set(history_of(text)) for text in texts()]
  assert any(history & LIKED[1] for history in histories)
  assert all(history <= LIKED[1] for history in histories if history & LIKED[1])


def test_candidates_are_not_in_the_history():
  found = 0
  for mark in (RANK_TITLES, RANK_LABELS, RATE):
    for prompt, letters, _ in answered(mark):
      assert not set(letters.values()) & set(history_of(prompt))
      found += 1
  assert found > 10


def test_answers_list_liked_titles_first():
  for prompt, letters, answer in answered(RANK_TITLES):
    order = [TITLES.index(line.partition(": ")[2]) for line in answer.splitlines()]
    assert [line.partition(": ")[0] for line in answer.splitlines()] == [
      str(n) for n in range(1, len(order) + 1)
    ]
    assert sorted(order) == sorted(letters.values())
    good = [item in liked_of(prompt) for item in order]
    assert any(good) and good == sorted(good, reverse=True)
  for prompt, letters, answer in answered(RANK_LABELS):
    good = [letters[letter] in liked_of(prompt) for letter in answer.split()]
    assert sorted(answer.split()) == list(LABELS[: len(letters)])
    assert any(good) and good == sorted(good, reverse=True)


def test_ratings_separate_liked_titles_from_others():
  for prompt, letters, answer in answered(RATE):
    for letter, rating in json.loads(answer).items():
      assert (rating > 50) == (letters[letter] in liked_of(prompt))


def test_the_answer_is_yes_for_liked_titles():
  answers = set()
  for text in texts(200):
    if "candidate: " in text:
      prompt, _, rest = text.partition("candidate: ")
      item, answer = TITLES.index(rest.splitlines()[0]), rest.splitlines()[-1]
      assert answer in YES_NO and (answer == "yes") == (item in liked_of(prompt))
      assert item not in history_of(prompt)
      answers.add(answer)
  assert answers == set(YES_NO)


def test_a_user_with_one_rating_gets_no_prompt():
  only = rows((2, 25, 5, 1), num_items=30)
  assert all("andidate" not in text for text in texts(40, only))


def test_the_same_seed_gives_the_same_texts():
  assert texts(3) == texts(3)
