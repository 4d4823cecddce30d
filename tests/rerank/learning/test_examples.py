"""Training examples for re-ranking: what is drawn, and that no label leaks."""

import dataclasses

import numpy as np
import pytest
from helpers.rerank_rows import TITLES, rows
from helpers.tiny_reranker import tiny_reranker

from gatrec_jax.data.feedback import Feedback
from gatrec_jax.errors import InputError
from gatrec_jax.rerank.learning.examples import (
  ExampleSettings,
  names_title,
  ranking_examples,
  without_leaks,
)
from gatrec_jax.rerank.learning.finetune import split_lists
from gatrec_jax.rerank.learning.out_of_fold import TrainingLists
from gatrec_jax.rerank.prompting.prompts import LABELS, choice_prompt

HISTORY = rows((0, 0, 5, 1), (0, 1, 2, 2), (1, 2, 4, 1), (2, 7, 5, 1))
LISTS = TrainingLists(
  users=np.array([0, 1], np.int32),
  items=np.array([[2, 3, 4, 5], [0, 1, 3, -1]], np.int32),
  relevant=np.array([[False, True, False, True], [True, False, False, False]]),
  history=HISTORY,
  profiles=[None, None, None],
)


@pytest.fixture(scope="module")
def model():
  return tiny_reranker(TITLES)


def examples(model, epoch=0, lists=(LISTS,), **settings):
  return ranking_examples(
    model,
    lists,
    epoch,
    titles=TITLES,
    feedback=Feedback(),
    settings=ExampleSettings(**{"top": 4, **settings}),
  )


def read(model, example):
  """The titles of an example's candidates and whether each is relevant."""
  text = model.tokenizer.decode(example.prompt)
  block = text.partition("Candidates\n")[2].splitlines()[: len(example.labels)]
  return [line.partition(": ")[2] for line in block], [
    relevance > 0 for relevance in example.relevance
  ]


def test_candidates_are_those_of_the_list_with_their_relevance(model):
  for epoch in range(5):
    for row, example in enumerate(examples(model, epoch)):
      titles, relevance = read(model, example)
      truth = {
        TITLES[item]: bool(good)
        for item, good in zip(LISTS.items[row], LISTS.relevant[row], strict=True)
        if item >= 0
      }
      assert dict(zip(titles, relevance, strict=True)) == truth
      letters = model.tokenizer.decode(example.labels)
      assert letters == LABELS[: len(titles)]


def test_short_lists_keep_a_positive_and_vary(model):
  seen = set()
  for epoch in range(60):
    titles, relevance = read(model, examples(model, epoch, top=2)[0])
    assert len(titles) == 2 and any(relevance)
    seen.add(frozenset(titles))
  assert len(seen) == 5  # both positives, or one of two with one of two negatives


def test_the_position_of_a_positive_is_uniform(model):
  places = np.zeros(3)
  for epoch in range(600):
    _, relevance = read(model, examples(model, epoch)[1])
    places[relevance.index(True)] += 1
  assert abs(places / 600 - 1 / 3).max() < 0.08  # four standard deviations


def test_draws_differ_between_epochs_and_are_reproducible(model):
  assert examples(model, 3) == examples(model, 3)
  assert examples(model, 3) != examples(model, 4)
  assert examples(model, 3) != examples(model, 3, seed=1)


def test_each_task_has_its_labels(model):
  yes, no = model.tokenizer("yes\nno", add_special_tokens=False)["input_ids"][::2]
  answers = set()
  for epoch in range(20):
    for example in examples(model, epoch, shares={"pointwise": 1.0}):
      assert example.labels == [yes, no] and sorted(example.relevance) == [0.0, 1.0]
      answers.add(tuple(example.relevance))
    for example in examples(model, epoch, shares={"pairwise": 1.0}):
      assert len(example.labels) == 2 and sorted(example.relevance) == [0.0, 1.0]
  assert len(answers) == 2


def test_a_history_longer_than_the_context_is_shortened(model):
  short = dataclasses.replace(model, config=dataclasses.replace(model.config, context=60))
  long = rows(*[(1, item, 5, item) for item in (2, 4, 5, 6, 7)])
  part = dataclasses.replace(
    LISTS, history=long, users=LISTS.users[1:], items=LISTS.items[1:], relevant=LISTS.relevant[1:]
  )
  (example,) = examples(short, lists=[part])
  whole = len(examples(model, lists=[part])[0].prompt)
  assert len(example.prompt) <= 60 < whole
  assert len(read(short, example)[0]) == 3


def test_a_held_out_positive_in_the_history_is_refused():
  leaking = dataclasses.replace(LISTS, history=rows((0, 3, 5, 1)))
  with pytest.raises(InputError, match=r"user u0: 'Title D \(1993\)' is both in the history"):
    without_leaks(leaking, TITLES)


def test_a_profile_that_names_a_held_out_positive_is_left_out():
  profiles = ["Adored Title F above all.", "Adored Title F, too.", None]
  kept = without_leaks(dataclasses.replace(LISTS, profiles=profiles), TITLES).profiles
  assert kept == [None, "Adored Title F, too.", None]  # only the first user has F as a positive


def test_a_single_word_is_not_taken_for_a_title():
  assert not names_title("The heat of summer. Heat.", "Heat (1995)")
  assert names_title("Loves Star Wars.", "Star Wars (1977)")
  assert not names_title("Loves Star Warships.", "Star Wars (1977)")


def test_validation_users_are_not_trained_on():
  many = dataclasses.replace(
    LISTS,
    users=np.arange(100, dtype=np.int32),
    items=np.zeros((100, 2), np.int32),
    relevant=np.ones((100, 2), bool),
    history=rows((0, 0, 5, 1), num_users=100),
  )
  training, validation = split_lists([many, many], share=0.05, seed=0)
  assert [len(part.users) for part in training + validation] == [95, 95, 5, 5]
  assert not set(training[0].users) & set(validation[1].users)
  assert set(validation[0].users) == set(validation[1].users)


def test_invalid_settings_are_refused():
  with pytest.raises(InputError, match="top_candidates=1"):
    ExampleSettings(top=1)
  with pytest.raises(InputError, match="top_candidates=53"):
    ExampleSettings(top=53)
  with pytest.raises(InputError, match="label, pairwise, pointwise"):
    ExampleSettings(shares={"listwise": 1.0})


def test_the_prompt_equals_the_one_at_inference(model):
  example = examples(model)[1]
  titles, _ = read(model, example)
  from gatrec_jax.rerank.prompting.prompts import Context

  expected = choice_prompt(Context(history=((TITLES[2], True),)), titles)
  assert model.tokenizer.decode(example.prompt, skip_special_tokens=True) == expected
