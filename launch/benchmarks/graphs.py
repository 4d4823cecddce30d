"""Random graphs for benchmarks, and lower bounds on the work that they need."""

from __future__ import annotations

import numpy as np

from gatrec_jax.data.interactions import Interactions
from gatrec_jax.ops.attention import Edges
from launch.benchmarks.measure import Counts

# MovieLens: users and items by number of ratings (1M: 6,040 and 3,706; 25M: 162,541 and 59,047).
_RATINGS_A_USER, _ITEMS_POWER, _ITEMS_SCALE = 160, 0.86, 0.026


def random_ratings(num_ratings: int, *, seed: int) -> Interactions:
  """Random ratings with MovieLens's proportions: as many users and items, both long-tailed.

  A pair may occur twice.
  """
  draws = np.random.default_rng(seed)
  num_users = max(num_ratings // _RATINGS_A_USER, 50)
  num_items = max(int(_ITEMS_SCALE * num_ratings**_ITEMS_POWER), 100)
  # Log-normal activity and Zipf-like popularity, independent of the ids.
  activity = draws.lognormal(0.0, 1.0, num_users)
  popularity = 1.0 / np.arange(10, num_items + 10) ** 0.9
  user = np.repeat(np.arange(num_users), draws.multinomial(num_ratings, activity / activity.sum()))
  item = draws.permutation(num_items)[
    draws.choice(num_items, num_ratings, p=popularity / popularity.sum())
  ]
  return Interactions(
    user=user.astype(np.int32),
    item=item.astype(np.int32),
    rating=draws.integers(1, 6, num_ratings).astype(np.float32),
    timestamp=np.zeros(num_ratings, np.int64),
    user_ids=tuple(map(str, range(num_users))),
    item_ids=tuple(map(str, range(num_items))),
  )


def attention_counts(
  edges: Edges, num_nodes: int, *, heads: int, width: int, features: int
) -> Counts:
  """The least work of attention version 2, forward and backward.

  A sender's row is read per edge in both passes, and its gradient is read and written once. Rows of
  receivers, which are sorted, are read and written once per node.

  Args: edges: E of them. num_nodes: N. heads: H. width: D. features: F, per edge.
  """
  numbers, count = heads * width, len(edges.senders)
  index = 2 * count * (8 + 4 * features)
  rows = 4 * numbers * count * (1 + 1 + 2)
  tables = 4 * numbers * num_nodes * (2 + 4)
  # Forward: add, feature, LeakyReLU, dot, message. Backward: recomputes these, and twice as much.
  per_number = 10 + 20
  return Counts(index + rows + tables, per_number * numbers * count)


def matmul_flops(shapes: list[tuple[int, int, int]]) -> float:
  """FLOPs of products [n, k] × [k, m] and their two gradients. Args: shapes: (n, k, m) each."""
  return sum(6.0 * n * k * m for n, k, m in shapes)


def save_for_peer(
  path: str, train: Interactions, *, liked: np.ndarray, disliked: np.ndarray, text: np.ndarray
) -> None:
  """Writes what torch_graph.py loads. Args: liked, disliked: [R] bool. text: [N, D] float32."""
  np.savez(
    path,
    user=train.user[liked],
    item=train.item[liked],
    edge_user=train.user,
    edge_item=train.item,
    edge_rating=train.rating,
    disliked_user=train.user[disliked],
    disliked_item=train.item[disliked],
    text=text,
    num_users=train.num_users,
    num_items=train.num_items,
  )
