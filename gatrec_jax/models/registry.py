"""From settings to the method that they are settings of."""

from __future__ import annotations

import importlib
from typing import Any

from gatrec_jax.config.models import ModelSettings
from gatrec_jax.models.base import Method

# kind -> module below gatrec_jax.models, class. Imported when asked for.
_CLASSES = {
  "gat": ("gat.recommender", "GatMethod"),
  "popularity": ("baselines.popularity", "PopularityMethod"),
  "item_knn": ("baselines.item_knn", "ItemKnnMethod"),
  "ease": ("baselines.ease", "EaseMethod"),
  "ease_rated": ("baselines.ease_rated", "EaseRatedMethod"),
  "slim": ("baselines.slim", "SlimMethod"),
  "admm_slim": ("baselines.admm_slim", "AdmmSlimMethod"),
  "ials": ("baselines.ials", "IalsMethod"),
  "content_knn": ("baselines.content_knn", "ContentKnnMethod"),
  "text_ridge": ("baselines.text_ridge", "TextRidgeMethod"),
  "bpr_mf": ("baselines.bpr_mf", "BprMfMethod"),
  "lightgcn": ("baselines.lightgcn", "LightGcnMethod"),
  "xsimgcl": ("baselines.xsimgcl", "XSimGclMethod"),
  "multi_vae": ("baselines.multi_vae", "MultiVaeMethod"),
}


def make_method(settings: ModelSettings, *, num_users: int, num_items: int) -> Method:
  """The method for a catalogue of that size."""
  module, name = _CLASSES[settings.kind]
  cls: Any = getattr(importlib.import_module(f"gatrec_jax.models.{module}"), name)
  return cls(settings, num_users, num_items)


def is_learned(method: Method) -> bool:
  """Whether it learns by gradient steps; else it is fitted as a whole."""
  return bool(method.settings.trains_with)
