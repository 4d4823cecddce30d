"""The weight of the linear channel, chosen on the validation part after training."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

# Multiples of the configured weight that are tried; 0 leaves the channel out.
MULTIPLES = (0.0, 0.25, 0.5, 2.0, 4.0, 8.0, 16.0, 64.0)
# A weight replaces the configured one if it is better by so many standard errors.
_STANDARD_ERRORS = 2.0


def choose_weight(
  weight: float, values_of: Callable[[float], np.ndarray]
) -> tuple[float, Mapping[float, float]]:
  """The weight with the highest mean value, if it is clearly above that of `weight`.

  Differences are taken user by user. Whether another weight wins by chance matters less than on
  test users: the choice is between few, and near ones rank alike.

  Args: weight: the configured one, > 0. values_of: weight -> [n] float, of each validation user.
  Returns: the chosen weight, and the mean value of each that was tried.
  """
  configured = values_of(weight)
  best, gain = weight, 0.0
  means = {weight: float(configured.mean())}
  for multiple in MULTIPLES:
    other = weight * multiple
    difference = values_of(other) - configured
    means[other] = means[weight] + float(difference.mean())
    error = float(difference.std(ddof=1)) / np.sqrt(len(difference)) if len(difference) > 1 else 0.0
    if difference.mean() > max(gain, _STANDARD_ERRORS * error):
      best, gain = other, float(difference.mean())
  return best, means
