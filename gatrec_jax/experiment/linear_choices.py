"""What is chosen for the linear channel on the validation part: powers before training, its weight
after it.

The configured value stays unless another one is better by two standard errors of the difference,
taken user by user: a choice between values that are nearly alike would be one by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

# Multiples of the configured weight that are tried; 0 leaves the channel out.
MULTIPLES = (0.0, 0.25, 0.5, 2.0, 4.0, 8.0, 16.0, 64.0)
# Another power that is tried for both numbers of ratings, of the user and of the item.
OTHER_POWER = 0.25
_STANDARD_ERRORS = 2.0
T = TypeVar("T")


def choose(
  configured: T, others: Sequence[T], values_of: Callable[[T], np.ndarray]
) -> tuple[T, Mapping[T, float]]:
  """The option with the highest mean value, if it is clearly above that of the configured one.

  Args:
    configured: stays where nothing else is clearly better. others: what else is tried.
    values_of: option -> [n] float, a value of each validation user, in one order.
  Returns: the chosen option, and the mean value of each that was tried.

  >>> gains = {"a": 0.0, "b": 0.3}
  >>> choose("a", ["b"], lambda option: np.array([0.1, 0.2, 0.4]) + gains[option])[0]
  'b'
  """
  base = values_of(configured)
  best, gain = configured, 0.0
  means = {configured: float(base.mean())}
  for other in others:
    difference = values_of(other) - base
    means[other] = means[configured] + float(difference.mean())
    error = float(difference.std(ddof=1)) / np.sqrt(len(difference)) if len(difference) > 1 else 0.0
    if difference.mean() > max(gain, _STANDARD_ERRORS * error):
      best, gain = other, float(difference.mean())
  return best, means
