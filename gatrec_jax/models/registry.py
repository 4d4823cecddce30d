"""From settings to the method that they are settings of."""

from __future__ import annotations

import importlib
from typing import Any

from gatrec_jax.config.models import ModelSettings
from gatrec_jax.models.base import Recommender

# kind -> module below gatrec_jax.models, class. Imported when asked for.
_CLASSES = {
  "gat": ("gat.recommender", "GatRecommender"),
  "popularity": ("baselines.popularity", "PopularityRecommender"),
  "item_knn": ("baselines.item_knn", "ItemKnnRecommender"),
  "ease": ("baselines.ease", "EaseRecommender"),
  "ease_rated": ("baselines.ease_rated", "EaseRatedRecommender"),
  "slim": ("baselines.slim", "SlimRecommender"),
  "admm_slim": ("baselines.admm_slim", "AdmmSlimRecommender"),
  "ials": ("baselines.ials", "IalsRecommender"),
  "content_knn": ("baselines.content_knn", "ContentKnnRecommender"),
  "text_ridge": ("baselines.text_ridge", "TextRidgeRecommender"),
  "bpr_mf": ("baselines.bpr_mf", "BprMfRecommender"),
  "lightgcn": ("baselines.lightgcn", "LightGcnRecommender"),
  "xsimgcl": ("baselines.xsimgcl", "XSimGclRecommender"),
  "multi_vae": ("baselines.multi_vae", "MultiVaeRecommender"),
}


def make_recommender(settings: ModelSettings, *, num_users: int, num_items: int) -> Recommender:
  """The method for a catalog of that size."""
  module, name = _CLASSES[settings.kind]
  cls: Any = getattr(importlib.import_module(f"gatrec_jax.models.{module}"), name)
  return cls(settings, num_users, num_items)


def is_learned(recommender: Recommender) -> bool:
  """Whether it learns by gradient steps; else it is fitted as a whole."""
  return recommender.settings.learned
