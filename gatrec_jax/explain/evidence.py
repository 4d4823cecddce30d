"""What a recommendation rests on, as the model itself shows when ratings are taken from it.

The record is made of plain values: which ratings the score hangs on (taken out and scored again,
exactly), what the item shares with what the user likes, the parts of the score, and the smallest
set of ratings found without which the item leaves her list. No language model is needed for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import scipy.sparse

from gatrec_jax.data.titles import unique_titles
from gatrec_jax.errors import InputError, require_list
from gatrec_jax.explain.rescoring import Rescorer, make_rescorer
from gatrec_jax.explain.traits import (
  Avoided,
  Catalog,
  Trait,
  avoided_genres,
  catalog_traits,
  shared_traits,
)
from gatrec_jax.models.gat.channels import Channels, linear_scores, prior_scores, standard
from gatrec_jax.profiles.schema import parse_profile
from gatrec_jax.serve.run import Run
from gatrec_jax.stages.texts import read_texts

MOST_CITED = 3
MOST_REMOVED = 3
_SHARE_OF_LARGEST = 0.3  # of the largest drop, for a rating to be cited beside it
_TRIED_BESIDE = 12  # ratings tried as the next one of a counterfactual set
_FEW_BESIDE = 2  # where ratings are prefiltered


@dataclasses.dataclass(frozen=True)
class Cited:
  """A rating that the score hangs on.

  Attributes:
    item_id, title: what was rated.
    rating: as given. opinion: `liked`, `neutral` or `disliked`.
    score_drop: how much the recommended item's score falls without it, > 0.
    rank_without: the item's rank then.
    attention: how much this item and the recommended one hear from the same users (Σ over users of
      the two attention weights), a second signal that proves nothing; None where the network has
      fewer than two layers.
    both: how many training users like this item and the recommended one.
  """

  item_id: str
  title: str
  rating: float
  opinion: str
  score_drop: float
  rank_without: int
  attention: float | None
  both: int


@dataclasses.dataclass(frozen=True)
class Counterfactual:
  """Without these ratings the item has this rank, outside the list.

  Attributes: item_ids, titles: one to three rated items. rank: from 1.
  """

  item_ids: tuple[str, ...]
  titles: tuple[str, ...]
  rank: int


@dataclasses.dataclass(frozen=True)
class Evidence:
  """What there is to say of a recommendation.

  Attributes:
    user_id, item_id, title: whose, and what.
    rank: its place in her list, from 1. rank_before: its rank by the model alone, where somebody
      re-ranked the list; else equal to it.
    top_n: length of the list.
    score, parts: by the model alone; the parts sum to the score where the model is a sum.
    reranked: by name, what the base, the language model and other features add to the score by
      which the list was re-ranked; {} where nobody did, or nothing is known of it.
    likes: how many training users like the item.
    num_liked, num_disliked, num_rated: of the user's training ratings.
    cited: at most three ratings, the largest drop first.
    traits: what it shares with what she likes. avoided: genres that she dislikes and it has not.
    counterfactual: None where no set of three was found.
    prefiltered: whether only ratings that a first-order estimate puts first were taken out; else all
      of them were, so that what is cited first counts most.
  """

  user_id: str
  item_id: str
  title: str
  rank: int
  rank_before: int
  top_n: int
  score: float
  parts: dict[str, float]
  likes: int
  num_liked: int
  num_disliked: int
  num_rated: int
  cited: tuple[Cited, ...]
  traits: tuple[Trait, ...]
  avoided: tuple[Avoided, ...]
  counterfactual: Counterfactual | None
  prefiltered: bool = False
  reranked: dict[str, float] = dataclasses.field(default_factory=dict)

  def to_json(self) -> dict[str, Any]:
    return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Explainer:
  """What `explain_items` needs of a run, made once.

  Attributes:
    run: a trained GAT.
    rescorer: its scores without some ratings.
    titles: [I], each another.
    catalog: traits of the items.
    liked_by: [I, U] sparse, 1 where a training user likes the item.
    attention: the attention of items to users in the last layer but one and in the last, [I, U]
      sparse each; None where there are fewer than two layers.
    prefilter: of longer histories so many ratings for each item are taken out, those first that a
      first-order estimate puts first; 0 for all of them.
  """

  run: Run
  rescorer: Rescorer
  titles: Sequence[str]
  catalog: Catalog
  liked_by: scipy.sparse.csr_matrix
  attention: tuple[scipy.sparse.csr_matrix, scipy.sparse.csr_matrix] | None
  prefilter: int = 0


def make_explainer(run: Run, *, prefilter: int = 0) -> Explainer:
  """Args: prefilter: as in `Explainer`; of use where networks are run again as a whole.

  Raises: InputError where the run's model is not a GAT, or for a negative prefilter.
  """
  if prefilter < 0:
    raise InputError("must be at least 0", field="prefilter", value=prefilter)
  recommender, prepared = run.recommender, run.prepared
  if not recommender.explainable:
    raise InputError(
      f"{run.workdir}: reasons are made for the GAT (`preset=best`, paper, tiny), not for "
      f"{run.config.model.kind}"
    )
  train, shape = prepared.train, (recommender.num_items, recommender.num_users)
  ratings = np.bincount(train.user, minlength=recommender.num_users)
  likes = train.take(prepared.feedback.liked(train.rating))
  return Explainer(
    run,
    make_rescorer(recommender, run.params, run.inputs, run.serving_state, ratings=ratings),
    unique_titles(prepared.item_fields, prepared.interactions.item_ids),
    catalog_traits(prepared.item_fields, profile_tags(run)),
    scipy.sparse.csr_matrix((np.ones(len(likes)), (likes.item, likes.user)), shape=shape),
    _attention(run) if recommender.settings.convolution.num_layers > 1 else None,
    prefilter,
  )


def profile_tags(run: Run) -> list[tuple[str, ...]]:
  """[I]: tags of the profiles that somebody wrote; () for items that have none of these."""
  num_items = run.prepared.interactions.num_items
  if not run.texts.is_text:
    return [()] * num_items
  given = read_texts(run.workdir, "items", given_alone=True)
  tags = [parse_profile(text or "").tags for text in given]
  return tags + [()] * (num_items - len(tags))  # items that came after training


def explain_items(
  explainer: Explainer,
  user: int,
  items: Sequence[int],
  *,
  ranks: Sequence[int] | None = None,
  reranked: Sequence[dict[str, float]] | None = None,
  top_n: int = 10,
) -> list[Evidence]:
  """Evidence for items that are recommended to a user.

  Args:
    user: an index. items: indices, none of which she has rated in training.
    ranks: their places in a list that somebody re-ranked; None for the model's own.
    reranked: of each item, as in `Evidence`; None where nothing is known.
    top_n: length of the list; a counterfactual takes the item out of the model's first top_n.
  Raises:
    InputError: an item that she has rated, or a user without training ratings.
  """
  items = require_list(items, field="items")
  run = explainer.run
  prepared, ids = run.prepared, run.prepared.interactions
  train = prepared.train
  own = train.user == user
  rated, rating = train.item[own], train.rating[own]
  user_id = ids.user_ids[user]
  if not len(rated):
    raise InputError(
      f"user {user_id}: has no training ratings, so there is nothing that a recommendation could "
      "rest on (such users are shown what is popular)"
    )
  if known := [item for item in items if item in set(rated.tolist())]:
    raise InputError(
      f"item {ids.item_ids[known[0]]}: user {user_id} has rated it, so it is not recommended"
    )
  candidates = np.ones(ids.num_items, bool)
  candidates[prepared.known.item[prepared.known.user == user]] = False
  candidates[list(items)] = True
  history, ratings = rated, rating
  prefiltered = 0 < explainer.prefilter < len(history)
  if prefiltered:
    tried = _prefiltered(explainer, user, history, items)
    rated, rating = history[tried], ratings[tried]
  scores = explainer.rescorer(user, [[], *([int(item)] for item in rated)])
  base, without = scores[0], scores[1:]
  before = [_rank(base, item, candidates) for item in items]
  drops = base[list(items)] - without[:, list(items)]  # [h, T]
  sets = _counterfactuals(
    explainer,
    user,
    items,
    rated,
    without,
    drops,
    before,
    candidates,
    top_n,
    beside=_FEW_BESIDE if prefiltered else _TRIED_BESIDE,
  )

  def opinion(values):
    return np.where(
      prepared.feedback.liked(values),
      "liked",
      np.where(prepared.feedback.disliked(values), "disliked", "neutral"),
    )

  opinions, every = opinion(rating), opinion(ratings)
  disliked = history[every == "disliked"].tolist()
  paths = _paths(explainer, user, rated, items)
  parts = _parts(run, user, items)
  both = np.asarray((explainer.liked_by[rated] @ explainer.liked_by[list(items)].T).todense())
  found = []
  for place, item in enumerate(items):
    order = np.argsort(-drops[:, place], kind="stable")
    largest = drops[order[0], place]
    chosen = [
      row
      for row in order[:MOST_CITED]
      if drops[row, place] > max(_SHARE_OF_LARGEST * largest, 1e-6)
    ]
    cited = tuple(
      Cited(
        ids.item_ids[rated[row]],
        explainer.titles[rated[row]],
        float(rating[row]),
        str(opinions[row]),
        float(drops[row, place]),
        _rank(without[row], item, candidates),
        None if paths is None else float(paths[row, place]),
        int(both[row, place]),
      )
      for row in chosen
    )
    liked = [int(rated[row]) for row in order if opinions[row] == "liked"]
    liked += np.setdiff1d(history[every == "liked"], liked).tolist()
    found.append(
      Evidence(
        user_id,
        ids.item_ids[item],
        explainer.titles[item],
        before[place] if ranks is None else int(ranks[place]),
        before[place],
        top_n,
        float(base[item]),
        {name: float(values[place]) for name, values in parts.items()},
        int(explainer.liked_by[item].sum()),
        len(liked),
        len(disliked),
        len(history),
        cited,
        shared_traits(explainer.catalog, item, liked, titles=explainer.titles),
        avoided_genres(explainer.catalog, item, liked=liked, disliked=disliked),
        sets[place],
        prefiltered,
        {} if reranked is None else reranked[place],
      )
    )
  return found


def _prefiltered(
  explainer: Explainer, user: int, history: np.ndarray, items: Sequence[int]
) -> np.ndarray:
  """Which of the ratings are taken out: the first by the estimate for each item."""
  falls = explainer.rescorer.first_order(user, history.tolist(), items)
  return np.unique(np.argsort(-falls, axis=0, kind="stable")[: explainer.prefilter])


def _rank(scores: np.ndarray, item: int, candidates: np.ndarray) -> int:
  """From 1, among the candidates [I] bool; of equal scores the lower index comes first."""
  ahead = (scores > scores[item]) | ((scores == scores[item]) & (np.arange(len(scores)) < item))
  return 1 + int((ahead & candidates).sum())


def _counterfactuals(
  explainer: Explainer,
  user: int,
  items: Sequence[int],
  rated: np.ndarray,
  without: np.ndarray,
  drops: np.ndarray,
  before: Sequence[int],
  candidates: np.ndarray,
  top_n: int,
  *,
  beside: int,
) -> list[Counterfactual | None]:
  """For each item a smallest set of ratings whose removal takes it out of the first top_n, found
  greedily: of those that do alone, the one with the largest drop, as what is cited first; else
  beside the one with the largest drop the next that takes it furthest, up to three.

  Args: beside: how many ratings are tried as the next one."""
  ids, titles = explainer.run.prepared.interactions.item_ids, explainer.titles
  found: dict[int, Counterfactual] = {}

  def keep(place: int, rows: Sequence[int], rank: int) -> None:
    removed = [rated[row] for row in rows]
    found[place] = Counterfactual(
      tuple(ids[item] for item in removed), tuple(titles[item] for item in removed), rank
    )

  chosen: dict[int, list[int]] = {}
  for place, item in enumerate(items):
    if before[place] > top_n:
      continue
    ranks = [_rank(row, item, candidates) for row in without]
    order = np.argsort(-drops[:, place], kind="stable").tolist()
    alone = next((row for row in order if ranks[row] > top_n), None)
    if alone is not None:
      keep(place, [alone], ranks[alone])
    else:
      chosen[place] = order[:1]
  for _ in range(MOST_REMOVED - 1):
    tries = [
      (place, [*rows, int(row)])
      for place, rows in chosen.items()
      for row in np.argsort(-drops[:, place], kind="stable")[: beside + len(rows)]
      if int(row) not in rows
    ]
    if not tries:
      break
    scores = explainer.rescorer(user, [[int(rated[row]) for row in rows] for _, rows in tries])
    best: dict[int, tuple[int, float, list[int]]] = {}
    for (place, rows), row in zip(tries, scores, strict=True):
      standing = (_rank(row, items[place], candidates), -float(row[items[place]]), rows)
      best[place] = max(best.get(place, standing), standing, key=lambda one: one[:2])
    for place, (rank, _, rows) in best.items():
      chosen[place] = rows
      if rank > top_n:
        keep(place, rows, rank)
        del chosen[place]
  return [found.get(place) for place in range(len(items))]


def _parts(run: Run, user: int, items: Sequence[int]) -> dict[str, np.ndarray]:
  """By name, [T]: `graph`, and where they are there `linear` and `popularity` (of users who came
  after training), as they enter the score of rated items."""
  serving_state, index = run.serving_state, np.array([user])
  if not isinstance(serving_state, Channels):
    return {"graph": np.asarray(serving_state[0][user] @ serving_state[1][np.array(items)].T)}
  parts = {"graph": serving_state.vectors[0][index] @ serving_state.vectors[1].T}
  if serving_state.linear is not None:
    linear = standard(linear_scores(serving_state, index), serving_state.rated)
    parts = {
      "graph": standard(parts["graph"], serving_state.rated),
      "linear": serving_state.weight * linear,
    }
  prior = prior_scores(serving_state, sum(parts.values()), serving_state.prior[index])
  if np.asarray(prior).any():
    parts["popularity"] = prior
  return {name: np.asarray(values)[0, list(items)] for name, values in parts.items()}


def _attention(run: Run) -> tuple[scipy.sparse.csr_matrix, scipy.sparse.csr_matrix]:
  """Of the last two layers, means over heads."""
  recommender, graph = run.recommender, run.inputs.own.graph
  _, layers = jax.jit(recommender.module.apply, static_argnames="return_attention")(
    {"params": run.params}, run.inputs.text, graph, return_attention=True
  )
  senders, receivers = np.asarray(graph.senders), np.asarray(graph.receivers)
  to_items = (receivers >= recommender.num_users) & (senders < recommender.num_users)
  rows = (receivers[to_items] - recommender.num_users, senders[to_items])
  return tuple(
    scipy.sparse.csr_matrix(
      (np.asarray(weights).mean(axis=1)[to_items], rows),
      shape=(recommender.num_items, recommender.num_users),
    )
    for weights in layers[-2:]
  )


def _paths(
  explainer: Explainer, user: int, rated: np.ndarray, items: Sequence[int]
) -> np.ndarray | None:
  """[h, T]: Σ over users v of the attention of the rated item to v in the last layer but one and of
  the recommended item to v in the last: how much the two hear from the same people."""
  if explainer.attention is None:
    return None
  first, second = explainer.attention
  return np.asarray((first[rated] @ second[list(items)].T).todense())
