"""A finished run, to ask: scores, recommendations, vectors, also for users it has never seen."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from gatrec_jax import runs
from gatrec_jax.config.overrides import from_json
from gatrec_jax.config.schema import Config
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.data.prepared import Prepared
from gatrec_jax.errors import InputError, require_list
from gatrec_jax.evaluate.evaluation import Evaluation
from gatrec_jax.evaluate.ranking import full_ranking, judged_ranking
from gatrec_jax.models.base import Recommender
from gatrec_jax.models.inputs import Inputs, NewUsers
from gatrec_jax.models.registry import make_recommender
from gatrec_jax.ops.scores import dot_product_scores
from gatrec_jax.ops.top_k import top_items_by
from gatrec_jax.profiles.attributes import item_attributes
from gatrec_jax.runs.checkpoints import Checkpoints
from gatrec_jax.stages.data import load_prepared
from gatrec_jax.stages.texts import Texts, load_texts, texts_of_new_users
from gatrec_jax.train.loop import restore_params
from gatrec_jax.train.state import make_serving_state, training_inputs


@dataclasses.dataclass(frozen=True)
class Run:
  """A trained run.

  Attributes:
    workdir: its folder.
    config: its settings.
    prepared: interactions, split, item fields.
    texts: text vectors and where they came from.
    method: the model.
    params: of the chosen checkpoint.
    inputs: the training ratings (and texts) that it serves from.
    tables: what `method.score` needs.
  """

  workdir: pathlib.Path
  config: Config
  prepared: Prepared
  texts: Texts
  recommender: Recommender
  params: Any
  inputs: Inputs
  serving_state: Any

  @property
  def has_vectors(self) -> bool:
    """Whether the score is the dot product of a user's and an item's vector."""
    return self.recommender.score is dot_product_scores

  @property
  def user_vectors(self) -> jax.Array:
    """[U, D] float32. Raises InputError where the model scores in another way."""
    return self._vectors()[0]

  @property
  def item_vectors(self) -> jax.Array:
    """[I, D] float32; the dot product of the two is the score."""
    return self._vectors()[1]

  def _vectors(self) -> tuple[jax.Array, jax.Array]:
    if not self.has_vectors:
      raise InputError(
        f"{self.workdir}: {self.config.model.kind} scores without vectors of users and items"
      )
    return self.serving_state


@dataclasses.dataclass(frozen=True)
class Recommendations:
  """Lists of items.

  Attributes:
    users: [m] user ids as strings ("" for a user given by liked items).
    items: [m] lists of item ids, best first; shorter than asked where candidates run out.
    titles: [m] lists of titles, "" where an item has none.
    scores: [m] lists of floats.
  """

  users: Sequence[str]
  items: Sequence[Sequence[str]]
  titles: Sequence[Sequence[str]]
  scores: Sequence[Sequence[float]]


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
  """Makes the tables behind the scores and puts a Run together."""
  serving_state = make_serving_state(params, inputs, recommender=recommender)
  return Run(workdir, config, prepared, texts, recommender, params, inputs, serving_state)


def recommender_and_inputs(
  config: Config, prepared: Prepared, texts: Texts
) -> tuple[Recommender, Inputs]:
  """The model of a run and what it trains on and serves from: the training rows alone."""
  interactions = prepared.interactions
  recommender = make_recommender(
    config.model, num_users=interactions.num_users, num_items=interactions.num_items
  )
  return recommender, recommender_inputs(recommender, config, prepared, texts)


def recommender_inputs(
  recommender: Recommender, config: Config, prepared: Prepared, texts: Texts
) -> Inputs:
  """What a method trains on and serves from: the training rows alone."""
  return training_inputs(
    recommender,
    prepared.train,
    text=texts.vectors,
    config=config.train,
    feedback=prepared.feedback,
    attributes=item_attributes(prepared.item_fields)
    if recommender.settings.reads_attributes
    else None,
    new=_new_items(config, prepared),
    later=np.isin(np.arange(prepared.interactions.num_users), prepared.later_users),
  )


def _new_items(config: Config, prepared: Prepared) -> np.ndarray:
  """[I] bool: what came after training; of a split by whole items those that it holds out."""
  num_items = prepared.interactions.num_items
  new = np.arange(num_items) >= num_items - prepared.num_later
  if config.data.split == "cold_items":
    new |= np.bincount(prepared.train.item, minlength=num_items) == 0
  return new


def load_run(workdir: str | os.PathLike[str]) -> Run:
  """Opens the best checkpoint of a run that `launch.train` made.

  Raises:
    InputError: no run there, not trained yet, or damaged.
  """
  folder = pathlib.Path(workdir).expanduser()
  config = read_config(folder)
  prepared = load_prepared(folder)
  texts = load_texts(folder, config)
  if not (folder / "checkpoints").is_dir():
    raise InputError(f"{folder}: not trained yet; run launch.train with this `workdir` first")
  runs.require_same_origin(folder, "text vectors", texts.digest)
  recommender, inputs = recommender_and_inputs(config, prepared, texts)
  checkpoints = Checkpoints(folder / "checkpoints")
  try:
    best = checkpoints.best()
    if best is None:
      raise InputError(f"{folder}: not trained yet; run launch.train with this `workdir` first")
    params = restore_params(checkpoints, best, inputs, recommender)
  finally:
    checkpoints.close()
  return assemble_run(
    folder,
    config=config,
    prepared=prepared,
    texts=texts,
    recommender=recommender,
    params=params,
    inputs=inputs,
  )


def read_config(workdir: pathlib.Path) -> Config:
  """The settings a run folder was made with. Raises InputError where there are none."""
  return from_json(runs.read_json(workdir / "config.json")["config"])


def score(run: Run, users: Sequence[str | int]) -> np.ndarray:
  """[B, I] float32 scores of every item for the given user ids; seen items are not masked.

  Raises:
    InputError: an unknown user id, or a lone id instead of a list.
  """
  users = require_list(users, field="users")
  index = indices_of(users, run.prepared.interactions.user_ids, "user")
  return np.asarray(run.recommender.score(run.serving_state, jax.numpy.asarray(index)), np.float32)


def top_lists(
  run: Run, users: np.ndarray, *, k: int, exclude_seen: bool = True
) -> tuple[np.ndarray, np.ndarray]:
  """The best items of the users with those indices, without what they are known to have rated.

  Args:
    users: [m] int32.
    k: length of the lists.
    exclude_seen: leave out training and validation items.
  Returns:
    items [m, k] int32 (−1 where candidates run out) and scores [m, k] float32.
  """
  return lists_without(run, users, seen=run.prepared.known if exclude_seen else None, k=k)


def lists_without(
  run: Run, users: np.ndarray, *, seen: Interactions | None, k: int
) -> tuple[np.ndarray, np.ndarray]:
  """The same without the pairs of `seen`, whatever they are."""
  return top_items_by(
    run.recommender.score,
    run.serving_state,
    users,
    num_items=run.recommender.num_items,
    seen=seen,
    k=k,
    memory_mb=run.config.evaluate.evaluate_memory_mb,
  )


def recommend(
  run: Run, users: Sequence[str | int] | None = None, *, top_n: int = 10, exclude_seen: bool = True
) -> Recommendations:
  """The best items for the given user ids (None = all).

  Raises:
    InputError: an unknown user id, a lone id instead of a list, or `top_n` below 1.
  """
  _require_positive(top_n)
  users = None if users is None else require_list(users, field="users")
  user_ids = run.prepared.interactions.user_ids
  index = np.arange(len(user_ids)) if users is None else indices_of(users, user_ids, "user")
  items, scores = top_lists(run, index.astype(np.int32), k=top_n, exclude_seen=exclude_seen)
  return _named(run, [user_ids[u] for u in index], items, scores)


def recommend_to_new_user(
  run: Run,
  liked: Sequence[str | int],
  *,
  disliked: Sequence[str | int] = (),
  top_n: int = 10,
  exclude_seen: bool = True,
) -> Recommendations:
  """The best items for somebody known only by liked (and disliked) items; nothing is retrained.

  To the GAT the user becomes a node that receives from those items (the highest and the lowest
  training rating as the edge's rating, the latest time), with the text built from them.

  Raises:
    InputError: no liked item, a lone id instead of a list, an unknown or repeated item id, `top_n`
      below 1, or a model that serves only those it was trained on.
  """
  _require_positive(top_n)
  liked = require_list(liked, field="liked")
  disliked = require_list(disliked, field="disliked")
  if not liked:
    raise InputError("give at least one item id", field="liked")
  item_ids = run.prepared.interactions.item_ids
  good, bad = indices_of(liked, item_ids, "item"), indices_of(disliked, item_ids, "item")
  both = np.concatenate([good, bad])
  if len(np.unique(both)) < len(both):
    raise InputError("an item id is given twice, or as liked and as disliked", field="liked")
  all_scores = new_user_scores(run, liked=[good], disliked=[bad])
  seen = None
  if exclude_seen:
    seen = dataclasses.replace(
      run.prepared.interactions.take(np.zeros(0, np.int64)),
      user=np.zeros(len(both), np.int32),
      item=both.astype(np.int32),
    )
  items, scores = top_items_by(
    _given_scores,
    all_scores,
    np.zeros(1, np.int32),
    num_items=len(item_ids),
    seen=seen,
    k=top_n,
    memory_mb=run.config.evaluate.evaluate_memory_mb,
  )
  return _named(run, [""], items, scores)


def new_user_scores(
  run: Run, *, liked: Sequence[np.ndarray], disliked: Sequence[np.ndarray]
) -> jax.Array:
  """[B, I] scores for B users given by item indices; nothing is retrained."""
  rating = run.prepared.train.rating
  text = texts_of_new_users(
    run.workdir, run.config, run.prepared, run.texts, liked=liked, disliked=disliked
  )
  users = NewUsers(list(liked), list(disliked), text, float(rating.max()), float(rating.min()))
  return run.recommender.score_new(run.params, run.inputs, run.serving_state, users)


def _given_scores(scores: jax.Array, users: jax.Array) -> jax.Array:
  return scores[users]


def evaluate_lists(
  items: np.ndarray,
  users: np.ndarray,
  *,
  config: Config,
  prepared: Prepared,
  item_vectors: np.ndarray | None = None,
) -> dict[str, Evaluation]:
  """Test metrics of recommendation lists under `config.evaluate.protocol`.

  Args:
    items: [m, K] int32 item indices, best first, −1 where a list ends.
    users: [m] int32, whose lists they are.
    config: protocol, cut-offs, number of resamples.
    prepared: the truth.
    item_vectors: [I, D] text vectors for the diversity, or None.
  Returns:
    Evaluations by protocol, "full" and/or "judged".
  """
  settings = config.evaluate
  common = dict(
    train=prepared.known,
    test=prepared.test,
    feedback=prepared.feedback,
    ks=settings.ks,
    num_bootstrap=settings.bootstrap,
  )
  out = {}
  if settings.protocol in ("full", "both"):
    out["full"] = full_ranking(items, users, item_vectors=item_vectors, **common)
  if settings.protocol in ("judged", "both"):
    out["judged"] = judged_ranking(items, users, **common)
  return out


def evaluate_run(run: Run) -> tuple[dict[str, Evaluation], np.ndarray, np.ndarray]:
  """Test metrics of a run, and all users' lists: [U, K] int32 items and [U, K] float32 scores."""
  users = np.arange(run.prepared.interactions.num_users, dtype=np.int32)
  items, scores = top_lists(run, users, k=max(run.config.evaluate.ks))
  vectors = None  # no vectors, no diversity
  if run.texts.is_text:
    vectors = run.texts.item_vectors
  elif run.has_vectors:
    vectors = np.asarray(run.item_vectors)
  evaluations = evaluate_lists(
    items, users, config=run.config, prepared=run.prepared, item_vectors=vectors
  )
  return evaluations, items, scores


def results_json(evaluations: Mapping[str, Evaluation], **facts: Any) -> dict[str, Any]:
  """The form of `results.json`: metrics by protocol, per training-count bucket, and facts."""
  out: dict[str, Any] = {name: e.to_json() for name, e in evaluations.items()}
  for name, evaluation in evaluations.items():
    out[f"{name}_by_training_count"] = evaluation.buckets_to_json()
  return {**out, **facts}


def export_embeddings(run: Run, path: str | os.PathLike[str]) -> None:
  """Writes `users.npy`, `items.npy` ([n, D] float32) and their ids (`users.txt`, `items.txt`, one
  a line, same order) to a folder; a dot product scores, so an inner-product ANN index serves."""
  folder = runs.open_workdir(path)
  interactions = run.prepared.interactions
  for name, vectors, ids in (
    ("users", run.user_vectors, interactions.user_ids),
    ("items", run.item_vectors, interactions.item_ids),
  ):
    with runs.atomic_path(folder / f"{name}.npy") as temporary, open(temporary, "wb") as out:
      np.save(out, np.asarray(vectors, np.float32), allow_pickle=False)
    with runs.atomic_path(folder / f"{name}.txt") as temporary:
      temporary.write_text("\n".join(ids) + "\n", "utf-8")


def write_lists(path: pathlib.Path, lists: Recommendations) -> None:
  """Writes lists as .parquet, .csv or .jsonl with user_id, item_id, rank, title, score a row.

  Raises:
    InputError: another ending.
  """
  import pyarrow as pa
  import pyarrow.csv
  import pyarrow.parquet

  if path.suffix not in (".parquet", ".csv", ".jsonl"):
    raise InputError("must end in .parquet, .csv or .jsonl", field="out", value=path)
  rows = [
    {"user_id": user, "item_id": item, "rank": rank, "title": title, "score": score}
    for user, items, titles, scores in zip(
      lists.users, lists.items, lists.titles, lists.scores, strict=True
    )
    for rank, (item, title, score) in enumerate(zip(items, titles, scores, strict=True), 1)
  ]
  with runs.atomic_path(path) as temporary:
    if path.suffix == ".jsonl":
      lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
      temporary.write_text("".join(lines), "utf-8")
    elif path.suffix == ".csv":
      pyarrow.csv.write_csv(pa.Table.from_pylist(rows), temporary)
    else:
      pyarrow.parquet.write_table(pa.Table.from_pylist(rows), temporary)


def _named(
  run: Run, users: Sequence[str], items: np.ndarray, scores: np.ndarray
) -> Recommendations:
  item_ids, fields = run.prepared.interactions.item_ids, run.prepared.item_fields
  rows = [[int(i) for i in row if i >= 0] for row in items]
  return Recommendations(
    users=users,
    items=[[item_ids[i] for i in row] for row in rows],
    titles=[[str(fields[i].get("title", "")) for i in row] for row in rows],
    scores=[[float(s) for s in scores[m, : len(row)]] for m, row in enumerate(rows)],
  )


def indices_of(ids: Sequence[str | int], vocabulary: Sequence[str], kind: str) -> np.ndarray:
  """[n] int64, where the raw ids stand. Args: kind: `user` or `item`, for the message.

  Raises: InputError for ids that are not there.
  """
  positions = {raw: i for i, raw in enumerate(vocabulary)}
  missing = [str(i) for i in ids if str(i) not in positions]
  if missing:
    raise InputError(
      f"{kind} {', '.join(missing[:5])}: not in the catalog ({len(vocabulary)} {kind}s, such as "
      f"{', '.join(vocabulary[:3])})"
    )
  return np.array([positions[str(i)] for i in ids], np.int64)


def _require_positive(top_n: int) -> None:
  if top_n < 1:
    raise InputError("must be at least 1", field="top_n", value=top_n)
