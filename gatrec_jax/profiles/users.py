"""User profiles built without a language model, from training interactions or a list of items."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gatrec_jax.data.feedback import Feedback
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.data.nouns import ITEM, kind_of, plural, tells_a_story
from gatrec_jax.profiles.builder import listing
from gatrec_jax.profiles.schema import Profile

if TYPE_CHECKING:
  import scipy.sparse

# Shares of terms are smoothed toward the catalog's, as if a history had this many more items.
_PRIOR_ITEMS = 5.0
_USERS_PER_CHUNK = 2048


@dataclasses.dataclass(frozen=True)
class _Terms:
  """Terms of one kind.

  Attributes: names: [T]. table: [I, T] sparse 0/1, the items' terms. share: [T] float64, how often
    training interactions are with items that have the term.
  """

  names: tuple[str, ...]
  table: scipy.sparse.csr_matrix
  share: np.ndarray


@dataclasses.dataclass(frozen=True)
class TasteVocabulary:
  """The terms of the catalog's profiles, and their shares in training interactions.

  Attributes: noun: what an item is called.
  """

  genres: _Terms
  tags: _Terms
  noun: str


def taste_vocabulary(
  train: Interactions, item_profiles: Sequence[Profile | None], *, noun: str = ITEM
) -> TasteVocabulary:
  """The vocabulary of user profiles. Tags that equal an item's title are left out.

  Args: train: all training interactions. item_profiles: [I]. noun: what an item is called.
  """
  times = np.bincount(train.item, minlength=train.num_items)
  titles = {p.name.casefold() for p in item_profiles if p is not None and p.name}
  profiles = [p if p is not None else Profile() for p in item_profiles]
  return TasteVocabulary(
    genres=_terms_of([p.genres for p in profiles], times, frozenset()),
    tags=_terms_of([p.tags for p in profiles], times, titles),
    noun=noun,
  )


def _terms_of(
  item_terms: Sequence[Sequence[str]], times: np.ndarray, excluded: set[str] | frozenset[str]
) -> _Terms:
  names: dict[str, str] = {}
  for terms in item_terms:
    for term in terms:
      if term.casefold() not in excluded:
        names.setdefault(term.casefold(), term)
  index = {key: t for t, key in enumerate(sorted(names))}
  own = [
    {index[key] for term in terms if (key := term.casefold()) in index} for terms in item_terms
  ]
  rows = np.repeat(np.arange(len(own)), np.array(list(map(len, own)), np.int64))
  columns = np.fromiter(itertools.chain.from_iterable(own), np.int64)
  table = _ones(rows, columns, shape=(len(item_terms), len(index)))
  share = (times @ table + 1.0) / (times.sum() + 1.0)
  return _Terms(tuple(names[key] for key in sorted(names)), table, share)


def build_user_profiles(
  train: Interactions,
  item_profiles: Sequence[Profile | None],
  *,
  feedback: Feedback,
  noun: str = ITEM,
  recent: int | None = None,
) -> list[Profile | None]:
  """Builds a profile per user from training interactions alone, without titles or people's names.

  Genres and tags are those that are overrepresented in the liked items, compared with the catalog.
  Dislikes are those that are overrepresented in the disliked items, compared with the catalog and
  with the liked items.

  Args:
    train: training interactions. item_profiles: [I], built or parsed.
    feedback: which ratings count as liked and as disliked.
    noun: what an item is called.
    recent: how many of the latest liked and disliked interactions count; None for all.
  Returns:
    [U] profiles, None for users without positives or whose liked items have no terms.
  """
  if not any(profile and (profile.genres or profile.tags) for profile in item_profiles):
    return [None] * train.num_users
  vocabulary = taste_vocabulary(train, item_profiles, noun=noun)
  liked = _history(train, feedback.liked(train.rating), recent)
  disliked = _history(train, feedback.disliked(train.rating), recent)
  profiles: list[Profile | None] = []
  for first in range(0, train.num_users, _USERS_PER_CHUNK):
    part = slice(first, first + _USERS_PER_CHUNK)
    profiles += _profiles_of(liked[part], disliked[part], vocabulary)
  return profiles


def user_profile_from_items(
  liked: np.ndarray, disliked: np.ndarray, *, vocabulary: TasteVocabulary
) -> Profile | None:
  """The profile of a user given by items; equals that of `build_user_profiles` for these items.

  Args: liked: [n] and disliked: [m] int item indices. vocabulary: of the training part.
  """
  num_items = vocabulary.genres.table.shape[0]
  rows = [_one_row(np.asarray(items, np.int64), num_items) for items in (liked, disliked)]
  return _profiles_of(*rows, vocabulary)[0]


def _one_row(items: np.ndarray, num_items: int) -> scipy.sparse.csr_matrix:
  items = np.unique(items)
  return _ones(np.zeros(len(items), np.int64), items, shape=(1, num_items))


def _history(
  train: Interactions, chosen: np.ndarray, recent: int | None
) -> scipy.sparse.csr_matrix:
  """[U, I] sparse 0/1 of the chosen interactions, the latest `recent` of each user."""
  rows = np.flatnonzero(chosen)
  if recent is not None:
    # Equal times are ordered by item index, so that the order of rows does not matter.
    rows = rows[np.lexsort((train.item[rows], -train.timestamp[rows], train.user[rows]))]
    user = train.user[rows]
    starts = np.searchsorted(user, user, side="left")
    rows = rows[np.arange(len(rows)) - starts < recent]
  return _ones(train.user[rows], train.item[rows], shape=(train.num_users, train.num_items))


def _ones(
  rows: np.ndarray, columns: np.ndarray, *, shape: tuple[int, int]
) -> scipy.sparse.csr_matrix:
  """A sparse matrix of `shape` with 1 added at each of the n positions (`rows`, `columns`)."""
  import scipy.sparse

  return scipy.sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)


def _profiles_of(
  liked: scipy.sparse.csr_matrix, disliked: scipy.sparse.csr_matrix, vocabulary: TasteVocabulary
) -> list[Profile | None]:
  """One profile per row of the histories, both [B, I]."""
  genres, avoided_genres = _salient(
    liked, disliked, vocabulary.genres, most=5, least=2, most_avoided=4, avoided_in=1
  )
  tags, avoided_tags = _salient(
    liked, disliked, vocabulary.tags, most=15, least=3, most_avoided=8, avoided_in=2
  )
  return [
    _user_profile(genres[b], tags[b], avoided_genres[b] + avoided_tags[b], vocabulary.noun)
    if genres[b] or tags[b]
    else None
    for b in range(liked.shape[0])
  ]


def _user_profile(
  genres: tuple[str, ...], tags: tuple[str, ...], dislikes: tuple[str, ...], noun: str
) -> Profile:
  items = plural(noun)
  if tells_a_story(noun):
    above_all, drawn_to, themes = "stories about", "stories", "themes"
  else:
    above_all, drawn_to, themes = "those with keywords such as", items, "keywords"
  overview = f"This user enjoys {kind_of(listing(genres), items) if genres else items}"
  overview += f", above all {above_all} {listing(tags[:5])}." if tags else "."
  some = listing(genres[:2]) if genres else "many kinds of"
  description = f"They are drawn to {kind_of(some, drawn_to)}"
  description += f" with {themes} such as {listing(tags[5:] or tags)}." if tags else "."
  # Avoided terms are listed under Dislikes only: sentence encoders tend to ignore negation, so that
  # another mention would draw the user's vector toward them.
  return Profile(
    overview=overview, genres=genres, tags=tags, description=description, dislikes=dislikes
  )


def _salient(
  liked: scipy.sparse.csr_matrix,
  disliked: scipy.sparse.csr_matrix,
  terms: _Terms,
  *,
  most: int,
  least: int,
  most_avoided: int,
  avoided_in: int,
) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
  """The liked and the avoided terms of each row, the most characteristic first.

  A term in c of n liked items scores (c − ½) · log(share / catalog share), with the share smoothed
  toward the catalog's. So common genres count only if overrepresented, and rare terms that occur
  once count little. Avoided terms are scored in the same way against the larger of the catalog's
  share and the share among the liked items.

  Args:
    liked, disliked: [B, I] sparse 0/1. terms: of one kind.
    most: maximum number of liked terms. least: how many of them are taken even if not
      overrepresented.
    most_avoided: maximum number of avoided terms, all overrepresented and not liked.
    avoided_in: minimum number of disliked items with an avoided term.
  Returns: names of the liked and of the avoided terms, [B] each.
  """
  width = max(1, len(terms.names))
  keys, counts, share = _shares(liked, terms, width)
  chosen = keys[
    _best(
      keys // width,
      (counts - 0.5) * np.log(share / terms.share[keys % width]),
      most=most,
      least=least,
    )
  ]
  bad_keys, bad_counts, bad_share = _shares(disliked, terms, width)
  column, row = bad_keys % width, bad_keys // width
  lengths = np.asarray(liked.sum(axis=1)).ravel()[row]
  liked_share = _PRIOR_ITEMS * terms.share[column] / (lengths + _PRIOR_ITEMS)
  _, both, at = np.intersect1d(bad_keys, keys, assume_unique=True, return_indices=True)
  liked_share[both] = share[at]
  lift = bad_share / np.maximum(liked_share, terms.share[column])
  score = (bad_counts - 0.5) * np.log(lift)
  score[np.isin(bad_keys, chosen) | (bad_counts < avoided_in)] = -np.inf
  avoided = bad_keys[_best(row, score, most=most_avoided, least=0)]
  return _names(chosen, terms, liked.shape[0]), _names(avoided, terms, liked.shape[0])


def _shares(
  history: scipy.sparse.csr_matrix, terms: _Terms, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """For each (row, term) that occurs: key row · width + term ascending, count, smoothed share."""
  table = (history @ terms.table).tocsr()
  table.sort_indices()
  row = np.repeat(np.arange(table.shape[0]), np.diff(table.indptr))
  lengths = np.asarray(history.sum(axis=1)).ravel()
  share = (table.data + _PRIOR_ITEMS * terms.share[table.indices]) / (lengths[row] + _PRIOR_ITEMS)
  return row.astype(np.int64) * width + table.indices, table.data, share


def _best(row: np.ndarray, score: np.ndarray, *, most: int, least: int) -> np.ndarray:
  """Positions of the best entries of each row, best first, rows ascending, ties by position."""
  # Rounded, so that equal terms are not ordered by rounding errors.
  score = np.round(score, 9)
  order = np.argsort(-score, kind="stable")
  # NumPy sorts numbers as small as those of a chunk's rows in one pass.
  small = row.astype(np.min_scalar_type(_USERS_PER_CHUNK))
  order = order[np.argsort(small[order], kind="stable")]
  ordered = row[order]
  rank = np.arange(len(row)) - np.searchsorted(ordered, ordered, side="left")
  return order[((rank < most) & (score[order] > 0)) | (rank < least)]


def _names(keys: np.ndarray, terms: _Terms, num_rows: int) -> list[tuple[str, ...]]:
  width = max(1, len(terms.names))
  found: list[list[str]] = [[] for _ in range(num_rows)]
  for key in keys.tolist():
    found[key // width].append(terms.names[key % width])
  return [tuple(names) for names in found]
