"""Items that are similar to an item, and what they have in common with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from gatrec_jax.errors import InputError
from gatrec_jax.models.gat.channels import Channels
from gatrec_jax.profiles.attributes import item_attributes, named_attributes
from gatrec_jax.runs.log import CONSOLE, Log
from gatrec_jax.serve.filters import Condition, item_mask
from gatrec_jax.serve.run import Run, indices_of, require_positive

_DAMPING = 10.0  # beside the likes of two items

Basis = Literal["vectors", "likes", "content"]


@dataclasses.dataclass(frozen=True)
class SimilarItem:
  """An item that is similar to another.

  Attributes:
    item, title: its id and title.
    similarity: a cosine, at most 1.
    liked_both: how many users liked both in training.
    shared: (kind, name) of genres, tags and people that both have; kind is `genre`, `tag` or
      `person`.
  """

  item: str
  title: str
  similarity: float
  liked_both: int
  shared: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class SimilarItems:
  """The items most similar to an item.

  Attributes:
    item, title: its id and title.
    basis: what the cosine is between (`similar_items`).
    items: best first; shorter than requested where no more items are similar at all.
  """

  item: str
  title: str
  basis: Basis
  items: tuple[SimilarItem, ...]


def similar_items(
  run: Run,
  item: str | int,
  *,
  top_n: int = 10,
  only: Sequence[Condition] = (),
  exclude: Sequence[Condition] = (),
  log: Log = CONSOLE,
) -> SimilarItems:
  """The items most similar to an item, itself left out, with what they share.

  Similarity is the cosine of the items' learned vectors minus their mean over the rated items
  (`vectors`): of the network of a GAT, or of a model that scores by vectors. Other models have the
  cosine of who liked the items (`likes`): the number of users who liked both, over the root of the
  product of the items' likes plus 10, so that items with few likes are not similar by chance. An
  item that nobody rated (`likes`: nobody liked) is compared with all items by its genres, tags,
  people and year and its text vector (`content`). Rated items are compared with rated items alone,
  since cosines of different things cannot be ranked together. Items with a cosine of 0 or less are
  not similar.

  Args: only, exclude: as in `recommend`.
  Raises: InputError: an unknown item, one of which nothing is known, `top_n` below 1, or as
    `recommend` for conditions.
  """
  require_positive(top_n)
  (query,) = indices_of([item], run.item_index, "item")
  allowed = item_mask(run, only=only, exclude=exclude, log=log)
  train, ids = run.prepared.train, run.prepared.interactions.item_ids
  likes = train.take(run.prepared.feedback.liked(train.rating))
  basis, cosine = _similarity(run, query, likes.user, likes.item)
  cosine = np.where(True if allowed is None else allowed, cosine, -np.inf)
  cosine[query] = -np.inf
  order = [int(one) for one in np.argsort(-cosine, kind="stable")[:top_n] if cosine[one] > 0]
  fields = run.prepared.item_fields
  together = _liked_both(query, likes.user, likes.item, num_items=len(ids))
  own = named_attributes(fields[query])
  found = []
  for other in order:
    theirs = named_attributes(fields[other])
    shared = tuple((kind, name) for (kind, key), name in own.items() if (kind, key) in theirs)
    title = str(fields[other].get("title", ""))
    found.append(SimilarItem(ids[other], title, float(cosine[other]), int(together[other]), shared))
  return SimilarItems(ids[query], str(fields[query].get("title", "")), basis, tuple(found))


def _similarity(
  run: Run, query: int, user: np.ndarray, item: np.ndarray
) -> tuple[Basis, np.ndarray]:
  """What is compared, and [I] float cosines with the item `query`.

  Args: user, item: [P], training likes.
  """
  num_items = run.recommender.num_items
  vectors = _learned_vectors(run)
  if vectors is not None:
    rated = np.bincount(run.prepared.train.item, minlength=num_items) > 0
    if rated[query]:
      cosine = _cosines(vectors - vectors[rated].mean(axis=0), query)
      return "vectors", np.where(rated, cosine, -np.inf)
  else:
    count = np.bincount(item, minlength=num_items)
    if count[query]:
      together = _liked_both(query, user, item, num_items=num_items)
      return "likes", together / (np.sqrt(count * count[query]) + _DAMPING)
  parts = [_unit(item_attributes(run.prepared.item_fields))]
  if run.texts.is_text:
    parts.append(_unit(run.texts.item_vectors))
  content = np.concatenate(parts, axis=1)
  if not content[query].any():
    name = run.prepared.interactions.item_ids[query]
    raise InputError(f"item {name}: nothing is known of it, neither ratings nor text or attributes")
  return "content", _cosines(content, query)


def _learned_vectors(run: Run) -> np.ndarray | None:
  """[I, D] float32, D > 1; None for models without."""
  state = run.serving_state
  if isinstance(state, Channels):
    return np.asarray(state.vectors[1])
  if run.recommender.scores_by != "vectors" or state[1].shape[1] < 2:
    return None
  return np.asarray(state[1])


def _liked_both(query: int, user: np.ndarray, item: np.ndarray, *, num_items: int) -> np.ndarray:
  """[I] int, users who liked each item and the item `query`. Args: user, item: [P], likes."""
  return np.bincount(item[np.isin(user, user[item == query])], minlength=num_items)


def _unit(values: np.ndarray) -> np.ndarray:
  return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def _cosines(vectors: np.ndarray, query: int) -> np.ndarray:
  unit = _unit(vectors)
  return unit @ unit[query]
