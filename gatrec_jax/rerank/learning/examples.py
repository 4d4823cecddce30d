"""Training examples for re-ranking: out-of-fold candidates, drawn and shuffled anew every epoch."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np

from gatrec_jax.data.feedback import Feedback
from gatrec_jax.errors import InputError
from gatrec_jax.lm.finetune.examples import LabelExample
from gatrec_jax.lm.folders.load import LanguageModel
from gatrec_jax.lm.inference.scoring import label_tokens
from gatrec_jax.profiles.builder import YEAR
from gatrec_jax.rerank.learning.out_of_fold import TrainingLists
from gatrec_jax.rerank.prompting.contexts import DISLIKED, LIKED, make_contexts
from gatrec_jax.rerank.prompting.prompts import (
  LABELS,
  YES_NO,
  choice_prompt,
  next_prompt,
  pointwise_prompt,
  require_labels,
  title_tokens,
)
from gatrec_jax.rerank.prompting.truncation import PromptEncoder, fit_prompts

TASKS = ("label", "pairwise", "pointwise")


@dataclasses.dataclass(frozen=True)
class ExampleSettings:
  """Settings of training examples.

  Attributes:
    top: maximum number of candidates in a `label` example; ignored if titles are labels.
    liked, disliked: maximum numbers of liked and disliked titles in a history.
    shares: share of examples by task: `label` (the best of many), `pairwise` (the better of two),
      `pointwise` (whether one fits).
    seed: of all draws.
  """

  top: int = 20
  liked: int = LIKED
  disliked: int = DISLIKED
  shares: Mapping[str, float] = dataclasses.field(default_factory=lambda: {"label": 1.0})
  seed: int = 0

  def __post_init__(self) -> None:
    require_labels(self.top)
    if self.top < 2:
      raise InputError("must be at least 2 to learn from", field="top_candidates", value=self.top)
    unknown = set(self.shares) - set(TASKS)
    if unknown or min(self.shares.values(), default=0) < 0 or sum(self.shares.values()) <= 0:
      raise InputError(
        f"shares of tasks {dict(self.shares)} must be positive and of {', '.join(TASKS)}"
      )


def ranking_examples(
  model: LanguageModel,
  lists: Sequence[TrainingLists],
  epoch: int,
  *,
  titles: Sequence[str],
  feedback: Feedback,
  settings: ExampleSettings,
) -> list[LabelExample]:
  """One example per list for an epoch of `lm.finetune`.

  Each epoch draws new histories (from the ratings that the fold's GAT was trained on), candidates
  (a held-out positive and others from the GAT's list; all positives are equally relevant) and
  orders, which reveal neither the relevant items nor the GAT's order.

  Args:
    model: whose tokens are used.
    lists: from `out_of_fold_lists`, after `without_leaks`.
    epoch: 0, 1, ….
    titles: [I], all different. feedback: which ratings of a history are
      likes and dislikes.
    settings: of the examples.
  Raises: InputError if a letter or "yes" is not a single token.
  """
  draws = np.random.default_rng([settings.seed, epoch])
  answers = label_tokens(model, list(YES_NO)) if settings.shares.get("pointwise") else None
  own = title_tokens(model, titles)  # titles are labels if each is a single token
  letters = label_tokens(model, list(LABELS[: settings.top])) if own is None else None
  shares = np.array([settings.shares.get(task, 0.0) for task in TASKS])
  examples, encode = [], PromptEncoder(model)
  for part in lists:
    contexts = make_contexts(
      part.history,
      part.users,
      titles=titles,
      profiles=part.profiles,
      draws=draws,
      feedback=feedback,
      liked=settings.liked,
      disliked=settings.disliked,
    )
    tasks = draws.choice(len(TASKS), len(part.users), p=shares / shares.sum())
    prompts, targets = [], []
    for items, relevant, task in zip(part.items, part.relevant, tasks, strict=True):
      # Titles that are labels are not listed, so the whole list costs nothing extra.
      free = TASKS[task] == "label" and own is not None
      places = _drawn(
        items >= 0, relevant, TASKS[task], len(items) if free else settings.top, draws
      )
      names, relevance = [titles[item] for item in items[places]], relevant[places].astype(float)
      if TASKS[task] == "pointwise":
        prompts.append(lambda context, name=names[0]: [pointwise_prompt(context, name)])
        targets.append((answers, np.array([relevance[0], 1.0 - relevance[0]])))
      elif free:
        prompts.append(lambda context: [next_prompt(context)])
        targets.append((own[items[places]], relevance))
      else:
        prompts.append(
          lambda context, names=names: [choice_prompt(context, names, by_title=own is not None)]
        )
        targets.append((letters[: len(names)] if own is None else own[items[places]], relevance))
    encoded, _ = fit_prompts(encode, contexts, prompts, [0] * len(contexts))
    examples += [
      LabelExample(ids[0], labels.tolist(), relevance.tolist())
      for ids, (labels, relevance) in zip(encoded, targets, strict=True)
    ]
  return examples


def without_leaks(part: TrainingLists, titles: Sequence[str]) -> TrainingLists:
  """The lists without profiles that name a held-out positive, even by coincidence.

  Args: part: lists of a fold. titles: [I].
  Raises: InputError if a held-out positive is in a history, that is, if the folds overlap.
  """
  history = np.unique(
    part.history.user.astype(np.int64) * part.history.num_items + part.history.item
  )
  keys = part.users[:, None].astype(np.int64) * part.history.num_items + part.items
  leaking = np.isin(keys, history) & part.relevant
  if leaking.any():
    row, place = np.argwhere(leaking)[0]
    raise InputError(
      f"user {part.history.user_ids[part.users[row]]}: {titles[part.items[row, place]]!r} is both "
      "in the history and to be predicted; the folds overlap"
    )
  profiles = list(part.profiles)
  for user, items, relevant in zip(part.users, part.items, part.relevant, strict=True):
    text = profiles[user] or ""
    if any(names_title(text, titles[item]) for item in items[relevant]):
      profiles[user] = None
  return dataclasses.replace(part, profiles=profiles)


def names_title(text: str, title: str) -> bool:
  """Whether a text contains a title of at least two words; a single word may be just a word."""
  name = YEAR.sub("", title)
  if len(name.split()) < 2 or name not in text:
    return False
  return re.search(rf"\b{re.escape(name)}\b", text) is not None


def _drawn(
  valid: np.ndarray, relevant: np.ndarray, task: str, top: int, draws: np.random.Generator
) -> np.ndarray:
  """Places of an example's candidates, in random order."""
  positive = draws.choice(np.flatnonzero(relevant & valid))
  others = draws.permutation(np.flatnonzero(valid & (np.arange(len(valid)) != positive)))
  negatives = others[~relevant[others]]
  if task == "label" or not len(negatives):
    return draws.permutation(np.append(others[: top - 1], positive))
  if task == "pairwise":
    return draws.permutation(np.array([positive, negatives[0]]))
  return np.array([positive if draws.random() < 0.5 else negatives[0]])
