"""Host arrays on the default device."""

import logging

import jax
import numpy as np

from gatrec_jax.sharding.placement import to_device


def test_host_arrays_are_copied_and_nothing_is_compiled(caplog):
  there, host = jax.device_put(np.ones(3)), np.arange(123.0)
  with jax.log_compiles(), caplog.at_level(logging.WARNING):
    found = to_device({"there": there, "host": host, "count": np.int64(5), "none": None})
  assert not [line for line in caplog.records if "Compiling" in line.getMessage()]
  assert found["there"] is there and found["none"] is None
  assert found["host"].dtype == np.float32 and found["count"].dtype == np.int32
  host[:] = 7
  np.testing.assert_array_equal(found["host"], np.arange(123))
