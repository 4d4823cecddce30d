"""Which items a sampled softmax includes in a step.

A sum over all items, such as the normalizer of a softmax, is estimated from S of them: each term is
divided by the probability that its item is drawn (Horvitz and Thompson 1952). In logits this is a
subtraction of the logarithm, the logQ correction of Bengio and Senécal 2008. The draw is systematic
(Madow 1949): the items are distinct, and popular ones can be part of every draw.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array

# Probabilities are whole numbers of units, so that sums of them are exact: S draws have 2^30 units.
_UNITS = 2**30


class Drawn(NamedTuple):
  """Attributes: items: [S] int32, distinct. log_probability: [S] float32; inf for padding."""

  items: Array
  log_probability: Array


def inclusion_units(weight: np.ndarray, *, size: int) -> np.ndarray:
  """How probable each item is in a draw of `size`: in proportion to `weight`, but at most 1.

  Args:
    weight: [I] float ≥ 0, not all 0; items of weight 0 are never drawn.
    size: S, at most 2^20. With more than there are items to be drawn, all of these are, and the
      rest is padding.
  Returns: [I] int32, in units of 1 ÷ (2^30 ÷ S), rounded down or up.

  >>> units = inclusion_units(np.array([8.0, 1.0, 1.0, 0.0]), size=2)
  >>> (units / 2**29).tolist()
  [1.0, 0.5, 0.5, 0.0]
  """
  weight = np.asarray(weight, np.float64)
  order = np.argsort(-weight, kind="stable")[: np.count_nonzero(weight)]
  unit = _UNITS // size
  size = min(size, len(order))
  falling = weight[order]
  left = falling[::-1].cumsum()[::-1]
  # The first n are certain, for the smallest n for which no other one exceeds 1.
  n = int(np.argmax((size - np.arange(len(order))) * falling <= left))
  exact = np.full(len(order), float(unit))
  exact[n:] = falling[n:] * ((size - n) * unit / left[n])
  ends = np.rint(np.cumsum(exact))
  ends[-1] = size * unit
  units = np.zeros(len(weight), np.int32)
  units[order] = np.diff(ends, prepend=0)
  return units


def draw_items(key: Array, units: Array, *, size: int) -> Drawn:
  """Draws `size` items with the probabilities of `inclusion_units`; traceable.

  Args: key: consumed. units: [I] int32, made for this size.
  """
  order_key, start_key = jax.random.split(key)
  unit = _UNITS // size
  order = jax.random.permutation(order_key, units.shape[0])
  ends = jnp.cumsum(units[order])
  wanted = jax.random.randint(start_key, (), 0, unit) + unit * jnp.arange(size, dtype=jnp.int32)
  place = jnp.searchsorted(ends, wanted, side="right")
  items = order[jnp.minimum(place, len(order) - 1)].astype(jnp.int32)
  logarithm = jnp.log(units[items].astype(jnp.float32) / unit)
  return Drawn(items, jnp.where(place < len(order), logarithm, jnp.inf))
