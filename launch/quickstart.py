"""Runs every stage on the built-in catalog: profiles, training, re-ranking, reasons.

  bash launch/quickstart.sh        (installs first)
  python -m launch.quickstart

Builds and encodes profiles; trains the GAT, the same model without text, and the same model without
graph layers; trains a small language model of the catalog, which re-ranks the GAT's top items;
compares all of them with popularity on the test part; prints three users' lists with a reason for
each item, written by another small language model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from launch.cli import (
  DATA,
  FLAGS,
  LANGUAGE_MODEL,
  TEXT,
  config_from_flags,
  define,
  path_flag,
  run,
  say,
)

if TYPE_CHECKING:
  from pathlib import Path

  from gatrec_jax.config.schema import Config
  from gatrec_jax.rerank.pipeline import Reranked
  from gatrec_jax.serve.run import Run
  from launch.cli.grid import Table

define(
  *DATA,
  *TEXT,
  "preset",
  "set",
  "seed",
  "workdir",
  "bootstrap",
  *LANGUAGE_MODEL,
  "top_candidates",
  preset="tiny",
  llm="builtin",
)

# Other models than the built-in one re-rank a sample of the users and learn a weight in minutes.
SAMPLE, RERANK_MINUTES = 100, 1.0
GAT = "GAT"
# label -> fields that differ from the GAT. The control for the graph keeps the text and the ids: a
# model without both layers and ids would also lose its free parameters per user and item.
VARIANTS: dict[str, dict[str, Any]] = {
  GAT: {},
  "no text (graph and ids)": {"node_features": "ids"},
  "no layers, ids kept (text and ids)": {"convolution": "none"},
}


def main() -> None:
  """Flags -> trained variants -> one table, three lists with reasons."""
  from gatrec_jax import runs
  from gatrec_jax.config.overrides import with_fields
  from launch.cli.grid import print_grid
  from launch.cli.rerank_results import print_strategies

  config = with_fields(config_from_flags(), {"protocol": "full", "ks": (10, 20)})
  workdir = workdir_for(config)
  rows, opened = trained_variants(config, workdir)
  reranked = None
  if FLAGS.llm != "none":
    reranked = rerank_best(opened.workdir)
    metrics = reranked.results["metrics"]
    same = "" if FLAGS.llm == "builtin" else f", {len(reranked.candidates.users)} users"
    if same:
      rows[f"{GAT}{same}"] = metrics["base"]
    rows[f"{GAT} re-ranked by {reranked.results['llm_name']}{same}"] = metrics["fused"]
  runs.write_json(workdir / "results.json", rows)
  say()
  print_grid(results_grid(rows, opened))
  best = rows[GAT]["ndcg@10"]["mean"]
  for name in ("popularity", *list(VARIANTS)[1:]):
    say(f"NDCG@10 of the GAT against {name}: {best / rows[name]['ndcg@10']['mean'] - 1:+.1%}")
  if reranked:
    print_strategies({"label": reranked}, title="re-ranking", markdown=False)
  say()
  say("Three users' lists, with reasons:")
  print_examples(opened, reranked)
  say()
  say(f"Everything is in {workdir}. Next: source .venv/bin/activate, then")
  say(f"gatrec recommend --workdir={opened.workdir} --liked=1,2,3")
  say(f"gatrec rerank --workdir={opened.workdir} --users=1,2")
  say(f"gatrec explain --workdir={opened.workdir} --users=1,2 --style=detailed")


def workdir_for(config: Config) -> Path:
  """--workdir, or by default a folder named after the encoder.

  The encoder that `auto` finds may differ from one day to the next, which makes it another run.
  """
  import pathlib

  from gatrec_jax.lm.folders.encoder_source import resolve_encoder

  encoder = resolve_encoder(config.text.encoder)
  kind = "lexical" if encoder.kind == "lexical" else encoder.name.split("/")[-1].lower()
  if FLAGS.workdir:
    return path_flag("workdir")
  return pathlib.Path(f"runs/quickstart-{kind}-{config.train.seed}")


def trained_variants(config: Config, workdir: Path) -> tuple[dict[str, Any], Run]:
  """Test metrics of popularity and of every variant, by label, and the GAT's run."""
  import dataclasses

  from gatrec_jax.config.overrides import with_fields
  from gatrec_jax.config.presets import get_preset
  from gatrec_jax.experiment.train_and_evaluate import train_and_evaluate
  from gatrec_jax.runs.log import CONSOLE

  trained = {}
  for name, fields in VARIANTS.items():
    CONSOLE.info(f"— {name}")
    folder = workdir / name.split(" (")[0].lower().replace(", ", "-").replace(" ", "-")
    trained[name] = train_and_evaluate(with_fields(config, fields), folder, log=CONSOLE)
  CONSOLE.info("— popularity")
  popular = dataclasses.replace(
    get_preset("popularity"), data=config.data, evaluate=config.evaluate
  )
  _, results = train_and_evaluate(popular, workdir / "popularity", log=CONSOLE)
  rows = {"popularity": results["full"]}
  rows |= {name: results["full"] for name, (_, results) in trained.items()}
  return rows, trained[GAT][0]


