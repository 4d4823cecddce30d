"""Fine-tunes a language model to re-rank, with a softmax loss over the labels of candidates."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from gatrec_jax.data.prepared import Prepared
from gatrec_jax.data.titles import unique_titles
from gatrec_jax.lm.finetune import objectives
from gatrec_jax.lm.finetune.packing import LabelExample
from gatrec_jax.lm.finetune.run import Finetuned, finetune
from gatrec_jax.lm.finetune.step import FinetuneConfig
from gatrec_jax.lm.folders.load import LanguageModel
from gatrec_jax.rerank.learning.examples import ExampleSettings, ranking_examples, without_leaks
from gatrec_jax.rerank.learning.out_of_fold import TrainingLists
from gatrec_jax.runs.log import SILENT, Log

VALIDATION_SHARE = 0.05  # of the users, whose lists are held out to choose the checkpoint
_VALIDATION_EPOCH = 2**31  # training never reaches it


def learn_to_rerank(
  model: LanguageModel,
  lists: Sequence[TrainingLists],
  prepared: Prepared,
  *,
  settings: ExampleSettings,
  tuning: FinetuneConfig,
  workdir: pathlib.Path,
  stop: Callable[[], int] = lambda: 0,
  log: Log = SILENT,
) -> Finetuned:
  """Fine-tunes on out-of-fold candidates with the listwise softmax loss over their labels.

  The run's validation ratings stay unseen, so that fusion can measure on them what the result is
  worth. The checkpoint is chosen by the loss on the lists of a twentieth of the users.

  Args:
    model: the decoder.
    lists: from `out_of_fold_lists`.
    prepared: titles and which ratings are liked and disliked.
    settings: of the examples.
    tuning: of the training; `mode` is lora or full.
    workdir: for checkpoints and metrics; the caller holds its lock.
    stop, log: as in `finetune`.
  Raises:
    InputError: for leaking lists or prompts that do not fit, or as `finetune`.
    Interrupted: if `stop` returned a signal.
  """
  titles = unique_titles(prepared.item_fields, prepared.interactions.item_ids)
  lists = [without_leaks(part, titles) for part in lists]
  training, validation = split_lists(lists, share=VALIDATION_SHARE, seed=settings.seed)

  def make(parts: Sequence[TrainingLists], epoch: int) -> list[LabelExample]:
    return ranking_examples(
      model, parts, epoch, settings=settings, titles=titles, feedback=prepared.feedback
    )

  return finetune(
    model,
    lambda epoch: make(training, epoch),
    tuning,
    workdir=workdir,
    objective=objectives.softmax,
    stop=stop,
    log=log,
    validation=make(validation, _VALIDATION_EPOCH) if validation else (),
  )


def split_lists(
  lists: Sequence[TrainingLists], *, share: float, seed: int
) -> tuple[list[TrainingLists], list[TrainingLists]]:
  """Divides lists into those for training and those of a share of the users, for validation.

  Empty folds are left out.
  """
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
