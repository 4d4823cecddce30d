"""What a run folder keeps beside its checkpoints: the linear channel's weights, chosen settings."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from gatrec_jax import runs
from gatrec_jax.config.overrides import with_fields
from gatrec_jax.config.schema import Config, ModelConfig
from gatrec_jax.data.prepared import Prepared
from gatrec_jax.errors import DamagedFile
from gatrec_jax.models.base import Kept
from gatrec_jax.models.gat.channels import linear_channel
from gatrec_jax.models.linear.ridge import Weights
from gatrec_jax.models.linear.spectral import SpectralWeights
from gatrec_jax.runs.log import Log

_WEIGHTS = "weights.npz"
CHOICES = "choices.json"
"""The file of a run folder with the settings that training chose."""


def kept_linear(
  config: Config, prepared: Prepared, folder: pathlib.Path, *, log: Log | None, spent: float = 0.0
) -> Kept:
  """Keeps the weights of the linear channel in the run folder: their fit can take minutes.

  They belong to the settings of the channel and to the data.

  Args:
    prepared: as the folder has it.
    log: of a program that trains; None for readers, which fit in memory what is not there and write
      nothing.
    spent: seconds that finding them has taken before.
  """
  folder = folder / "linear"

  def kept(fit: Callable[[], Weights]) -> Weights:
    origin = _origin(config, prepared)
    if log is None:
      is_there = (folder / runs.MANIFEST).exists()
      if not is_there or runs.facts_of_stage(folder, _WEIGHTS)["inputs"] != origin:
        return fit()
      return _load(folder / _WEIGHTS)

    def make() -> dict[str, Any]:
      started = time.monotonic()
      weights = fit()
      seconds = round(spent + time.monotonic() - started, 2)
      log.info(f"linear: {_described(weights)}, fitted in {seconds} s")
      _save(folder / _WEIGHTS, weights)
      return {"seconds": seconds}

    runs.stage(
      folder, name="linear", inputs=origin, outputs=(_WEIGHTS,), make=make, log=log, says_kept=False
    )
    return _load(folder / _WEIGHTS)

  return kept


def linear_seconds(folder: pathlib.Path) -> float:
  """How long the fit of the linear channel took; 0 without one."""
  if not (folder / "linear" / runs.MANIFEST).exists():
    return 0.0
  return runs.facts_of_stage(folder / "linear", _WEIGHTS)["facts"]["seconds"]


def write_choices(folder: pathlib.Path, choices: dict[str, Any]) -> None:
  """Records settings that training chose on the validation part, by name."""
  runs.write_sealed(folder / CHOICES, choices)


def read_choices(folder: pathlib.Path) -> dict[str, Any]:
  """What `write_choices` recorded; empty where nothing was chosen. Raises: DamagedFile."""
  path = folder / CHOICES
  return runs.read_sealed(path) if path.exists() else {}


def with_choices(config: Config, folder: pathlib.Path) -> Config:
  """The configuration of a run with what its training chose. Raises: DamagedFile."""
  return with_fields(config, read_choices(folder))


def _origin(config: Config, prepared: Prepared) -> str:
  """A hash of all that the weights depend on; another weight of the channel leaves them as they
  are."""
  assert isinstance(config.model, ModelConfig)
  linear = linear_channel(config.model, num_users=1, num_items=1)
  return runs.digest(dataclasses.asdict(linear.settings), prepared.facts["content"])


def _described(weights: Weights) -> str:
  if not isinstance(weights, SpectralWeights):
    return f"exact weights of {weights.shape[1]} items"
  return (
    f"{weights.right.shape[1]} eigenvectors and {weights.neighbors.shape[1]} neighbors of "
    f"{weights.right.shape[0]} items, error of the spectrum at most {float(weights.tail):.2f}"
  )


def _save(path: pathlib.Path, weights: Weights) -> None:
  arrays = weights._asdict() if isinstance(weights, SpectralWeights) else {"weights": weights}
  path.parent.mkdir(exist_ok=True)
  with runs.atomic_path(path) as temporary, temporary.open("wb") as file:
    np.savez(file, **arrays)


def _load(path: pathlib.Path) -> Weights:
  try:
    with np.load(path, allow_pickle=False) as arrays:
      if "weights" in arrays:
        return arrays["weights"]
      return SpectralWeights(**{name: arrays[name] for name in SpectralWeights._fields})
  except Exception as error:  # zipfile, numpy and zlib raise different errors for damaged files
    raise DamagedFile(
      f"{path}: damaged ({error!r}); run launch.train with this `workdir` again, which makes it "
      "anew"
    ) from None
