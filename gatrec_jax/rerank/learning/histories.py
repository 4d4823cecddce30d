"""Training examples for `title`: histories of users, each line of which is to be predicted.

A history teaches a model what follows what, at every line of one text, so a step teaches much more
than a choice among candidates does, and needs no recommender trained without the target: nothing
but training ratings is read, and a line is predicted from the lines before it alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from gatrec_jax.data.feedback import Feedback
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.lm.finetune.examples import CompletionExample
from gatrec_jax.lm.folders.load import LanguageModel
from gatrec_jax.rerank.prompting.contexts import SHORT, make_contexts
from gatrec_jax.rerank.prompting.prompts import Context, describe, next_prompt
from gatrec_jax.rerank.prompting.truncation import PromptEncoder, fit_prompts


def history_examples(
  model: LanguageModel,
  train: Interactions,
  users: np.ndarray,
  epoch: int,
  *,
  titles: Sequence[str],
  feedback: Feedback,
  liked: int = SHORT,
  disliked: int = SHORT // 3,
  seed: int = 0,
) -> list[CompletionExample]:
  """One example per user with a like or a dislike: the lines that a prompt of `title` would have.

  Each epoch draws other ratings of users who have more than fit. Lines are in temporal order, or
  in random order if no rating has a time.

  Args:
    model: whose tokens are used.
    train: the only interactions that are read. users: [m] int32, indices.
    epoch: 0, 1, ….
    titles: [I], as prompts show them. feedback: which ratings are likes and dislikes.
    liked, disliked: maximum numbers of each in a prompt; one more like is drawn, as the last line
      is a target too. seed: of the draws.
  """
  draws = np.random.default_rng([seed, epoch])
  contexts = make_contexts(
    train,
    users,
    titles=titles,
    profiles=[None] * train.num_users,
    feedback=feedback,
    liked=liked + 1,
    disliked=disliked,
    draws=draws,
  )
  if not np.ptp(train.timestamp):
    contexts = [_permuted(context, draws) for context in contexts]
  contexts = [context for context in contexts if context.history]
  encode = PromptEncoder(model, chat=False)
  prompts = [lambda context: [describe(context)]] * len(contexts)
  encoded, _ = fit_prompts(encode, contexts, prompts, [0] * len(contexts))
  (head,) = encode([next_prompt(Context())])
  examples = []
  for (ids,) in encoded:
    given = len(os.path.commonprefix([ids, head]))
    examples.append(CompletionExample(ids[:given], ids[given:]))
  return examples


def _permuted(context: Context, draws: np.random.Generator) -> Context:
  order = draws.permutation(len(context.history))
  return Context(context.profile, tuple(context.history[place] for place in order))
