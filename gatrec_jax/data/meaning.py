"""What the values of a table of interactions mean, found out from the values and said in a line."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from gatrec_jax.data.duplicates import RULES
from gatrec_jax.data.feedback import Feedback
from gatrec_jax.errors import InputError
from gatrec_jax.sharding.peers import ALONE, Peers, sum_of

KINDS = ("auto", "stars", "implicit", "counts", "events")
EVENT_WEIGHTS: Mapping[str, float] = MappingProxyType(
  {
    **dict.fromkeys(("view", "views", "viewed", "click", "clicks", "impression", "play"), 1.0),
    **dict.fromkeys(("wishlist", "favorite", "fav", "bookmark", "like", "share"), 2.0),
    **dict.fromkeys(("cart", "addtocart", "add_to_cart", "add-to-cart", "basket"), 3.0),
    **dict.fromkeys(("purchase", "buy", "bought", "order", "transaction", "checkout"), 5.0),
    **dict.fromkeys(("remove", "removefromcart", "remove_from_cart"), 0.0),
    **dict.fromkeys(("dislike", "return", "refund"), -1.0),
  }
)
"""Weights of events whose names leave no doubt; 0 leaves an event out, below 0 is a dislike."""

_TOPS = (1.0, 2.0, 5.0, 10.0, 20.0, 100.0)  # of the scales in use
_RARE_TOPS = (3.0, 4.0, 6.0, 7.0)  # of others, if so many ratings show no higher one
_ENOUGH = 200
_LIKED, _DISLIKED = 0.8, 0.4  # of the top: 4 and 2 of five stars
_SPREAD_TYPES = {"values": "float64", "counts": "int64"}
_DEFAULT_RULES = {"stars": "last", "implicit": "last", "counts": "sum", "events": "strongest"}


@dataclasses.dataclass(frozen=True)
class Reading:
  """What the user says about the values; everything else is found out.

  Attributes:
    kind: one of `KINDS`.
    positive_threshold, negative_threshold: None = suggested by the scale.
    zeros_are_ratings: a 0 beside other values is a rating, not "not rated".
    duplicates: a rule of `data.duplicates`; "auto" = the one that suits the kind.
    event_weights: (event, weight) pairs; () = `EVENT_WEIGHTS`.
    is_of_run: the rows are added to a run, whose weights of events cannot change.

  Raises: InputError: no such kind or rule.
  """

  kind: str = "auto"
  positive_threshold: float | None = None
  negative_threshold: float | None = None
  zeros_are_ratings: bool = False
  duplicates: str = "auto"
  event_weights: tuple[tuple[str, float], ...] = ()
  is_of_run: bool = False

  def __post_init__(self) -> None:
    for field, value, words in (
      ("feedback", self.kind, KINDS),
      ("duplicates", self.duplicates, ("auto", *RULES)),
    ):
      if value not in words:
        raise InputError(f"must be one of {', '.join(words)}", field=field, value=value)


@dataclasses.dataclass(frozen=True)
class Meaning:
  """What R rows mean.

  Attributes:
    rating: [R] float64 ratings, counts or weights of events.
    kept: [R] bool, rows that are interactions; the others say "not rated".
    feedback: which ratings are likes and dislikes.
    duplicates: the rule for several rows of one pair.
    source: what the values are, for the sentence, such as "stars of column 'rating' (1 to 5)".
    unrated: number of zeros taken as "not rated".
  """

  rating: np.ndarray
  kept: np.ndarray
  feedback: Feedback
  duplicates: str
  source: str
  unrated: int = 0


def find_meaning(
  values: np.ndarray | None,
  *,
  num_rows: int,
  has_repeats: bool,
  name: str = "",
  is_count_name: bool = False,
  reading: Reading = Reading(),  # noqa: B008 - frozen
  peers: Peers = ALONE,
) -> Meaning:
  """The meaning of ratings or counts, or of rows without any.

  Args:
    values: [R] float64; None without such a column.
    num_rows: R.
    has_repeats: whether a user has several rows with one item, in any process.
    name: of the column. is_count_name: it is the name of a count, such as `plays`.
    reading: what the user says.
    peers: processes with further rows of the same meaning.
  Raises:
    InputError: values that may be ratings as well as counts, negative counts, or thresholds that do
      not suit the scale.
  """
  if reading.kind in ("implicit", "counts", "events"):
    _refuse_thresholds(reading)
  if values is None and reading.kind == "stars":
    raise InputError("there is no column of ratings; name it", field="rating_column")
  spread = None if values is None else _spread_of(values, peers)
  if values is None or reading.kind == "implicit":
    return _without_values(values, spread, num_rows, has_repeats, name, reading)
  known = spread if reading.zeros_are_ratings else spread.without_zeros()
  kind = reading.kind
  if kind == "auto":
    kind = _kind_of(known, name, is_count_name, reading)
  if kind == "implicit":
    return _without_values(values, spread, num_rows, has_repeats, name, reading)
  unrated = 0 if reading.zeros_are_ratings else spread.zeros
  if kind == "counts":
    if (spread.values < 0).any():
      raise InputError(
        f"column {name!r} holds negative numbers (lowest {spread.values[0]:g}), which are not "
        "counts; use `feedback=stars`",
        field="feedback",
        value=reading.kind,
      )
    rule = _rule(reading, "counts")
    source = f"counts of column {name!r} ({_range(known)})"
    feedback = Feedback(1.0, 0.0, "counts")
    return Meaning(values, values > 0, feedback, rule, source, spread.zeros)
  kept = np.ones(num_rows, bool) if reading.zeros_are_ratings else values != 0
  feedback = _stars(known, name, reading)
  source = f"ratings of column {name!r} ({_range(known)})"
  return Meaning(values, kept, feedback, _rule(reading, "stars"), source, unrated)


def _refuse_thresholds(reading: Reading) -> None:
  for field in ("positive_threshold", "negative_threshold"):
    if (value := getattr(reading, field)) is not None:
      raise InputError(
        f"`feedback={reading.kind}` has no thresholds; `feedback=stars` has",
        field=field,
        value=f"{value:g}",
      )


def meaning_of_events(
  codes: np.ndarray,
  events: list[str],
  *,
  name: str,
  reading: Reading = Reading(),  # noqa: B008
  peers: Peers = ALONE,
) -> Meaning:
  """The meaning of rows of events.

  Args: codes: [R] int, positions in `events`. name: of the column. reading: what the user says.
    peers: processes with further rows of these events.
  Raises: InputError: an event without a weight.
  """
  _refuse_thresholds(dataclasses.replace(reading, kind="events"))
  given = {event.strip().casefold(): weight for event, weight in reading.event_weights}
  weights = given or EVENT_WEIGHTS
  counts = sum_of(peers, np.bincount(codes, minlength=len(events)))
  unknown = [
    f"{event} ({counts[i]:,})"
    for i, event in enumerate(events)
    if counts[i] and event.strip().casefold() not in weights
  ]
  if unknown:
    raise InputError(
      f"column {name!r} holds events without a weight: {', '.join(unknown[:10])}; "
      + _advice_on_weights(events, weights, reading),
      field="event_weights",
    )
  weight = np.array([weights.get(event.strip().casefold(), 0.0) for event in events], np.float64)
  listed = ", ".join(
    f"{counts[i]:,} {events[i]} (weight {weight[i]:g})"
    for i in np.argsort(weight, kind="stable")
    if counts[i]
  )
  rating = weight[codes]
  source = f"events of column {name!r}: {listed}"
  rule = _rule(reading, "events")
  return Meaning(rating, rating != 0, Feedback(1.0, 0.0, "events"), rule, source)


def _advice_on_weights(
  events: Sequence[str], weights: Mapping[str, float], reading: Reading
) -> str:
  if reading.is_of_run:
    return (
      "the run has none for them, so leave these rows out, or give launch.train every event's "
      "weight by --event_weights"
    )
  known = {event: weights.get(event.strip().casefold()) for event in events[:10]}
  example = ",".join(f"{name}:{'?' if own is None else f'{own:g}'}" for name, own in known.items())
  return f"give every event one: {example} (0 leaves an event out, below 0 is a dislike)"


def sentence(meaning: Meaning, rating: np.ndarray, merged: int, peers: Peers = ALONE) -> str:
  """One line about what was understood.

  Args: rating: [n] of the rows that remain. merged: rows that went into others of the same pair, in
    any process. peers: processes with further rows.
  """
  feedback = meaning.feedback
  own = feedback.liked(rating).sum(), feedback.disliked(rating).sum(), len(rating)
  likes, dislikes, rows = sum_of(peers, own)
  parts = [f"{likes:,} likes"]
  if feedback.kind == "stars":
    parts = [
      f"{likes:,} likes (≥ {feedback.positive_threshold:g})",
      f"{dislikes:,} dislikes (≤ {feedback.negative_threshold:g})",
      f"{rows - likes - dislikes:,} neutral",
    ]
  elif dislikes:
    parts.append(f"{dislikes:,} dislikes")
  elif feedback.kind == "counts":
    parts.append("none disliked, more relevance for higher counts (logarithmic)")
  if meaning.unrated:
    parts.append(f"{meaning.unrated:,} zeros taken as 'not rated' (otherwise zero_means=rating)")
  if merged:
    parts.append(f"{merged:,} repeated rows merged (duplicates={meaning.duplicates})")
  return f"{meaning.source}: {', '.join(parts)}"


@dataclasses.dataclass(frozen=True)
class _Spread:
  """How often each value occurs in a column.

  Attributes: values: [N] float64, distinct and ascending. counts: [N] int64.
  """

  values: np.ndarray
  counts: np.ndarray

  @property
  def zeros(self) -> int:
    return int(self.counts[self.values == 0].sum())

  def without_zeros(self) -> _Spread:
    kept = self.values != 0
    return _Spread(self.values[kept], self.counts[kept])

  def share(self, which: np.ndarray) -> float:
    """The share of the rows whose value is one of `which` [N] bool."""
    return float(self.counts[which].sum() / self.counts.sum())

  def median(self) -> float:
    ends = np.cumsum(self.counts)
    middle = [(ends[-1] - 1) // 2, ends[-1] // 2]
    return float(self.values[np.searchsorted(ends, middle, side="right")].mean())


def _spread_of(values: np.ndarray, peers: Peers) -> _Spread:
  """Of the values [R] of all processes."""
  import pyarrow as pa
  import pyarrow.compute as pc

  counted = pc.value_counts(pa.array(values))
  columns = {name: counted.field(name).cast(kind) for name, kind in _SPREAD_TYPES.items()}
  tables = peers.gather(pa.table(columns))
  found = [np.concatenate([table[name].to_numpy() for table in tables]) for name in columns]
  distinct, place = np.unique(found[0], return_inverse=True)  # 0 and -0 are one value
  counts = np.zeros(len(distinct), np.int64)
  np.add.at(counts, place, found[1])
  return _Spread(distinct, counts)


def _without_values(
  values: np.ndarray | None,
  spread: _Spread | None,
  num_rows: int,
  has_repeats: bool,
  name: str,
  reading: Reading,
) -> Meaning:
  """Every row is a like; where pairs repeat, how often they do is a count."""
  ones, unrated = np.ones(num_rows), 0
  if values is None:
    kept, source = ones > 0, "implicit feedback, since there is no rating column"
  else:
    kept = ones > 0 if reading.zeros_are_ratings else values != 0
    unrated = 0 if reading.zeros_are_ratings else spread.zeros
    source = f"implicit feedback (column {name!r} is not read)"
    if reading.kind != "implicit":
      source = f"implicit feedback, since column {name!r} is always {spread.values[-1]:g}"
  counted = reading.kind == "counts" or (
    has_repeats and reading.kind == "auto" and reading.duplicates in ("auto", "count", "sum")
  )
  if counted:
    rule = "count" if reading.duplicates == "auto" else reading.duplicates
    source += "; repeated rows are counted"
    return Meaning(ones, kept, Feedback(1.0, 0.0, "counts"), rule, source, unrated)
  rule = _rule(reading, "implicit")
  return Meaning(ones, kept, Feedback(1.0, 0.0, "implicit"), rule, source, unrated)


def _rule(reading: Reading, kind: str) -> str:
  return _DEFAULT_RULES[kind] if reading.duplicates == "auto" else reading.duplicates


def _range(spread: _Spread) -> str:
  values = spread.values
  return f"{values[0]:g} to {values[-1]:g}" if len(values) else "all 0"


def _kind_of(spread: _Spread, name: str, is_count_name: bool, reading: Reading) -> str:
  """Stars, implicit or counts. Raises InputError where it may be either."""
  values = spread.values
  if not len(values) or (values == 1).all():
    return "implicit"
  if reading.positive_threshold is not None or reading.negative_threshold is not None:
    return "stars"
  if (values < 0).any():
    return "stars"
  if is_count_name:
    return "counts"
  top, bottom, median = values[-1], values[0], spread.median()
  ones, twos, threes = (spread.share(values == number) for number in (1, 2, 3))
  whole = bool((values == np.floor(values)).all())
  # Counts pile up at their low end; nobody's stars do.
  piled = median <= bottom + 0.15 * (top - bottom)
  if top <= 10:
    falls = ones >= 0.5 and ones >= twos >= threes
    if not (whole and falls and top > 2):
      return "stars"
  elif piled and (top > 100 or not whole):
    return "counts"
  elif not piled and top in (20.0, 100.0):
    return "stars"
  raise InputError(
    f"column {name!r} ({_range(spread)}, median {median:g}, {ones:.0%} are 1) "
    "may hold ratings or counts; say `feedback=stars` (with `positive_threshold` and "
    "`negative_threshold` if likes do not begin at four fifths of the scale) or `feedback=counts`",
    field="feedback",
    value="auto",
  )


def _stars(spread: _Spread, name: str, reading: Reading) -> Feedback:
  """Thresholds as given, else four and two fifths of the scale."""
  values = spread.values
  suggested = suggested_thresholds(values, size=int(spread.counts.sum()))
  high, low = reading.positive_threshold, reading.negative_threshold
  if high is not None and len(values):
    liked, top = spread.share(values >= high), values[-1]
    if liked == 0 or (liked > 0.95 and high < top / 6 and values[0] != top):
      what = "none" if liked == 0 else f"{liked:.0%}"
      raise InputError(
        f"{what} of the ratings of column {name!r} ({_range(spread)}) reach it; on this scale "
        f"likes would begin at {suggested[0]:g} and dislikes end at {suggested[1]:g}",
        field="positive_threshold",
        value=f"{high:g}",
      )
  if low is None:
    # Of a threshold that was given, half: as two fifths are of four.
    low = suggested[1] if high is None or suggested[1] < high else high / 2
  return Feedback(suggested[0] if high is None else high, low, "stars")


def suggested_thresholds(values: np.ndarray, *, size: int | None = None) -> tuple[float, float]:
  """Where likes begin and dislikes end: four and two fifths of the scale of `values` [R].

  A scale ends at the first of 1, 2, 5, 10, 20, 100 that no value exceeds, or at 3, 4, 6 or 7 if
  that is the highest of many values; it begins at 0, or below it at the lowest value.

  Args: size: how many values there are; None = those of `values`, which otherwise are the distinct
    ones.

  >>> suggested_thresholds(np.array([1.0, 3.0, 5.0])), suggested_thresholds(np.array([7.5, 10.0]))
  ((4.0, 2.0), (8.0, 4.0))
  """
  if not len(values):
    return 4.0, 2.0
  size = len(values) if size is None else size
  highest, lowest = float(values.max()), min(float(values.min()), 0.0)
  top = next((top for top in _TOPS if highest <= top), highest)
  if highest in _RARE_TOPS and size >= _ENOUGH and (values != highest).any():
    top = highest
  if lowest < 0:
    top = max(highest, 0.0)
  span = top - lowest
  return round(lowest + _LIKED * span, 6), round(lowest + _DISLIKED * span, 6)
