"""Test metrics of a run or of any lists, under the configured protocols."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jax.sharding import Mesh

from gatrec_jax.config.schema import EvaluateConfig
from gatrec_jax.data.prepared import Prepared
from gatrec_jax.evaluate.evaluation import Evaluation
from gatrec_jax.evaluate.ranking import full_ranking, judged_ranking
from gatrec_jax.serve.recommendations import top_lists
from gatrec_jax.serve.run import Run


def evaluate_lists(
  items: np.ndarray,
  users: np.ndarray,
  *,
  settings: EvaluateConfig,
  prepared: Prepared,
  item_vectors: np.ndarray | None = None,
) -> dict[str, Evaluation]:
  """Test metrics of recommendation lists under `settings.protocol`.

  Args:
    items: [m, K] int32 item indices, best first, −1 where a list ends.
    users: [m] int32, whose lists they are.
    settings: protocol, cut-offs, number of resamples.
    prepared: the truth.
    item_vectors: [I, D] text vectors for the diversity, or None.
  Returns:
    Evaluations by protocol, "full" and/or "judged".
  """
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


def evaluate_run(
  run: Run, *, mesh: Mesh | None = None
) -> tuple[dict[str, Evaluation], np.ndarray, np.ndarray]:
  """Test metrics of a run, and all users' lists: [U, K] int32 items and [U, K] float32 scores.

  There are no metrics without a test part (`split=none`).

  Args: mesh: this process's devices of it share the work; None for one device.
  """
  users = np.arange(run.prepared.interactions.num_users, dtype=np.int32)
  items, scores = top_lists(run, users, k=max(run.config.evaluate.ks), mesh=mesh)
  vectors = None  # without vectors there is no diversity
  if run.texts.is_text:
    vectors = run.texts.item_vectors
  elif run.recommender.scores_by == "vectors":
    vectors = np.asarray(run.serving_state[1])
  evaluations = {}
  if len(run.prepared.split.test):
    evaluations = evaluate_lists(
      items, users, settings=run.config.evaluate, prepared=run.prepared, item_vectors=vectors
    )
  return evaluations, items, scores


def results_json(evaluations: Mapping[str, Evaluation], **facts: Any) -> dict[str, Any]:
  """The content of `results.json`: metrics by protocol, per training-count bucket, and facts."""
  out: dict[str, Any] = {name: e.to_json() for name, e in evaluations.items()}
  for name, evaluation in evaluations.items():
    out[f"{name}_by_training_count"] = evaluation.buckets_to_json()
  return {**out, **facts}
