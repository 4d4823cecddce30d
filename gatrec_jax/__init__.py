"""Graph attention and language models in one recommender, in pure JAX.

The names below cover a workflow from a data set to recommendations. The parts that they are made of
are in the namespaces `ops`, `models`, `train`, `evaluate` and `serve`; gatrec_jax/models/README.md
shows how to compose them.
"""

from gatrec_jax import evaluate, models, ops, serve, train
from gatrec_jax.config.overrides import with_fields
from gatrec_jax.config.presets import get_preset
from gatrec_jax.config.schema import Config
from gatrec_jax.data.datasets import load_dataset
from gatrec_jax.data.feedback import Feedback
from gatrec_jax.data.graph import bipartite_graph
from gatrec_jax.data.interactions import Dataset, Interactions
from gatrec_jax.data.splits import split_interactions
from gatrec_jax.data.tables.frames import interactions_from_frame
from gatrec_jax.data.tables.interaction_tables import load_interactions
from gatrec_jax.errors import InputError
from gatrec_jax.experiment.evaluation import evaluate_run
from gatrec_jax.experiment.fit import fit, save
from gatrec_jax.experiment.plan.run import plan_run
from gatrec_jax.experiment.train_and_evaluate import sweep_settings, train_and_evaluate
from gatrec_jax.explain import explain
from gatrec_jax.runs.log import CONSOLE, SILENT
from gatrec_jax.serve import (
  Recommendations,
  Run,
  export_embeddings,
  load_run,
  recommend,
  recommend_to_new_user,
  score,
  similar_items,
  with_new_ratings,
  write_lists,
)
from gatrec_jax.version import VERSION as __version__

__all__ = [
  "CONSOLE",
  "SILENT",
  "explain",
  "fit",
  "save",
  "Config",
  "Dataset",
  "Feedback",
  "InputError",
  "Interactions",
  "Recommendations",
  "Run",
  "__version__",
  "bipartite_graph",
  "evaluate",
  "evaluate_run",
  "export_embeddings",
  "get_preset",
  "interactions_from_frame",
  "load_dataset",
  "load_interactions",
  "load_run",
  "models",
  "ops",
  "plan_run",
  "recommend",
  "recommend_to_new_user",
  "score",
  "serve",
  "similar_items",
  "split_interactions",
  "sweep_settings",
  "train",
  "train_and_evaluate",
  "with_fields",
  "with_new_ratings",
  "write_lists",
]
