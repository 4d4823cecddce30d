"""Graph attention and language models in one recommender, in pure JAX: the functional API."""

from gatrec_jax.config.overrides import with_fields
from gatrec_jax.config.presets import get_preset
from gatrec_jax.config.schema import Config
from gatrec_jax.data.datasets import load_dataset
from gatrec_jax.data.feedback import Feedback
from gatrec_jax.data.graph import bipartite_graph
from gatrec_jax.data.interactions import Dataset, Interactions
from gatrec_jax.data.split_draws import Split
from gatrec_jax.data.splits import split_interactions
from gatrec_jax.data.tables import load_interactions
from gatrec_jax.errors import InputError
from gatrec_jax.evaluate.comparison import compare_systems
from gatrec_jax.evaluate.ranking import full_ranking, judged_ranking
from gatrec_jax.experiment.evaluation import evaluate_run
from gatrec_jax.experiment.train_and_evaluate import sweep_settings, train_and_evaluate
from gatrec_jax.models.base import Recommender, make_inputs
from gatrec_jax.models.gat.network import GatNetwork, GraphAttention
from gatrec_jax.models.gat.recommender import GatRecommender
from gatrec_jax.models.inputs import Inputs
from gatrec_jax.models.registry import make_recommender
from gatrec_jax.ops.attention import Edges, attention_v1, attention_v2, segment_softmax
from gatrec_jax.ops.losses import bpr_loss, cosine_distance, hybrid_loss
from gatrec_jax.ops.negatives import NegativeSampler, draw_negatives, make_sampler
from gatrec_jax.ops.top_k import top_items
from gatrec_jax.serve import (
  Recommendations,
  Run,
  export_embeddings,
  load_run,
  recommend,
  recommend_to_new_user,
  score,
  with_new_ratings,
)
from gatrec_jax.train import TrainState, init_state, start_training, train_epochs, train_step
from gatrec_jax.train.sweep import sweep

__all__ = [
  "Config",
  "Dataset",
  "Edges",
  "Feedback",
  "GatRecommender",
  "GatNetwork",
  "GraphAttention",
  "InputError",
  "Inputs",
  "Interactions",
  "Recommender",
  "NegativeSampler",
  "Recommendations",
  "Run",
  "Split",
  "TrainState",
  "attention_v1",
  "attention_v2",
  "bipartite_graph",
  "bpr_loss",
  "compare_systems",
  "cosine_distance",
  "draw_negatives",
  "evaluate_run",
  "export_embeddings",
  "full_ranking",
  "get_preset",
  "hybrid_loss",
  "init_state",
  "judged_ranking",
  "load_dataset",
  "load_interactions",
  "load_run",
  "make_inputs",
  "make_recommender",
  "make_sampler",
  "recommend",
  "recommend_to_new_user",
  "score",
  "segment_softmax",
  "split_interactions",
  "start_training",
  "sweep",
  "sweep_settings",
  "top_items",
  "train_and_evaluate",
  "train_epochs",
  "train_step",
  "with_fields",
  "with_new_ratings",
]
