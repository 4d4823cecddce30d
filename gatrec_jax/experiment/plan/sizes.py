"""The sizes of data that a plan follows from: of prepared data, or of a table before it is read."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gatrec_jax.config.schema import Config, ModelConfig
from gatrec_jax.data.prepared import Prepared
from gatrec_jax.models.linear.ridge import head_of
from gatrec_jax.ops.neighbors import edges_a_node

# Widths of text vectors: of the built-in encoder, and of small sentence encoders such as MiniLM.
_LEXICAL_WIDTH, _ENCODER_WIDTH = 128, 384
# The sum of squared lengths of histories, over what it were if all had the same length; MovieLens
# 1M has 2.4.
_UNEVEN = 2.4
_LIKED_SHARE = 0.6


class Sizes(NamedTuple):
  """Attributes:
  users, items: in the catalog.
  ratings: all rows. train, valid, test: those of each part.
  likes: training positives.
  valid_users, test_users: users with a like there.
  pairs: the sum of the squared lengths of the users' training histories.
  longest: the longest of these.
  drawn: edges that a step of training reads, in both directions, where it draws them; else 0.
  head: items that have nearly all training ratings (`models.linear.ridge.head_of`); 0 if too many.
  texts: nodes with a text. text_width: of their vectors; 0 without texts.
  is_read: whether the run folder holds the data already.
  """

  users: int
  items: int
  ratings: int
  train: int
  valid: int
  test: int
  likes: int
  valid_users: int
  test_users: int
  pairs: float
  longest: int
  drawn: int = 0
  head: int = 0
  texts: int = 0
  text_width: int = 0
  is_read: bool = False

  @property
  def nodes(self) -> int:
    """Users and items together."""
    return self.users + self.items

  def of_users(self, share: float) -> Sizes:
    """The sizes for a share of the users with all of their ratings."""
    kept = {"items", "longest", "head", "text_width", "is_read", "texts"}
    fewer = {
      name: type(value)(share * value) for name, value in self._asdict().items() if name not in kept
    }
    return self._replace(**fewer)


def sizes_of(config: Config, prepared: Prepared, *, is_read: bool = False) -> Sizes:
  """The sizes of prepared data. Args: is_read: whether the run folder holds them already."""
  rows, split, feedback = prepared.interactions, prepared.split, prepared.feedback
  liked = feedback.liked(rows.rating)

  def likers(part: np.ndarray) -> int:
    return np.count_nonzero(np.bincount(rows.user[part[liked[part]]], minlength=1))

  lengths = np.bincount(rows.user[split.train], minlength=rows.num_users).astype(np.float64)
  texts = width = 0
  if config.model.reads_text and _has_texts(config, prepared):
    texts, width = rows.num_users + rows.num_items, width_of_texts(config)
  return Sizes(
    users=rows.num_users,
    items=rows.num_items,
    ratings=len(rows),
    train=len(split.train),
    valid=len(split.valid),
    test=len(split.test),
    likes=int(np.count_nonzero(liked[split.train])),
    valid_users=likers(split.valid),
    test_users=likers(split.test),
    pairs=float(lengths @ lengths),
    longest=int(lengths.max(initial=0)),
    drawn=_drawn_edges(config, prepared, liked),
    head=len(head_of(rows.item[split.train], rows.num_items)),
    texts=texts,
    text_width=width,
    is_read=is_read,
  )


def sizes_of_table(config: Config, *, users: int, items: int, ratings: int) -> Sizes:
  """Sizes of a table of which only the numbers of users, items and rows are known, without texts.

  >>> from gatrec_jax.config.presets import get_preset
  >>> sizes = sizes_of_table(get_preset("best"), users=10, items=20, ratings=100)
  >>> sizes.train, sizes.valid, sizes.test
  (72, 8, 20)
  """
  data = config.data
  test = 0 if data.split == "none" else round(data.test_share * ratings)
  valid = round(data.valid_share * (ratings - test))
  train = ratings - test - valid
  mean = train / max(users, 1)
  likes = round(_LIKED_SHARE * train)
  sizes = Sizes(
    users=users,
    items=items,
    ratings=ratings,
    train=train,
    valid=valid,
    test=test,
    likes=likes,
    valid_users=min(users, valid),
    test_users=min(users, test),
    pairs=_UNEVEN * mean * train,
    longest=min(items, round(15 * mean)),
  )
  if not isinstance(config.model, ModelConfig) or config.model.reads_order:
    return sizes
  edges = 2 * graph_rows(config.model, sizes)
  most = edges_a_node(config.model.convolution, num_edges=edges)
  return sizes._replace(drawn=min(edges, most * sizes.nodes))


def graph_rows(model: ModelConfig, sizes: Sizes) -> int:
  """Training ratings that are edges of the GAT's graph, in both directions."""
  return sizes.likes if model.graph == "liked" else sizes.train


def _drawn_edges(config: Config, prepared: Prepared, liked: np.ndarray) -> int:
  """`Sizes.drawn` of prepared data. Args: liked: [R] bool, of all rows."""
  if not isinstance(config.model, ModelConfig) or config.model.reads_order:
    return 0
  rows, train = prepared.interactions, prepared.split.train
  if config.model.graph != "rated":
    train = train[liked[train]]
  if not (most := edges_a_node(config.model.convolution, num_edges=2 * len(train))):
    return 0
  degrees = (np.bincount(ends[train], minlength=1) for ends in (rows.user, rows.item))
  return sum(int(np.minimum(degree, most).sum()) for degree in degrees)


def width_of_texts(config: Config) -> int:
  """The width of text vectors by the configured encoder, unless it is a large one."""
  return _LEXICAL_WIDTH if config.text.encoder == "lexical" else _ENCODER_WIDTH


def _has_texts(config: Config, prepared: Prepared) -> bool:
  return bool(
    config.text.item_profiles or config.text.user_profiles or any(map(bool, prepared.item_fields))
  )
