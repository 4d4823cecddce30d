"""Serving a trained run: scores, lists, new users, new ratings and items, vectors for other tools.

run = load_run("runs/u1")
recommend(run, ["1", "2"], top_n=5, only=["genres=Comedy", "year=1990.."]).titles
recommend_to_new_user(run, liked=["50", "181"]).titles
similar_items(run, "50").items
"""

from gatrec_jax.serve.export import Embeddings, export_embeddings, write_lists
from gatrec_jax.serve.filters import read_candidates
from gatrec_jax.serve.new_ratings import with_new_ratings
from gatrec_jax.serve.recommendations import (
  Recommendations,
  recommend,
  recommend_to_new_user,
  score,
  top_lists,
)
from gatrec_jax.serve.run import Run, load_run
from gatrec_jax.serve.similar import SimilarItem, SimilarItems, similar_items

__all__ = [
  "Embeddings",
  "Recommendations",
  "Run",
  "SimilarItem",
  "SimilarItems",
  "export_embeddings",
  "load_run",
  "read_candidates",
  "recommend",
  "recommend_to_new_user",
  "score",
  "similar_items",
  "top_lists",
  "with_new_ratings",
  "write_lists",
]
