"""A trained run: its folder opened, the model and its inputs put together."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from gatrec_jax import runs
from gatrec_jax.config.overrides import to_json
from gatrec_jax.config.schema import Config
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.data.prepared import Prepared
from gatrec_jax.data.splits import BY_TIME
from gatrec_jax.errors import InputError
from gatrec_jax.models.base import Kept, Recommender, call, make_inputs
from gatrec_jax.models.inputs import Inputs
from gatrec_jax.models.registry import make_recommender
from gatrec_jax.profiles.attributes import item_attributes
from gatrec_jax.runs.checkpoints import read_best
from gatrec_jax.runs.paths import user_path
from gatrec_jax.serve.kept import kept_linear, with_choices
from gatrec_jax.stages.config_file import read_config
from gatrec_jax.stages.data import load_prepared
from gatrec_jax.stages.texts import Texts, TextsOfNewUsers, load_texts, no_texts, texts_of_new_users
from gatrec_jax.train.hyperparameters import Dynamic, recommender_with, split_settings
from gatrec_jax.train.loop import shapes_of_params


@dataclasses.dataclass(frozen=True)
class Run:
  """A trained run.

  Attributes:
    workdir: its folder.
    config: its settings, with those that training chose.
    prepared: interactions, split, item fields.
    texts: text vectors and where they came from.
    recommender: the model.
    params: of the chosen checkpoint.
    inputs: the ratings (and texts) that it serves from.
    serving_state: what `recommender.score` needs.
    histories: the ratings in `inputs`: the training rows, for a split by time with the
      validation rows (`in_histories`).
  """

  workdir: pathlib.Path
  config: Config
  prepared: Prepared
  texts: Texts
  recommender: Recommender
  params: Any
  inputs: Inputs
  serving_state: Any
  histories: Interactions

  @functools.cached_property
  def texts_of_new_users(self) -> TextsOfNewUsers:
    """Describes new users by their items; made once, since it reads all profiles."""
    return texts_of_new_users(self.workdir, self.config.text, self.prepared, self.texts)

  @functools.cached_property
  def rating_range(self) -> tuple[float, float]:
    """The highest and the lowest training rating, as features of edges."""
    scaled = self.prepared.feedback.judge(self.prepared.train.rating).scaled
    return float(scaled.max()), float(scaled.min())

  @functools.cached_property
  def content_hash(self) -> str:
    """A hash of the model's settings and parameters, and of the data and texts that it serves from.

    What is made from a run is tied to it, not to its folder, which may be trained anew.
    """
    leaves = jax.tree.leaves((self.params, self.texts.vectors))
    arrays = [np.ascontiguousarray(leaf) for leaf in leaves]
    return runs.digest(
      to_json(self.config)["model"],
      self.prepared.facts["content"],
      [[str(array.dtype), array.shape] for array in arrays],
      *(array.tobytes() for array in arrays),
    )

  @functools.cached_property
  def user_index(self) -> Mapping[str, int]:
    """Index of each user id."""
    return {raw_id: index for index, raw_id in enumerate(self.prepared.interactions.user_ids)}

  @functools.cached_property
  def item_index(self) -> Mapping[str, int]:
    """Index of each item id."""
    return {raw_id: index for index, raw_id in enumerate(self.prepared.interactions.item_ids)}


def assemble_run(
  workdir: pathlib.Path,
  *,
  config: Config,
  prepared: Prepared,
  texts: Texts,
  recommender: Recommender,
  params: Any,
  inputs: Inputs,
) -> Run:
  """Computes the serving state and puts a Run together.

  With a split by time the validation ratings, which users gave between those of training and
  that of the test, are added to the histories, if `in_histories` says so. All that was fitted to
  the training ratings stays as it is.

  Args: inputs: of the training ratings.
  """
  histories = prepared.train
  if in_histories(config, prepared, recommender, params):
    histories, former = prepared.known, inputs
    inputs = _inputs_of(recommender, histories, config, prepared, texts, kept=_weights_in(former))
    if recommender.learned:
      params = recommender.grown(
        params,
        inputs,
        former=former,
        num_users=recommender.num_users,
        num_items=recommender.num_items,
      )
  state = make_serving_state(params, inputs, recommender=recommender)
  return Run(workdir, config, prepared, texts, recommender, params, inputs, state, histories)


def in_histories(config: Config, prepared: Prepared, recommender: Recommender, params: Any) -> bool:
  """Whether a finished run has the validation ratings in the histories that it serves from.

  So it is with splits by time (`BY_TIME`), for models that take new ratings without training: the
  GAT, and fitted ones whose parameters do not hold the users (iALS has a row of each, named
  `user`).
  """
  return (
    config.data.split_kind in BY_TIME
    and len(prepared.split.valid) > 0
    and recommender.takes_new_ratings
    and "user" not in params
  )


def before_validation(run: Run) -> Run:
  """The run with the training ratings alone in its histories."""
  if not in_histories(run.config, run.prepared, run.recommender, run.params):
    return run
  inputs = _inputs_of(
    run.recommender,
    run.prepared.train,
    run.config,
    run.prepared,
    run.texts,
    kept=_weights_in(run.inputs),
  )
  state = make_serving_state(run.params, inputs, recommender=run.recommender)
  return dataclasses.replace(run, inputs=inputs, serving_state=state, histories=run.prepared.train)


def _weights_in(inputs: Inputs) -> Kept:
  """Gives the weights of the linear channel in the inputs of a GAT."""
  return lambda fit: inputs.own.linear[0]


def make_serving_state(params: Any, inputs: Inputs, *, recommender: Recommender) -> Any:
  """What `recommender.score` needs, computed once from the parameters, as a compiled program."""
  dynamic, recommender = split_settings(recommender)
  return _make_serving_state(params, inputs, dynamic, recommender=recommender)


@functools.partial(jax.jit, static_argnames=("recommender",))
def _make_serving_state(
  params: Any, inputs: Inputs, dynamic: Dynamic, *, recommender: Recommender
) -> Any:
  return recommender_with(recommender, dynamic).serving_state(params, inputs)


def recommender_and_inputs(
  config: Config, prepared: Prepared, texts: Texts, *, kept: Kept = call
) -> tuple[Recommender, Inputs]:
  """The model of a run and what it trains on: the training rows alone.

  Where there is no text at all, the GAT's features are ids, whatever the configuration says.

  Args: kept: gives the linear channel's weights (`kept_linear`); by default they are fitted.
  Raises: InputError: no text, for a model that recommends by text.
  """
  interactions = prepared.interactions
  settings = config.model if texts.is_text else config.model.without_text()
  recommender = make_recommender(
    settings, num_users=interactions.num_users, num_items=interactions.num_items
  )
  return recommender, _inputs_of(recommender, prepared.train, config, prepared, texts, kept=kept)


def _inputs_of(
  recommender: Recommender,
  rows: Interactions,
  config: Config,
  prepared: Prepared,
  texts: Texts,
  *,
  kept: Kept,
) -> Inputs:
  return make_inputs(
    recommender,
    rows,
    text=texts.vectors,
    feedback=prepared.feedback,
    attributes=item_attributes(prepared.item_fields) if config.model.reads_attributes else None,
    new=_new_items(config, prepared),
    later=np.isin(np.arange(recommender.num_users), prepared.later_users),
    kept=kept,
  )


def _new_items(config: Config, prepared: Prepared) -> np.ndarray:
  """[I] bool, items that came after training; for a split by whole items, the held-out ones."""
  num_items = prepared.interactions.num_items
  new = np.arange(num_items) >= num_items - prepared.num_later
  if config.data.split_kind == "cold_items":
    new |= np.bincount(prepared.train.item, minlength=num_items) == 0
  return new


def load_run(workdir: str | os.PathLike[str]) -> Run:
  """Opens the best checkpoint of a run that `launch.train` made.

  Raises:
    InputError: no run there, made by another version, not trained yet, or damaged.
  """
  folder = user_path(workdir)
  config = with_choices(read_config(folder), folder)
  prepared = load_prepared(folder)
  texts = load_texts(folder) if config.model.reads_text else no_texts(prepared)
  # Otherwise the next check would be a note of what is about to be trained: readers write nothing.
  if not runs.has_checkpoints(folder):
    raise _without_checkpoint(folder)
  runs.require_same_origin(folder, "text vectors", texts.digest)
  kept = kept_linear(config, prepared, folder, log=None)
  recommender, inputs = recommender_and_inputs(config, prepared, texts, kept=kept)
  found = read_best(folder / "checkpoints", {"params": shapes_of_params(inputs, recommender)})
  if found is None:
    raise _without_checkpoint(folder)
  return assemble_run(
    folder,
    config=config,
    prepared=prepared,
    texts=texts,
    recommender=recommender,
    params=found["params"],
    inputs=inputs,
  )


def _without_checkpoint(folder: pathlib.Path) -> InputError:
  if (folder / "results.json").exists():
    return InputError(
      f"{folder}: its checkpoints are gone; restore them from a copy, or run launch.train with "
      "this `workdir` to train anew"
    )
  return InputError(
    f"{folder}: not trained yet; run launch.train with this `workdir` first, or wait for its first "
    "checkpoint"
  )


def indices_of(ids: Sequence[str | int], index: Mapping[str, int], kind: str) -> np.ndarray:
  """[n] int64 indices of raw ids.

  Args: index: `Run.user_index` or `Run.item_index`. kind: `user` or `item`, for the message.
  Raises: InputError for ids that are not there.
  """
  if missing := [str(one) for one in ids if str(one) not in index]:
    raise InputError(
      f"{kind} {', '.join(missing[:5])}: not in the catalog ({len(index)} {kind}s, such as "
      f"{', '.join(itertools.islice(index, 3))})"
    )
  return np.array([index[str(one)] for one in ids], np.int64)


def require_positive(top_n: int) -> None:
  """Raises InputError for a length of lists below 1."""
  if top_n < 1:
    raise InputError("must be at least 1", field="top_n", value=top_n)
