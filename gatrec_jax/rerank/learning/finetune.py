"""A re-ranker that learns: a language model fine-tuned on the label objective."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from gatrec_jax.data.prepared import Prepared
from gatrec_jax.data.titles import unique_titles
from gatrec_jax.lm.finetune import objectives
from gatrec_jax.lm.finetune.run import Finetuned, finetune
from gatrec_jax.lm.finetune.step import FinetuneConfig
from gatrec_jax.lm.folders.load import LanguageModel
from gatrec_jax.rerank.learning.examples import ExampleSettings, ranking_examples, without_leaks
from gatrec_jax.rerank.learning.out_of_fold import TrainingLists
from gatrec_jax.runs.log import Log

CHOOSING_SHARE = 0.05  # of the users, whose lists are not learned from but choose the checkpoint
_CHOOSING = 2**31  # an epoch that training never reaches


def learn_to_rerank(
  model: LanguageModel,
  lists: Sequence[TrainingLists],
  prepared: Prepared,
  *,
  settings: ExampleSettings,
  tuning: FinetuneConfig,
  workdir: pathlib.Path,
  stop: Callable[[], int] = lambda: 0,
  log: Log = lambda _: None,
) -> Finetuned:
  """Fine-tunes on out-of-fold candidates with the listwise softmax loss over their letters.

  The run's validation ratings stay unseen, so that fusion may learn from them what the result is
  worth; the checkpoint is chosen by the loss on the lists of a twentieth of the users.

  Args:
    model: the decoder. lists: from `out_of_fold_lists`. prepared: titles and thresholds.
    settings: of the examples. tuning: how; `mode` lora or full.
    workdir: gets checkpoints and metrics; the caller holds its lock. stop, log: as in `finetune`.
  Raises:
    InputError: leaking lists, prompts that do not fit, or as `finetune`.
    Interrupted: `stop` named a signal.
  """
  titles = unique_titles(prepared.item_fields, prepared.interactions.item_ids)
  lists = [without_leaks(part, titles) for part in lists]
  learning, choosing = split_lists(lists, share=CHOOSING_SHARE, seed=settings.seed)

  def make(parts, epoch):
    return ranking_examples(
      model, parts, epoch, settings=settings, titles=titles, feedback=prepared.feedback
    )

  return finetune(
    model,
    lambda epoch: make(learning, epoch),
    tuning,
    workdir=workdir,
    objective=objectives.softmax,
    stop=stop,
    log=log,
    validation=make(choosing, _CHOOSING) if choosing else (),
  )


def split_lists(
  lists: Sequence[TrainingLists], *, share: float, seed: int
) -> tuple[list[TrainingLists], list[TrainingLists]]:
  """Lists to learn from, and those of a share of the users; empty folds are left out."""
  num_users = lists[0].history.num_users
  chosen = np.zeros(num_users, bool)
  chosen[np.random.default_rng(seed).permutation(num_users)[: round(share * num_users)]] = True
  return _of_users(lists, ~chosen), _of_users(lists, chosen)


def _of_users(lists: Sequence[TrainingLists], kept: np.ndarray) -> list[TrainingLists]:
  parts = []
  for part in lists:
    rows = kept[part.users]
    if rows.any():
      parts.append(
        dataclasses.replace(
          part, users=part.users[rows], items=part.items[rows], relevant=part.relevant[rows]
        )
      )
  return parts
