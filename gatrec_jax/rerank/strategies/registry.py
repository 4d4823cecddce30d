"""Re-ranking strategies behind one interface: contexts and candidates in, scores out.

No strategy sees the recommender's order: candidates are first put into an order that depends only
on their titles. So the scores are independent evidence, which fusion weighs against the
recommender's order, and no label can leak through the order of the candidates.
"""

from __future__ import annotations

import dataclasses
import functools
import time
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from gatrec_jax.errors import InputError
from gatrec_jax.lm.decoder.model import Lora
from gatrec_jax.lm.folders.load import LanguageModel
from gatrec_jax.rerank.prompting.prompts import Context
from gatrec_jax.rerank.prompting.queries import Queries, Usage
from gatrec_jax.rerank.prompting.truncation import PromptEncoder
from gatrec_jax.rerank.strategies.batchwise import batchwise
from gatrec_jax.rerank.strategies.label import label, next_title, pointwise
from gatrec_jax.rerank.strategies.listwise import listwise
from gatrec_jax.rerank.strategies.pairwise import all_pairs, insertion_tree
from gatrec_jax.rerank.strategies.rank_aggregation import MERGES
from gatrec_jax.rerank.strategies.relevancy import relevancy

Rank = Callable[[Queries, Sequence[Sequence[str]]], list[np.ndarray]]
"""(queries, candidates by user) -> for each user [K] float32 scores."""


@dataclasses.dataclass(frozen=True)
class Options:
  """Settings of strategies.

  Attributes:
    permutations: of `label`: orders of the lettered candidates to average over. Not used for models
      whose labels are titles.
    form: of `pairwise`: `bst` for the comparisons of a search tree, `all` for all pairs.
    both_orders: of `pairwise`: whether each pair is compared as A, B and as B, A.
    merge: of `batchwise`: `borda` or `trueskill`.
    batch, stride: of `batchwise` and `relevancy`: candidates per batch, and the distance between
      the starts of neighboring batches.
  """

  permutations: int = 2
  form: str = "bst"
  both_orders: bool = True
  merge: str = "borda"
  batch: int = 5
  stride: int = 3

  def __post_init__(self) -> None:
    if self.permutations < 1:
      raise InputError("must be at least 1", field="permutations", value=self.permutations)
    if self.form not in FORMS:
      raise InputError(f"not one of {', '.join(FORMS)}", field="form", value=self.form)
    if self.merge not in MERGES:
      raise InputError(f"not one of {', '.join(MERGES)}", field="merge", value=self.merge)
    if self.batch < 2:
      raise InputError("must be at least 2", field="batch", value=self.batch)
    if not 1 <= self.stride < self.batch:
      raise InputError(
        f"must be at least 1 and below `batch={self.batch}`", field="stride", value=self.stride
      )


FORMS = {"bst": insertion_tree, "all": all_pairs}
# name -> a function from options to the strategy. New strategies are added here.
STRATEGIES: dict[str, Callable[[Options], Rank]] = {
  "label": lambda options: functools.partial(label, permutations=options.permutations),
  "pointwise": lambda _: pointwise,
  "listwise": lambda _: listwise,
  "pairwise": lambda options: functools.partial(
    FORMS[options.form], both_orders=options.both_orders
  ),
  "batchwise": lambda options: functools.partial(
    batchwise, merge=MERGES[options.merge], size=options.batch, stride=options.stride
  ),
  "relevancy": lambda options: functools.partial(
    relevancy, size=options.batch, stride=options.stride
  ),
  "title": lambda _: next_title,
}
# name -> the options that its scores depend on.
OPTIONS_OF: dict[str, tuple[str, ...]] = {
  "label": ("permutations",),
  "pairwise": ("form", "both_orders"),
  "batchwise": ("merge", "batch", "stride"),
  "relevancy": ("batch", "stride"),
}


@dataclasses.dataclass(frozen=True)
class Strategy:
  """A strategy with its model: (contexts, candidates) -> scores.

  Attributes:
    name: in `STRATEGIES`. model: the decoder that is queried. options: of the strategy.
    batch_size: users per batch. lora: low-rank additions to the model.
  """

  name: str
  model: LanguageModel
  options: Options
  batch_size: int
  lora: Lora | None

  @functools.cached_property
  def _encode(self) -> PromptEncoder:
    """Kept between calls, because most lines of a prompt recur."""
    return PromptEncoder(self.model)

  def __call__(
    self,
    contexts: Sequence[Context],
    candidates: Sequence[Sequence[str]],
    *,
    usage: Usage | None = None,
  ) -> list[np.ndarray]:
    """Scores the candidates of users; higher is better.

    Args:
      contexts: of N users. candidates: distinct titles for each, in any order.
      usage: counts to add to.
    Returns: for each user [K] float32, in the order of the candidates; 0 for a single candidate,
      for which the model is not queried.
    Raises: InputError for repeated titles, for more titles than letters if letters are needed, or
      for candidates that do not fit into the model's context.
    """
    if len(contexts) != len(candidates):
      raise InputError(f"{len(contexts)} contexts for {len(candidates)} lists of candidates")
    begun = time.perf_counter()
    usage = usage if usage is not None else Usage()
    for titles in candidates:
      _require_distinct(titles)
    scores = [np.zeros(len(titles), np.float32) for titles in candidates]
    users = [user for user, titles in enumerate(candidates) if len(titles) > 1]
    orders = [unrelated_order(candidates[user]) for user in users]
    queries = Queries(
      self._encode,
      [contexts[user] for user in users],
      batch_size=self.batch_size,
      lora=self.lora,
      usage=usage,
    )
    rank = STRATEGIES[self.name](self.options)
    reordered = [
      [candidates[user][place] for place in order]
      for user, order in zip(users, orders, strict=True)
    ]
    for user, order, found in zip(users, orders, rank(queries, reordered), strict=True):
      scores[user][order] = found
    usage.users += len(candidates)
    usage.seconds += time.perf_counter() - begun
    return scores


def make_strategy(
  name: str,
  model: LanguageModel,
  *,
  options: Options = Options(),  # noqa: B008  (frozen)
  batch_size: int = 8,
  lora: Lora | None = None,
) -> Strategy:
  """Builds a strategy by name.

  Args:
    name: in `STRATEGIES`. model: the decoder that is queried. options: of the strategy.
    batch_size: users per batch. lora: low-rank additions to the model.
  Raises: InputError for an unknown name.
  """
  if name not in STRATEGIES:
    raise InputError(f"not one of {', '.join(STRATEGIES)}", field="strategy", value=name)
  if batch_size < 1:
    raise InputError("must be at least 1", field="batch_size", value=batch_size)
  return Strategy(name, model, options, batch_size, lora)


def unrelated_order(titles: Sequence[str]) -> np.ndarray:
  """An order of distinct titles, [K] int64, that depends on the set of titles alone.

  The order is pseudorandom in the set, so that no title always comes first.
  """
  texts = [title.encode() for title in titles]
  seed = sum(map(zlib.crc32, texts)) % 2**32
  return np.array(
    sorted(range(len(titles)), key=lambda place: (zlib.crc32(texts[place], seed), texts[place])),
    np.int64,
  )


def _require_distinct(titles: Sequence[str]) -> None:
  seen: set[str] = set()
  for title in titles:
    if title in seen:
      raise InputError(f"candidate {title!r} occurs twice for one user")
    seen.add(title)
