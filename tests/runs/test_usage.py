"""Seconds and memory of nested parts."""

import time

import numpy as np
import pytest

from gatrec_jax.runs.usage import Usage


def test_a_part_within_another_counts_for_itself_alone():
  usage = Usage()
  with usage.part("outer"):
    with usage.part("inner"):
      time.sleep(0.2)
    time.sleep(0.05)
  with usage.part("inner"):
    time.sleep(0.1)
  parts = usage.to_json()
  assert list(parts) == ["outer", "inner"]
  assert parts["inner"]["seconds"] >= 0.3 and 0.05 <= parts["outer"]["seconds"] < 0.3


def test_the_peak_is_of_the_part_that_had_it():
  usage = Usage()
  with usage.part("large"):
    np.ones(1 << 26, np.uint8).sum()
  with usage.part("small"):
    pass
  large, small = (usage.parts[name].peak_memory_mb for name in ("large", "small"))
  assert large >= small + 50 and usage.peak_memory_mb >= large


def test_a_part_ends_with_an_error_too():
  usage = Usage()
  with pytest.raises(ValueError), usage.part("a"):
    raise ValueError
  with usage.part("b"):
    pass
  assert list(usage.parts) == ["a", "b"]
