"""A trained run extended by new ratings, users and items, without training again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from gatrec_jax.data.interactions import Interactions, pair_keys
from gatrec_jax.data.prepared import Prepared
from gatrec_jax.data.split_draws import Split
from gatrec_jax.errors import InputError
from gatrec_jax.serve.run import Run, assemble_run, recommender_and_inputs
from gatrec_jax.stages.texts import Texts, texts_of_new_items
from gatrec_jax.train.fitted import fit_params

_NO_FIELDS: Mapping[str, Mapping[str, Any]] = MappingProxyType({})


def with_new_ratings(
  run: Run, added: Interactions, item_fields: Mapping[str, Mapping[str, Any]] = _NO_FIELDS
) -> Run:
  """The run as if `added` had been among its training ratings, its learned parameters as they are.

  The graph, the linear channel and fitted models are computed again from all ratings. A user or
  item without training ratings gets the mean of the learned vectors as its own (with
  `node_features=table`: its text), so that its neighbors determine its scores. The text of such a
  user is built from the added ratings, that of a new item from its fields. A rating of a known pair
  replaces the former one, in whichever part that was.

  Args:
    run: stays as it is.
    added: ratings, with ids of their own vocabularies; may be empty.
    item_fields: by item id, the fields of new items, rated or not (title, genres, …).
  Returns: a run in memory; its folder is not touched.
  Raises: InputError: a model that can do so only by training again.
  """
  recommender = run.recommender
  if not recommender.takes_new_ratings:
    raise InputError(
      f"{run.workdir}: {recommender.settings.kind} cannot take new ratings or items without "
      "training again; the GAT's presets and the models in closed form can"
    )
  former = run.prepared.interactions
  prepared = _joined(run.prepared, added, item_fields)
  texts = _grown_texts(run, prepared)
  recommender, inputs = recommender_and_inputs(run.config, prepared, texts)
  if recommender.learned:
    params = recommender.grown(
      run.params, inputs, former=run.inputs, num_users=former.num_users, num_items=former.num_items
    )
  else:
    params = fit_params(inputs, jax.random.key(run.config.train.seed), recommender=recommender)
  return assemble_run(
    run.workdir,
    config=run.config,
    prepared=prepared,
    texts=texts,
    recommender=recommender,
    params=params,
    inputs=inputs,
  )


def _joined(
  prepared: Prepared, added: Interactions, item_fields: Mapping[str, Mapping[str, Any]]
) -> Prepared:
  """The added rows in the training part, new ids after the old ones.

  Rows without times come after all others, in their order.
  """
  former = prepared.interactions
  user_ids = _longer(former.user_ids, added.user_ids)
  item_ids = _longer(former.item_ids, (*added.item_ids, *item_fields))
  new = dataclasses.replace(
    added,
    user=_places(added.user_ids, user_ids)[added.user],
    item=_places(added.item_ids, item_ids)[added.item],
    user_ids=user_ids,
    item_ids=item_ids,
  )
  old = dataclasses.replace(former, user_ids=user_ids, item_ids=item_ids)
  replaced = np.isin(pair_keys(old), pair_keys(new))
  if former.timestamp.any() and len(new) and not new.timestamp.any():
    times = former.timestamp.max() + 1 + np.arange(len(new))
    new = dataclasses.replace(new, timestamp=times)
  columns = {
    name: np.concatenate([getattr(old, name), getattr(new, name)])
    for name in ("user", "item", "rating", "timestamp")
  }
  split = Split(
    train=np.append(
      prepared.split.train[~replaced[prepared.split.train]], len(old) + np.arange(len(new))
    ),
    valid=prepared.split.valid[~replaced[prepared.split.valid]],
    test=prepared.split.test[~replaced[prepared.split.test]],
  )
  fields = list(prepared.item_fields)
  fields += [item_fields.get(item_id, {}) for item_id in item_ids[former.num_items :]]
  return dataclasses.replace(
    prepared,
    interactions=dataclasses.replace(old, **columns),
    split=split,
    item_fields=fields,
    num_later=prepared.num_later + len(item_ids) - former.num_items,
    later_users=(*prepared.later_users, *np.setdiff1d(new.user, prepared.train.user).tolist()),
  )


def _longer(known: Sequence[str], more: Sequence[str]) -> tuple[str, ...]:
  there = set(known)
  return (*known, *dict.fromkeys(raw_id for raw_id in more if raw_id not in there))


def _places(ids: Sequence[str], vocabulary: Sequence[str]) -> np.ndarray:
  """[n] int32 positions of ids in the vocabulary."""
  place = {raw_id: index for index, raw_id in enumerate(vocabulary)}
  return np.array([place[raw_id] for raw_id in ids], np.int32)


def _grown_texts(run: Run, prepared: Prepared) -> Texts:
  """The text vectors of the run, and those of its new users and items."""
  former, now = run.prepared.interactions, prepared.interactions
  train = prepared.train
  vectors, width = run.texts.vectors, run.texts.vectors.shape[1]
  of_users = np.zeros((now.num_users, width), np.float32)
  of_users[: former.num_users] = vectors[: former.num_users]
  known = np.bincount(run.prepared.train.user, minlength=now.num_users)
  new = np.flatnonzero((known == 0) & (np.bincount(train.user, minlength=now.num_users) > 0))
  if len(new):
    rows = [train.take(train.user == user) for user in new]
    # Only of items that have a text of their own.
    rows = [one.take(one.item < former.num_items) for one in rows]
    of_users[new] = run.texts_of_new_users(
      [one.item[prepared.feedback.liked(one.rating)] for one in rows],
      [one.item[prepared.feedback.disliked(one.rating)] for one in rows],
    )
  of_items = texts_of_new_items(
    run.workdir,
    run.config.text,
    run.texts,
    known=run.prepared.item_fields,
    new=prepared.item_fields[former.num_items :],
    noun=prepared.item_noun,
  )
  return dataclasses.replace(
    run.texts,
    vectors=np.concatenate([of_users, vectors[former.num_users :], of_items]),
    num_users=now.num_users,
  )