def results_grid(rows: dict[str, Any], opened: Run) -> Table:
  """The table of all systems. Args: rows: metrics by label. opened: the GAT's run."""
  from launch.cli.evaluation_tables import evaluation_grid

  return evaluation_grid(
    rows,
    title=f"{opened.config.data.dataset}, test part, full ranking",
    protocol="full",
    metrics=("ndcg@10", "recall@10", "recall@20", "map@10", "coverage@10"),
    notes=[
      f"texts: {opened.texts.facts['encoder']}",
      f"seed {opened.config.train.seed} alone; launch.compare --seeds=0,1,2 averages several",
    ],
  )


def print_examples(opened: Run, reranked: Reranked | None) -> None:
  """Prints the top five items of three users, re-ranked if possible, with a reason for each."""
  import numpy as np

  from gatrec_jax.explain import make_explainer
  from gatrec_jax.explain.lists import lists_of_file, lists_of_run
  from launch.cli.language_models import open_author
  from launch.cli.reasons import print_reasons

  explainer = make_explainer(opened)
  explainable = np.flatnonzero(explainer.rescorer.ratings > 0)
  if reranked:
    explainable = np.intersect1d(explainable, reranked.candidates.users)
  users = explainable[np.linspace(0, len(explainable) - 1, 3).astype(int)].tolist()
  if reranked:
    path = str(reranked.folder / "recommendations.parquet")
    lists = lists_of_file(path, opened, users, top_n=5)
  else:
    lists = lists_of_run(opened, users, top_n=5)
  print_reasons(explainer, open_author(), lists, style="short", top_n=5)


def rerank_best(workdir: Path) -> Reranked:
  """Re-ranks the GAT's top items with the language model of --llm."""
  from gatrec_jax.rerank.pipeline import RerankSettings, rerank
  from gatrec_jax.rerank.sources import open_source
  from gatrec_jax.rerank.strategies.registry import make_strategy
  from gatrec_jax.runs.log import CONSOLE
  from launch.cli.language_models import history_lines, open_model

  CONSOLE.info(f"— the top {FLAGS.top_candidates} re-ranked by {FLAGS.llm}")
  source = open_source(
    workdir,
    top=FLAGS.top_candidates,
    max_users=None if FLAGS.llm == "builtin" else SAMPLE,
    log=CONSOLE,
  )
  model, lora, model_hash = open_model(source)
  return rerank(
    source,
    make_strategy("label", model, batch_size=32, lora=lora),
    model_name=model.name,
    model_hash=model_hash,
    settings=RerankSettings(minutes=RERANK_MINUTES, **history_lines()),
    log=CONSOLE,
  )


if __name__ == "__main__":
  run(main, __doc__)
