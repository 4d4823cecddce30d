"""How many users and items have texts, and what to do where too few have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gatrec_jax.config.schema import TextConfig
from gatrec_jax.data.prepared import Prepared
from gatrec_jax.errors import InputError


def any_text(facts: Mapping[str, Any]) -> bool:
  """Whether any user or item has a text. Args: facts: of the profiles' manifest."""
  return any(facts[f"{kind} {how}"] for kind in ("items", "users") for how in ("given", "built"))


def require_texts(text: TextConfig, prepared: Prepared, facts: Mapping[str, Any]) -> None:
  """Raises InputError if more users or items than `max_missing_share` have no text.

  Users count where the user gave profiles of them. Built ones say what genres, tags and
  descriptions a user likes, and titles and authors alone are no ground for them.

  Args: facts: of the profiles' manifest.
  """
  sizes = {"item": prepared.interactions.num_items, "user": prepared.interactions.num_users}
  advice = {
    "item": "give `item_metadata` or `item_profiles` with more of them",
    "user": "give `user_profiles` with more of them",
  }
  if not text.user_profiles:
    del sizes["user"]
  for kind, size in sizes.items():
    missing = facts[f"{kind}s without text"]
    if missing > text.max_missing_share * size:
      raise InputError(
        f"{missing} of {size} {kind}s have no text: {advice[kind]}; or accept it by "
        f"`max_missing_share={math.ceil(100 * missing / size) / 100:g}`, or train without text by "
        "`node_features=ids`",
        field="max_missing_share",
        value=text.max_missing_share,
      )
