"""From settings to the recommender that they are settings of."""

from __future__ import annotations

import importlib
from typing import Any

from gatrec_jax.config.settings import ModelSettings
from gatrec_jax.models.base import Recommender

# kind -> module below gatrec_jax.models, class. Imported when first used.
_CLASSES = {
  "gat": ("gat.recommender", "GatRecommender"),
  "popularity": ("baselines.popularity", "PopularityRecommender"),
  "item_knn": ("baselines.item_knn", "ItemKnnRecommender"),
  "ease": ("linear.ridge", "RidgeRecommender"),
  "ease_rated": ("linear.ridge", "RidgeRecommender"),
  "gf_cf": ("linear.gf_cf", "GfCfRecommender"),
  "slim": ("baselines.slim", "SlimRecommender"),
  "admm_slim": ("baselines.admm_slim", "AdmmSlimRecommender"),
  "ials": ("baselines.ials", "IalsRecommender"),
  "content_knn": ("baselines.content_knn", "ContentKnnRecommender"),
  "text_ridge": ("baselines.text_ridge", "TextRidgeRecommender"),
  "bpr_mf": ("baselines.bpr_mf", "BprMfRecommender"),
  "lightgcn": ("baselines.lightgcn", "LightGcnRecommender"),
  "xsimgcl": ("baselines.xsimgcl", "XSimGclRecommender"),
  "multi_vae": ("baselines.multi_vae", "MultiVaeRecommender"),
  "sasrec": ("sequences.sasrec", "SasRecRecommender"),
  "gru4rec": ("sequences.gru4rec", "Gru4RecRecommender"),
  "markov": ("sequences.markov", "MarkovRecommender"),
  "recent_popularity": ("sequences.recent_popularity", "RecentPopularityRecommender"),
}


def recommender_class(kind: str) -> type[Recommender]:
  """The class of a kind of recommender, which declares what it can do."""
  module, name = _CLASSES[kind]
  return getattr(importlib.import_module(f"gatrec_jax.models.{module}"), name)


def make_recommender(settings: ModelSettings, *, num_users: int, num_items: int) -> Recommender:
  """The recommender for a catalog of that size.

  >>> from gatrec_jax.config.models import PopularityConfig
  >>> make_recommender(PopularityConfig(), num_users=2, num_items=3)
  PopularityRecommender(settings=PopularityConfig(), num_users=2, num_items=3)
  """
  make: Any = recommender_class(settings.kind)
  return make(settings, num_users, num_items)
