"""Collects the evidence for recommendations: what the model does when ratings are taken away.

The evidence consists of plain values: the ratings that the score depends on (removed and rescored
exactly), what the item has in common with items the user likes, the components of the score, and a
smallest set of ratings without which the item leaves the list. It needs no language model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gatrec_jax.data.titles import unique_titles
from gatrec_jax.errors import InputError, require_list
from gatrec_jax.explain.counterfactuals import Removal, find_removals, rank_of
from gatrec_jax.explain.event_rescoring import EventRescorer, make_event_rescorer
from gatrec_jax.explain.evidence import Cited, Counterfactual, Evidence
from gatrec_jax.explain.rescoring import Rescorer, make_rescorer
from gatrec_jax.explain.signals import (
  ItemAttention,
  item_attention,
  score_components,
  shared_attention,
)
from gatrec_jax.explain.traits import Catalog, avoided_genres, catalog_traits, shared_traits
from gatrec_jax.profiles.schema import parse_profile
from gatrec_jax.serve.run import Run
from gatrec_jax.stages.texts import read_texts

if TYPE_CHECKING:
  import scipy.sparse

MAX_CITED = 3
_SHARE_OF_LARGEST = 0.3  # of the largest drop, for a rating to be cited beside it
# Ratings tried at each step of the counterfactual search: of all, and of prefiltered ones.
_TRIED, _TRIED_PREFILTERED = 12, 2


@dataclasses.dataclass(frozen=True)
class Explainer:
  """What `explain_items` needs of a run; made once by `make_explainer`.

  Attributes:
    run: a trained GAT.
    rescorer: its scores without given ratings.
    titles: [I], all different.
    catalog: traits of the items.
    liked_by: [I, U] sparse, 1 where a training user likes the item.
    attention: of the items to users; None for networks with fewer than two layers,
      and where users are their events.
    prefilter: for histories longer than this, how many ratings are tried per item: those with the
      largest first-order estimates. 0 tries all ratings.
  """

  run: Run
  rescorer: Rescorer | EventRescorer
  titles: Sequence[str]
  catalog: Catalog
  liked_by: scipy.sparse.csr_matrix
  attention: ItemAttention | None
  prefilter: int = 0


def make_explainer(run: Run, *, prefilter: int = 0) -> Explainer:
  """Prepares explanations of a run's recommendations.

  Args:
    run: of a GAT.
    prefilter: as in `Explainer`; saves time for networks that must be rerun as a whole.
  Raises: InputError if the run's model is not a GAT, or for a negative prefilter.
  """
  import scipy.sparse

  if prefilter < 0:
    raise InputError("must be at least 0", field="prefilter", value=prefilter)
  recommender, prepared = run.recommender, run.prepared
  if not recommender.explainable:
    raise InputError(
      f"{run.workdir}: only recommendations of a GAT (`preset=best`, paper, tiny) can be "
      f"explained, not those of {run.config.model.kind}"
    )
  rows, shape = run.histories, (recommender.num_items, recommender.num_users)
  ratings = np.bincount(rows.user, minlength=recommender.num_users)
  likes = rows.take(prepared.feedback.liked(rows.rating))
  reads_order = recommender.settings.reads_order
  make = make_event_rescorer if reads_order else make_rescorer
  return Explainer(
    run,
    make(recommender, run.params, run.inputs, run.serving_state, ratings=ratings),
    unique_titles(prepared.item_fields, prepared.interactions.item_ids),
    catalog_traits(prepared.item_fields, profile_tags(run)),
    scipy.sparse.csr_matrix((np.ones(len(likes)), (likes.item, likes.user)), shape=shape),
    None if reads_order else item_attention(run),
    prefilter,
  )


def profile_tags(run: Run) -> list[tuple[str, ...]]:
  """Tags of the item profiles that were given to the run: [I], () for items without one."""
  num_items = run.prepared.interactions.num_items
  if not run.texts.is_text:
    return [()] * num_items
  given = read_texts(run.workdir, "items", given_alone=True)
  tags = [parse_profile(text or "").tags for text in given]
  return tags + [()] * (num_items - len(tags))  # items added after training


def explain_items(
  explainer: Explainer,
  user: int,
  items: Sequence[int],
  *,
  ranks: Sequence[int] | None = None,
  reranked: Sequence[dict[str, float]] | None = None,
  top_n: int = 10,
) -> list[Evidence]:
  """Collects evidence for items that are recommended to a user.

  Args:
    user: an index.
    items: indices of items that the user has not rated in training.
    ranks: their positions in a re-ranked list; None for the model's own ranks.
    reranked: for each item, as in `Evidence`; None if nothing is known.
    top_n: length of the list. A counterfactual takes the item out of the model's first `top_n`.
  Raises:
    InputError: an item that the user has rated, or a user without training ratings.
  """
  items = require_list(items, field="items")
  run, titles = explainer.run, explainer.titles
  ids, opinions = run.prepared.interactions, _opinions(run, user, items)
  history = opinions.items
  candidates = np.ones(ids.num_items, bool)
  known = run.prepared.known
  candidates[known.item[known.user == user]] = False
  candidates[list(items)] = True
  prefiltered = 0 < explainer.prefilter < len(history)
  rows = np.arange(len(history))
  if prefiltered:
    rows = _prefiltered(explainer, user, history, items)
  rated = history[rows]
  scores = explainer.rescorer(user, [[], *([int(item)] for item in rated)])
  base, without = scores[0], scores[1:]
  before = [rank_of(base, item, candidates) for item in items]
  drops = base[list(items)] - without[:, list(items)]  # [h, T]
  removals = find_removals(
    explainer.rescorer,
    user,
    items,
    rated=rated,
    without=without,
    drops=drops,
    ranks=before,
    candidates=candidates,
    top_n=top_n,
    tried=_TRIED_PREFILTERED if prefiltered else _TRIED,
  )
  attention = explainer.attention
  shared = None if attention is None else shared_attention(attention, rated, items)
  components = score_components(run, user, items)
  both = np.asarray((explainer.liked_by[rated] @ explainer.liked_by[list(items)].T).todense())
  disliked = history[opinions.names == "disliked"].tolist()
  found = []
  for place, item in enumerate(items):
    order = np.argsort(-drops[:, place], kind="stable")
    smallest = max(_SHARE_OF_LARGEST * drops[order[0], place], 1e-6)
    cited = tuple(
      Cited(
        ids.item_ids[rated[row]],
        titles[rated[row]],
        float(opinions.ratings[rows[row]]),
        str(opinions.names[rows[row]]),
        float(drops[row, place]),
        rank_of(without[row], item, candidates),
        None if shared is None else float(shared[row, place]),
        int(both[row, place]),
      )
      for row in order[:MAX_CITED]
      if drops[row, place] > smallest
    )
    liked = [int(rated[row]) for row in order if opinions.names[rows[row]] == "liked"]
    liked += np.setdiff1d(history[opinions.names == "liked"], liked).tolist()
    found.append(
      Evidence(
        user_id=ids.user_ids[user],
        item_id=ids.item_ids[item],
        title=titles[item],
        rank=before[place] if ranks is None else int(ranks[place]),
        rank_before=before[place],
        top_n=top_n,
        score=float(base[item]),
        components={name: float(values[place]) for name, values in components.items()},
        likes=int(explainer.liked_by[item].sum()),
        num_liked=len(liked),
        num_disliked=len(disliked),
        num_rated=len(history),
        cited=cited,
        traits=shared_traits(explainer.catalog, item, liked, titles=titles),
        avoided=avoided_genres(explainer.catalog, item, liked=liked, disliked=disliked),
        counterfactual=_counterfactual(removals[place], explainer),
        prefiltered=prefiltered,
        reranked={} if reranked is None else reranked[place],
      )
    )
  return found


@dataclasses.dataclass(frozen=True)
class _Opinions:
  """A user's training ratings.

  Attributes:
    items: [h] int, indices. ratings: [h] float32.
    names: [h] of `liked`, `neutral` and `disliked`.
  """

  items: np.ndarray
  ratings: np.ndarray
  names: np.ndarray


def _opinions(run: Run, user: int, items: Sequence[int]) -> _Opinions:
  """The user's opinions. Raises: InputError if there are none, or one is about the items."""
  prepared, ids = run.prepared, run.prepared.interactions
  own = run.histories.user == user
  rated, ratings = run.histories.item[own], run.histories.rating[own]
  if not len(rated):
    raise InputError(
      f"user {ids.user_ids[user]}: has no training ratings that could explain a recommendation "
      "(such users get popular items)"
    )
  if known := [item for item in items if item in set(rated.tolist())]:
    raise InputError(
      f"item {ids.item_ids[known[0]]}: user {ids.user_ids[user]} has rated it, so it is not "
      "recommended"
    )
  names = np.where(
    prepared.feedback.liked(ratings),
    "liked",
    np.where(prepared.feedback.disliked(ratings), "disliked", "neutral"),
  )
  return _Opinions(rated, ratings, names)


def _prefiltered(
  explainer: Explainer, user: int, history: np.ndarray, items: Sequence[int]
) -> np.ndarray:
  """Indices of the ratings with the largest first-order estimates for any of the items."""
  falls = explainer.rescorer.first_order(user, history.tolist(), items)
  return np.unique(np.argsort(-falls, axis=0, kind="stable")[: explainer.prefilter])


def _counterfactual(removal: Removal | None, explainer: Explainer) -> Counterfactual | None:
  if removal is None:
    return None
  ids = explainer.run.prepared.interactions.item_ids
  return Counterfactual(
    tuple(ids[item] for item in removal.items),
    tuple(explainer.titles[item] for item in removal.items),
    removal.rank,
  )
