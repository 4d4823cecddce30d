"""The main job: ratings and text in; a trained GAT, honest metrics and recommendations out."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jraph
import numpy as np

from gatrec_jax import runs
from gatrec_jax.config import Config, differences, from_json, to_json
from gatrec_jax.errors import InputError
from gatrec_jax.evaluate.files import write_recommendations
from gatrec_jax.evaluate.ranking import full_ranking
from gatrec_jax.evaluate.top_items import top_items
from gatrec_jax.models.gat import GatRecommender
from gatrec_jax.train.loop import Progress, fit
from gatrec_jax.train.serving import (
  Run,
  assemble_run,
  evaluate_run,
  results_json,
  training_graph,
)
from gatrec_jax.train.stages import Prepared, Say, prepare
from gatrec_jax.train.state import make_model, make_training_data, node_vectors
from gatrec_jax.train.texts import embed_run

_TRAINED_STAGES = ("data", "text", "model", "train")


def open_run(config: Config, workdir: str | os.PathLike[str]) -> pathlib.Path:
  """Makes the run folder and writes `config.json`.

  Raises:
    InputError: the folder cannot be written to, or holds checkpoints of another configuration.
  """
  folder = runs.open_workdir(workdir)
  path = folder / "config.json"
  if path.exists() and runs.has_checkpoints(folder):
    former = from_json(runs.read_json(path)["config"])
    if changed := differences(former, config, stages=_TRAINED_STAGES):
      raise InputError(
        f"--workdir={workdir}: holds a run of another configuration ({'; '.join(changed)}); "
        "use another --workdir, or delete this one"
      )
  runs.write_json(path, {"config": to_json(config), "environment": runs.environment()})
  return folder


def train_and_evaluate(
  config: Config, workdir: str | os.PathLike[str], *, say: Say = print
) -> tuple[Run, dict[str, Any]]:
  """Runs every stage that is not done yet and ends with the test metrics of the chosen checkpoint.

  The test part is read once, after training, for `results.json` and `recommendations.parquet`.

  Args:
    config: all settings.
    workdir: the run folder; made if there is none, gone on with if there is.
    say: where lines for the user go.
  Returns:
    The trained run and the content of `results.json`.
  Raises:
    InputError: anything wrong with files, flags or data.
    Interrupted: a signal came; the same call goes on.
  """
  folder = open_run(config, workdir)
  with runs.locked(folder):
    run, progress = train(config, folder, say=say)
    evaluations, items, scores = evaluate_run(run)
    interactions = run.prepared.interactions
    write_recommendations(
      folder / "recommendations.parquet",
      users=np.arange(interactions.num_users, dtype=np.int32),
      items=items,
      scores=scores,
      user_ids=interactions.user_ids,
      item_ids=interactions.item_ids,
    )
    results = results_json(
      evaluations,
      epoch=progress.best_epoch,
      epochs_run=progress.epoch,
      selection={config.train.select_on: progress.best_value},
      train_seconds=round(progress.seconds, 2),
      encoder=run.texts.facts.get("encoder", "none"),
      seed=config.train.seed,
    )
    runs.write_json(folder / "results.json", results)
  return run, results


def train(config: Config, folder: pathlib.Path, *, say: Say) -> tuple[Run, Progress]:
  """Prepares, embeds and trains, or goes on with what the run folder holds.

  Test rows are never read beyond the data stage.
  """
  prepared = prepare(config, folder, say=say)
  texts = embed_run(config, folder, prepared, say=say)
  graph = training_graph(config, prepared)
  data = make_training_data(
    prepared.train,
    graph,
    texts.vectors,
    config=config.train,
    positive_threshold=prepared.positive_threshold,
    negative_threshold=prepared.negative_threshold,
  )
  interactions = prepared.interactions
  model = make_model(
    config.model, num_users=interactions.num_users, num_items=interactions.num_items
  )
  say(
    f"train: {data.user.shape[0]} positives, {graph.senders.shape[0]} edges, "
    f"{jax.default_backend()}"
  )
  validate = None
  if config.train.select_on == "valid":
    validate = make_validator(prepared, data.text, data.graph, model=model, config=config)
  params, progress = fit(
    data, model=model, config=config.train, workdir=folder, validate=validate, say=say
  )
  say(
    f"train: {progress.epoch} epochs in {progress.seconds:.0f} s, best at epoch "
    f"{progress.best_epoch} by {config.train.select_on}"
  )
  run = assemble_run(
    folder, config=config, prepared=prepared, texts=texts, model=model, params=params,
    graph=data.graph,
  )  # fmt: skip
  return run, progress


def make_validator(
  prepared: Prepared,
  text: jax.Array,
  graph: jraph.GraphsTuple,
  *,
  model: GatRecommender,
  config: Config,
) -> Callable[[Any], float]:
  """params -> NDCG@10 on the validation part, over all items without a training rating."""
  train, valid = prepared.train, prepared.valid
  liked = valid.rating >= prepared.positive_threshold
  if not liked.any():
    raise InputError(
      f"valid_share={config.data.valid_share}: no validation rating reaches the positive "
      f"threshold {prepared.positive_threshold:g}; raise the share or use select_on=train_loss"
    )
  users = np.unique(valid.user[liked])

  def ndcg(params: Any) -> float:
    vectors = node_vectors(params, text, graph, model=model)
    items, _ = top_items(
      vectors[: model.num_users], vectors[model.num_users :], users, seen=train, k=10,
      memory_mb=config.evaluate.evaluate_memory_mb,
    )  # fmt: skip
    evaluation = full_ranking(
      items, users, train=train, test=valid, positive_threshold=prepared.positive_threshold,
      ks=(10,), num_bootstrap=0,
    )  # fmt: skip
    return evaluation.summary["ndcg@10"].mean

  return ndcg
