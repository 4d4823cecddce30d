"""Features that can be fused with the recommender's scores in addition to a language model's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gatrec_jax.data.prepared import Prepared
from gatrec_jax.errors import InputError
from gatrec_jax.rerank.candidates import Candidates

FEATURES = ("popularity", "text", "recency")


def extra_features(
  part: Candidates, names: Sequence[str], *, prepared: Prepared, text_vectors: np.ndarray | None
) -> dict[str, np.ndarray]:
  """Features of candidates, from training ratings and texts alone.

  Args:
    part: the candidates.
    names: of `FEATURES`. `popularity`: log(1 + training positives of the item). `text`: cosine of
      the text vectors of user and item. `recency`: time of the item's latest training rating.
    prepared: ratings and which of them are positive.
    text_vectors: [U + I, D] float32, for `text`.
  Returns: by name, [m, K] float32; NaN for padding and unknown values.
  Raises: InputError for an unknown name, or for `text` without vectors.
  """
  train = prepared.train
  items = np.where(part.valid, part.items, 0)
  found = {}
  for name in names:
    if name == "popularity":
      liked = train.item[prepared.feedback.liked(train.rating)]
      values = np.log1p(np.bincount(liked, minlength=train.num_items))[items]
    elif name == "recency":
      latest = np.full(train.num_items, np.nan)
      np.fmax.at(latest, train.item, train.timestamp.astype(np.float64))
      values = latest[items] - np.nanmax(latest)
    elif name == "text":
      if text_vectors is None:
        raise InputError(
          "this run has no text vectors (node_features=ids)", field="features", value="text"
        )
      unit = text_vectors / np.maximum(np.linalg.norm(text_vectors, axis=1, keepdims=True), 1e-12)
      users, catalog = unit[: train.num_users], unit[train.num_users :]
      values = np.einsum("md,mkd->mk", users[part.users], catalog[items])
    else:
      raise InputError(f"must be any of {', '.join(FEATURES)}", field="features", value=name)
    found[name] = np.where(part.valid, values, np.nan).astype(np.float32)
  return found
