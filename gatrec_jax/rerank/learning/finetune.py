"""Fine-tunes a language model to re-rank: on choices among candidates, or on histories."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from gatrec_jax import runs
from gatrec_jax.data.interactions import distinct
from gatrec_jax.data.prepared import Prepared
from gatrec_jax.data.titles import unique_titles
from gatrec_jax.lm.finetune import objectives
from gatrec_jax.lm.finetune.examples import CompletionExample, LabelExample
from gatrec_jax.lm.finetune.run import Example, Finetuned, Pace, finetune, pace_of
from gatrec_jax.lm.finetune.step import FinetuneConfig
from gatrec_jax.lm.folders.load import LanguageModel
from gatrec_jax.rerank.learning.examples import ExampleSettings, ranking_examples, without_leaks
from gatrec_jax.rerank.learning.histories import history_examples
from gatrec_jax.rerank.learning.out_of_fold import TrainingLists
from gatrec_jax.rerank.prompting.titles import prompt_titles
from gatrec_jax.runs.log import SILENT, Log

LEARNED_ALONE = "title"  # the strategy whose model learns from histories
OBJECTIVES = {
  "softmax": objectives.softmax,
  "listnet": objectives.listnet,
  "ranknet": objectives.ranknet,
}
VALIDATION_SHARE = 0.05  # of the users, whose lists are held out to choose the checkpoint
# Steps are short, as a CPU takes seconds for each, so the rate is high.
HISTORIES = FinetuneConfig(learning_rate=1e-3, batch_size=2, max_tokens=512, evaluate_every=25)
LEAST_STEPS = 20  # however slow the model is
MOST_EPOCHS = 3  # however fast
_VALIDATION_EPOCH = 2**31  # training never reaches it


def learn_to_rerank(
  model: LanguageModel,
  lists: Sequence[TrainingLists],
  prepared: Prepared,
  *,
  settings: ExampleSettings,
  tuning: FinetuneConfig,
  workdir: pathlib.Path,
  objective: str = "softmax",
  minutes: float | None = None,
  stop: Callable[[], int] = lambda: 0,
  log: Log = SILENT,
) -> Finetuned:
  """Fine-tunes on out-of-fold candidates with a listwise loss over their labels.

  The run's validation ratings stay unseen, so that fusion can measure on them what the result is
  worth. The checkpoint is chosen by the loss on the lists of a twentieth of the users.

  Args:
    model: the decoder.
    lists: from `out_of_fold_lists`.
    prepared: titles and which ratings are liked and disliked.
    settings: of the examples.
    tuning: of the training; `mode` is lora or full.
    workdir: for checkpoints and metrics; the caller holds its lock.
    objective: in `OBJECTIVES`.
    minutes: about how long training may take, which then decides the number of steps; None for as
      many as `tuning` says.
    stop, log: as in `finetune`.
  Raises:
    InputError: for leaking lists or prompts that do not fit, or as `finetune`.
    Interrupted: if `stop` returned a signal.
  """
  named = unique_titles(prepared.item_fields, prepared.interactions.item_ids)
  lists = [without_leaks(part, named) for part in lists]
  training, validation = split_lists(lists, share=VALIDATION_SHARE, seed=settings.seed)
  titles = prompt_titles(model, prepared)

  def make(parts: Sequence[TrainingLists], epoch: int) -> list[LabelExample]:
    return ranking_examples(
      model, parts, epoch, settings=settings, titles=titles, feedback=prepared.feedback
    )

  return _finetuned(
    model,
    lambda epoch: make(training, epoch),
    make(validation, _VALIDATION_EPOCH) if validation else (),
    tuning,
    objective=OBJECTIVES[objective],
    workdir=workdir,
    minutes=minutes,
    stop=stop,
    log=log,
  )


def learn_histories(
  model: LanguageModel,
  prepared: Prepared,
  *,
  liked: int,
  disliked: int,
  tuning: FinetuneConfig,
  workdir: pathlib.Path,
  minutes: float | None = None,
  stop: Callable[[], int] = lambda: 0,
  log: Log = SILENT,
) -> Finetuned:
  """Fine-tunes on the histories of users, for the strategy `title`.

  Only training ratings are read; validation ratings stay unseen, as in `learn_to_rerank`. The
  checkpoint is chosen by the loss on the histories of a twentieth of the users.

  Args, Raises: as `learn_to_rerank`, and liked, disliked: the most of each in a prompt.
  """
  titles, train = prompt_titles(model, prepared), prepared.train
  chosen = _validation_users(train.num_users, share=VALIDATION_SHARE, seed=tuning.seed)
  users = distinct(train.user)

  def make(users: np.ndarray, epoch: int) -> list[CompletionExample]:
    return history_examples(
      model,
      train,
      users,
      epoch,
      titles=titles,
      feedback=prepared.feedback,
      liked=liked,
      disliked=disliked,
      seed=tuning.seed,
    )

  return _finetuned(
    model,
    lambda epoch: make(users[~chosen[users]], epoch),
    make(users[chosen[users]], _VALIDATION_EPOCH),
    tuning,
    objective=objectives.next_token,
    workdir=workdir,
    minutes=minutes,
    stop=stop,
    log=log,
  )


def _finetuned(
  model: LanguageModel,
  examples: Callable[[int], Sequence[Example]],
  validation: Sequence[Example],
  tuning: FinetuneConfig,
  *,
  objective: objectives.Objective,
  workdir: pathlib.Path,
  minutes: float | None,
  stop: Callable[[], int],
  log: Log,
) -> Finetuned:
  if minutes is not None:
    tuning = _within(
      minutes, model, examples, tuning, objective=objective, workdir=workdir, log=log
    )
  return finetune(
    model,
    examples,
    tuning,
    workdir=workdir,
    objective=objective,
    stop=stop,
    log=log,
    validation=validation,
  )


def _within(
  minutes: float,
  model: LanguageModel,
  examples: Callable[[int], Sequence[Example]],
  tuning: FinetuneConfig,
  *,
  objective: objectives.Objective,
  workdir: pathlib.Path,
  log: Log,
) -> FinetuneConfig:
  """The settings with as many steps as fit, at most `MOST_EPOCHS`, by a step measured now or by an
  earlier process, so that an interrupted training goes on with the same number."""
  path = workdir / "pace.json"
  if not path.exists():
    runs.write_sealed(path, dataclasses.asdict(pace_of(model, examples(0), tuning, objective)))
  pace = Pace(**runs.read_sealed(path))
  steps = max(LEAST_STEPS, int(60 * minutes / pace.seconds_per_step))
  steps = min(steps, MOST_EPOCHS * pace.steps_per_epoch)
  log.info(
    f"finetune: plan: {steps} steps of {pace.tokens_per_step:,} tokens and "
    f"{pace.seconds_per_step:.3g} s, {steps / pace.steps_per_epoch:.2g} epochs: "
    f"{steps * pace.tokens_per_step:,} tokens in {steps * pace.seconds_per_step / 60:.1f} minutes"
  )
  return dataclasses.replace(tuning, steps=steps)


def tuning_for(strategies: Sequence[str]) -> FinetuneConfig:
  """The default settings for the strategies that a model is to learn."""
  if LEARNED_ALONE in strategies:
    return HISTORIES
  return FinetuneConfig()


def split_lists(
  lists: Sequence[TrainingLists], *, share: float, seed: int
) -> tuple[list[TrainingLists], list[TrainingLists]]:
  """Divides lists into those for training and those of a share of the users, for validation.

  Empty folds are left out.
  """
  chosen = _validation_users(lists[0].history.num_users, share=share, seed=seed)
  return _of_users(lists, ~chosen), _of_users(lists, chosen)


def _validation_users(num_users: int, *, share: float, seed: int) -> np.ndarray:
  """[U] bool, a random share of the users."""
  chosen = np.zeros(num_users, bool)
  chosen[np.random.default_rng(seed).permutation(num_users)[: round(share * num_users)]] = True
  return chosen


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
