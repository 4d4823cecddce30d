"""Small trained runs for tests of requests."""

import dataclasses

from gatrec_jax.config.overrides import with_fields
from gatrec_jax.config.presets import get_preset
from gatrec_jax.experiment import train_and_evaluate as pipeline
from gatrec_jax.runs.log import SILENT
from gatrec_jax.stages.data import prepare

QUICK = {"epochs": 5, "evaluate_every": 5, "bootstrap": 0, "ks": (10,), "dataset": "ratings.csv"}
TEXTS = {"item_metadata": "items.jsonl", "encoder": "lexical"}


def trained(preset, folder, **fields):
  """A run of a preset on the table of `helpers.rerank_table`, in the current folder."""
  config = with_fields(get_preset(preset), fields)
  workdir = pipeline.open_run(config, folder / preset)
  prepared = prepare(config.data, workdir, log=SILENT)
  return pipeline.train(config, workdir, prepared, log=SILENT)[0]


def with_fields_of_items(run, item_fields):
  """The run with other metadata of its items."""
  return dataclasses.replace(
    run, prepared=dataclasses.replace(run.prepared, item_fields=item_fields)
  )
