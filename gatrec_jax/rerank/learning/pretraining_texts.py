"""What the built-in model reads before it learns to choose: histories, and answers to questions.

All of it is made of training ratings. A history is told in a random order, so that any title may
follow any others. In an answer, titles that the user liked stand before others, and the history
that goes before leaves them out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from gatrec_jax.data.feedback import Feedback
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.rerank.prompting.contexts import make_contexts
from gatrec_jax.rerank.prompting.prompts import (
  LABELS,
  YES_NO,
  Context,
  batchwise_prompt,
  describe,
  listwise_prompt,
  pointwise_prompt,
  profile_line,
  relevancy_prompt,
  title_line,
)

PROFILE_SHARE = 0.2  # of the histories that are told with a profile
ANSWER_SHARE = 0.3  # of the users in a round of whom an answer is read too
HISTORY = (80, 20)  # liked and disliked titles of a told history, at most
ANSWERED = 20, 5  # candidates of a long and of a short question
_RATING = {True: 90, False: 20}


def reading_texts(
  train: Interactions,
  *,
  titles: Sequence[str],
  user_profiles: Sequence[str | None],
  item_profiles: Sequence[str | None],
  feedback: Feedback,
  rounds: int,
  seed: int,
) -> list[str]:
  """In each round every user's history, and an answer about some; each item's profile once.

  Args:
    train: training rows. titles: [I], each another. user_profiles: [U] texts made of `train`.
    item_profiles: [I] texts.
    feedback: which ratings count as liked and as disliked. rounds: how often. seed: of all draws.
  """
  # As if somebody with the item's profile liked the item alone: its words get to know its title.
  texts = [
    describe(Context(profile_line(body), ((title, True),)))
    for body, title in zip(item_profiles, titles, strict=True)
    if body
  ]
  users = np.unique(train.user)
  popularity = np.bincount(train.item, minlength=train.num_items).astype(float)
  for number in range(rounds):
    draws = np.random.default_rng([seed, number])
    contexts = make_contexts(
      train,
      users,
      titles=titles,
      profiles=user_profiles,
      draws=draws,
      feedback=feedback,
      liked=HISTORY[0],
      disliked=HISTORY[1],
    )
    popular = draws.choice(
      train.num_items, (len(users), ANSWERED[0]), p=popularity / popularity.sum()
    )
    for context, drawn in zip(contexts, popular, strict=True):
      order = draws.permutation(len(context.history))
      told = tuple(context.history[place] for place in order)
      profile = context.profile if draws.random() < PROFILE_SHARE else ""
      texts.append(describe(Context(profile, told)))
      if draws.random() >= ANSWER_SHARE:
        continue
      size, prompt, answer = FORMS[draws.integers(len(FORMS))]
      others = [titles[item] for item in drawn]
      if asked := _question(context.profile, told, others, size, draws):
        asks, names, truth = asked
        texts.append(prompt(asks, names) + answer(names, truth, draws))
  return texts


def _question(
  profile: str,
  told: Sequence[tuple[str, bool]],
  others: Sequence[str],
  size: int,
  draws: np.random.Generator,
) -> tuple[Context, list[str], list[bool]] | None:
  """A context, candidates in random order and whether each was liked; None for a short history."""
  liked = [title for title, good in told if good]
  count = min(len(liked) // 3, size // 2)
  if not count:
    return None
  rated = {title for title, _ in told}
  good = liked[:count]
  bad = list(dict.fromkeys(title for title in others if title not in rated))[: size - count]
  context = Context(profile, tuple(entry for entry in told if entry[0] not in set(good))[:60])
  names, truth = [*good, *bad], [True] * len(good) + [False] * len(bad)
  order = draws.permutation(len(names))
  return context, [names[place] for place in order], [truth[place] for place in order]


def _ranked(names: Sequence[str], truth: Sequence[bool], draws: np.random.Generator) -> list[int]:
  """Places of the liked ones, then of the others, in random order each."""
  noise = draws.random(len(names))
  return sorted(range(len(names)), key=lambda place: (not truth[place], noise[place]))


def _ranked_titles(names: Sequence[str], truth: Sequence[bool], draws: np.random.Generator) -> str:
  lines = enumerate(_ranked(names, truth, draws), 1)
  return "".join(title_line(str(line), names[place]) for line, place in lines)


def _ranked_letters(names: Sequence[str], truth: Sequence[bool], draws: np.random.Generator) -> str:
  return "".join(f"{LABELS[place]}\n" for place in _ranked(names, truth, draws))


def _ratings(_: Sequence[str], truth: Sequence[bool], __: np.random.Generator) -> str:
  return json.dumps(dict(zip(LABELS, [_RATING[good] for good in truth], strict=False)))


def _yes_or_no(_: Sequence[str], truth: Sequence[bool], __: np.random.Generator) -> str:
  return YES_NO[0 if truth[0] else 1]


# Candidates of a question, the question, and its answer.
FORMS = (
  (ANSWERED[0], listwise_prompt, _ranked_titles),
  (ANSWERED[1], batchwise_prompt, _ranked_letters),
  (ANSWERED[1], relevancy_prompt, _ratings),
  (ANSWERED[1], lambda context, names: pointwise_prompt(context, names[0]), _yes_or_no),
)
