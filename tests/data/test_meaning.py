"""What values mean: kinds, thresholds, zeros, events, and the sentence that says so."""

import numpy as np
import pytest

from gatrec_jax.data.meaning import (
  Reading,
  find_meaning,
  meaning_of_events,
  sentence,
  suggested_thresholds,
)
from gatrec_jax.errors import InputError


def find(values, *, name="rating", counts=False, **reading):
  values = None if values is None else np.array(values, float)
  return find_meaning(
    values,
    num_rows=4 if values is None else len(values),
    has_repeats=False,
    name=name,
    is_count_name=counts,
    reading=Reading(**reading),
  )


STARS = [1, 2, 3, 4, 5, 4, 5, 3]
PLAYS = [1, 1, 2, 1, 5, 250, 1, 17]


@pytest.mark.parametrize(
  ("values", "options", "kind"),
  [
    (STARS, {}, "stars"),
    ([0.5, 4.5, 3], {}, "stars"),
    ([1, 1, 1], {}, "implicit"),
    ([0, 1, 0, 1], {}, "implicit"),
    ([5, 5, 5], {}, "stars"),
    ([-1, 1, -1], {}, "stars"),
    ([8, 9, 10, 3], {}, "stars"),
    ([70, 88, 100, 55], {}, "stars"),
    (PLAYS, {}, "counts"),
    ([1, 2, 1, 3], {"counts": True, "name": "plays"}, "counts"),
    ([0.2, 1.5, 0.1, 90.5, 0.7], {}, "counts"),  # hours
    (STARS, {"kind": "counts"}, "counts"),
    (STARS, {"kind": "implicit"}, "implicit"),
    (PLAYS, {"kind": "stars"}, "stars"),
    ([10, 70, 100, 33], {"positive_threshold": 60, "negative_threshold": 40}, "stars"),
    (None, {}, "implicit"),
    (None, {"kind": "counts"}, "counts"),
  ],
)
def test_kinds(values, options, kind):
  assert find(values, **options).feedback.kind == kind


@pytest.mark.parametrize(
  "values",
  [
    [1, 1, 1, 2, 1, 3],  # plays as well as low stars
    [1, 1, 2, 1, 37, 2, 1, 1],  # piled up, but below 100
    [200, 500, 800, 300],
    [12, 15, 18, 11],
  ],
)
def test_a_doubt_is_a_question(values):
  with pytest.raises(InputError, match="feedback=auto: .*'rating'.*`feedback=stars`.*`feedback=co"):
    find(values)


@pytest.mark.parametrize(
  ("values", "thresholds"),
  [
    ([1, 3, 5], (4, 2)),
    ([0.5, 5], (4, 2)),
    ([1, 4], (4, 2)),  # few ratings need not show the top of their scale
    ([1, 2, 3, 4] * 50, (3.2, 1.6)),
    ([1, 10], (8, 4)),
    ([3, 100], (80, 40)),
    ([1, 250], (200, 100)),
    ([-10, 10], (6, -2)),
    ([-1, 1], (0.6, -0.2)),
    ([0, 1], (0.8, 0.4)),
    ([], (4, 2)),
  ],
)
def test_suggested_thresholds(values, thresholds):
  assert suggested_thresholds(np.array(values, float)) == pytest.approx(thresholds)


def test_counts_are_never_dislikes_and_their_relevance_grows_with_the_logarithm():
  meaning = find(PLAYS)
  feedback = meaning.feedback
  rating = np.array(PLAYS, np.float32)
  assert meaning.duplicates == "sum"
  assert feedback.liked(rating).all() and not feedback.disliked(rating).any()
  relevance = feedback.relevance(rating)
  # The 99th percentile of these eight is the second largest value, 17.
  assert relevance[5] == relevance[7] == 1
  np.testing.assert_allclose(relevance[0], 0.25 + 0.75 * np.log(2) / np.log(18), rtol=1e-6)
  assert (np.diff(relevance[np.argsort(rating)]) >= 0).all()


def test_half_of_a_threshold_that_is_far_from_the_scale_s():
  feedback = find([10, 70, 500, 33], positive_threshold=30).feedback
  assert (feedback.positive_threshold, feedback.negative_threshold) == (30, 15)
  assert find(STARS, positive_threshold=3).feedback.negative_threshold == 2


