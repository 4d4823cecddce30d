"""Graph attention and language models in one recommender, in pure JAX: the functional API."""

from gatrec_jax.config import Config, get_preset, with_fields
from gatrec_jax.data.catalogue import load_dataset
from gatrec_jax.data.graph import bipartite_graph
from gatrec_jax.data.interactions import Dataset, Interactions
from gatrec_jax.data.splits import Split, split_interactions
from gatrec_jax.errors import InputError
from gatrec_jax.evaluate.ranking import full_ranking, judged_ranking
from gatrec_jax.evaluate.top_items import top_items
from gatrec_jax.models.attention import Edges, attention_v1, attention_v2, segment_softmax
from gatrec_jax.models.gat import GatRecommender, GraphAttention
from gatrec_jax.train.losses import bpr_loss, cosine_distance, hybrid_loss
from gatrec_jax.train.negatives import NegativeSampler, draw_negatives, make_sampler
from gatrec_jax.train.pipeline import train_and_evaluate
from gatrec_jax.train.serving import (
  Recommendations,
  Run,
  evaluate_run,
  export_embeddings,
  load_run,
  recommend,
  recommend_to_new_user,
  score,
)
from gatrec_jax.train.state import TrainingData, TrainState, init_state, train_epochs

__all__ = [
  "Config", "Dataset", "Edges", "GatRecommender", "GraphAttention", "InputError", "Interactions",
  "NegativeSampler", "Recommendations", "Run", "Split", "TrainState", "TrainingData",
  "attention_v1", "attention_v2", "bipartite_graph", "bpr_loss", "cosine_distance",
  "draw_negatives", "evaluate_run", "export_embeddings", "full_ranking", "get_preset",
  "hybrid_loss", "init_state", "judged_ranking", "load_dataset", "load_run", "make_sampler",
  "recommend", "recommend_to_new_user", "score", "segment_softmax", "split_interactions",
  "top_items", "train_and_evaluate", "train_epochs", "with_fields",
]  # fmt: skip
