"""Checks that a model fits into memory before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence

import jax

from gatrec_jax.errors import InputError
from gatrec_jax.runs.memory import free_bytes, gibibytes

SPARE_SHARE = 0.05  # reserved for everything else


def available_bytes(devices: Sequence[jax.Device] | None = None) -> int | None:
  """Returns the bytes free for arrays, summed over `devices`; None if they cannot be determined.

  Args: devices: of this process; None for the default device.
  """
  devices = devices or jax.local_devices()[:1]
  if devices[0].platform != "cpu":
    stats = [device.memory_stats() for device in devices]
    if not all(stats):
      return None
    return sum(one["bytes_limit"] - one["bytes_in_use"] for one in stats)
  return free_bytes()


def require_memory(
  needed: int, *, what: str, remedy: str, devices: Sequence[jax.Device] | None = None
) -> None:
  """Raises InputError unless `needed` bytes are free.

  Args: needed: bytes. what: what needs them, in the plural, for the message. remedy: what the user
    can do, for the message. devices: as in `available_bytes`.
  """
  free = available_bytes(devices)
  if free is not None and needed > free * (1 - SPARE_SHARE):
    raise InputError(f"{what} need about {gibibytes(needed)}, {gibibytes(free)} are free; {remedy}")
