"""Serving a trained run: scores, lists, new users, new ratings and items, vectors for other tools.

run = load_run("runs/u1")
recommend(run, ["1", "2"], top_n=5).titles
recommend_to_new_user(run, liked=["50", "181"]).titles
"""

from gatrec_jax.serve.export import export_embeddings, write_lists
from gatrec_jax.serve.new_ratings import with_new_ratings
from gatrec_jax.serve.recommendations import (
  Recommendations,
  recommend,
  recommend_to_new_user,
  score,
  top_lists,
)
from gatrec_jax.serve.run import Run, load_run

__all__ = [
  "Recommendations",
  "Run",
  "export_embeddings",
  "load_run",
  "recommend",
  "recommend_to_new_user",
  "score",
  "top_lists",
  "with_new_ratings",
  "write_lists",
]