def test_zeros_are_not_ratings_unless_said():
  meaning = find([0, 8, 0, 3, 10])
  assert meaning.kept.tolist() == [False, True, False, True, True]
  assert (meaning.unrated, meaning.feedback.positive_threshold) == (2, 8)
  meaning = find([0, 8, 0, 3, 10], zeros_are_ratings=True)
  assert meaning.kept.all() and meaning.unrated == 0
  assert meaning.feedback.disliked(meaning.rating).tolist() == [True, False, True, True, False]
  meaning = find([0, 1, 0, 1], zeros_are_ratings=True)
  assert meaning.feedback.disliked(meaning.rating).tolist() == [True, False, True, False]


@pytest.mark.parametrize(
  ("values", "reading", "message"),
  [
    ([10, 70, 100, 33], {"positive_threshold": 4}, "positive_threshold=4: 100% .*begin at 80"),
    (STARS, {"positive_threshold": 50}, "positive_threshold=50: none .*begin at 4 and .* end at 2"),
    ([1, -2], {"kind": "counts"}, "feedback=counts: .*negative numbers .lowest -2"),
    (PLAYS, {"kind": "counts", "positive_threshold": 3}, "positive_threshold=3: `feedback=counts`"),
    (STARS, {"negative_threshold": 4.5}, "negative_threshold=4.5: must lie below"),
  ],
)
def test_implausible_settings_stop_with_a_suggestion(values, reading, message):
  with pytest.raises(InputError, match=message):
    find(values, **reading)


def test_repeated_rows_without_values_are_counted():
  def repeated(**reading):
    return find_meaning(None, num_rows=3, has_repeats=True, reading=Reading(**reading))

  assert (repeated().feedback.kind, repeated().duplicates) == ("counts", "count")
  assert repeated(kind="implicit").feedback.kind == "implicit"
  assert (repeated(duplicates="first").feedback.kind, repeated(duplicates="first").duplicates) == (
    "implicit",
    "first",
  )


def test_events():
  codes = np.array([0, 1, 2, 0, 3])
  events = ["view", "Cart", "purchase", "refund", "never"]
  meaning = meaning_of_events(codes, events, name="event")
  assert meaning.rating.tolist() == [1, 3, 5, 1, -1] and meaning.duplicates == "strongest"
  feedback = meaning.feedback
  assert feedback.disliked(meaning.rating).tolist() == [False] * 4 + [True]
  np.testing.assert_allclose(feedback.relevance(meaning.rating), [0.2, 0.6, 1, 0.2, 0.05])
  given = Reading(event_weights=(("view", 0), ("cart", 2), ("purchase", 4), ("refund", 1)))
  meaning = meaning_of_events(codes, events, name="event", reading=given)
  assert meaning.rating.tolist() == [0, 2, 4, 0, 1]
  assert meaning.kept.tolist() == [False, True, True, False, True]


def test_an_unknown_event_is_named():
  with pytest.raises(
    InputError,
    match=r"event_weights: .*'what' .*: gaze .2., nod .1.;.*: view:1,gaze:\?,nod:\? .0 l",
  ):
    meaning_of_events(np.array([0, 1, 1, 2]), ["view", "gaze", "nod"], name="what")


def test_stars_need_a_column_and_words_are_checked():
  with pytest.raises(InputError, match="rating_column: there is no column of ratings"):
    find(None, kind="stars")
  with pytest.raises(InputError, match="feedback=hearts: must be one of auto, stars"):
    Reading(kind="hearts")
  with pytest.raises(InputError, match="duplicates=newest: must be one of auto, last"):
    Reading(duplicates="newest")


def test_sentences():
  meaning = find([0, 8, 0, 3, 10, 6], name="Book-Rating")
  rating = meaning.rating[meaning.kept]
  assert sentence(meaning, rating, 0) == (
    "ratings of column 'Book-Rating' (3 to 10): 2 likes (≥ 8), 1 dislikes (≤ 4), 1 neutral, "
    "2 zeros taken as 'not rated' (otherwise zero_means=rating)"
  )
  meaning = find(PLAYS, name="plays", counts=True)
  assert sentence(meaning, meaning.rating, 1234) == (
    "counts of column 'plays' (1 to 250): 8 likes, none disliked, more relevance for higher counts "
    "(logarithmic), 1,234 repeated rows merged (duplicates=sum)"
  )
  meaning = meaning_of_events(np.array([1, 0, 1]), ["buy", "view"], name="event")
  assert sentence(meaning, meaning.rating, 0) == (
    "events of column 'event': 2 view (weight 1), 1 buy (weight 5): 3 likes"
  )
