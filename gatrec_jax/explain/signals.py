"""What else a model shows about a score: its components, and which users two items attend to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np

from gatrec_jax.models.gat.channels import Channels, linear_scores, prior_scores
from gatrec_jax.ops.scores import standardize
from gatrec_jax.serve.run import Run

if TYPE_CHECKING:
  import scipy.sparse


class ItemAttention(NamedTuple):
  """Attention of items to users in the last two layers, means over heads.

  Attributes: first, second: [I, U] sparse, of the last layer but one and of the last.
  """

  first: scipy.sparse.csr_matrix
  second: scipy.sparse.csr_matrix


def score_components(run: Run, user: int, items: Sequence[int]) -> dict[str, np.ndarray]:
  """What each channel contributes to the scores of T items, as it enters scores of rated items.

  Returns: by name, [T] float32: `graph`; `linear` if the model has a linear channel; `popularity`
    for users who came after training.
  """
  serving_state, index = run.serving_state, np.array([user])
  if not isinstance(serving_state, Channels):
    return {"graph": np.asarray(serving_state[0][user] @ serving_state[1][np.array(items)].T)}
  products = serving_state.vectors[0][index] @ serving_state.vectors[1].T
  components = {"graph": products + serving_state.bias}
  if serving_state.linear is not None:
    linear = standardize(linear_scores(serving_state, index), serving_state.rated)
    components = {
      "graph": standardize(components["graph"], serving_state.rated),
      "linear": serving_state.weight * linear,
    }
  prior = prior_scores(serving_state, sum(components.values()), serving_state.prior[index])
  if np.asarray(prior).any():
    components["popularity"] = prior
  return {name: np.asarray(values)[0, list(items)] for name, values in components.items()}


def item_attention(run: Run) -> ItemAttention | None:
  """The attention of a run's items to users; None for networks with fewer than two layers."""
  import scipy.sparse

  recommender, graph = run.recommender, run.inputs.own.graph
  if recommender.settings.convolution.num_layers < 2:
    return None
  _, layers = jax.jit(recommender.module.apply, static_argnames="return_attention")(
    {"params": run.params}, run.inputs.text, graph, return_attention=True
  )
  senders, receivers = np.asarray(graph.senders), np.asarray(graph.receivers)
  to_items = (receivers >= recommender.num_users) & (senders < recommender.num_users)
  rows = (receivers[to_items] - recommender.num_users, senders[to_items])
  return ItemAttention(
    *(
      scipy.sparse.csr_matrix(
        (np.asarray(weights).mean(axis=1)[to_items], rows),
        shape=(recommender.num_items, recommender.num_users),
      )
      for weights in layers[-2:]
    )
  )


def shared_attention(
  attention: ItemAttention, rated: np.ndarray, items: Sequence[int]
) -> np.ndarray:
  """How much rated and recommended items attend to the same users.

  Args: rated: [h] int. items: T indices.
  Returns: [h, T] float, Σ over users of the rated item's attention in the last layer but one times
    the recommended item's attention in the last.
  """
  return np.asarray((attention.first[rated] @ attention.second[list(items)].T).todense())
