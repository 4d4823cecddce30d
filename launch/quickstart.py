"""Everything on the built-in catalog, start to end: bash launch/quickstart.sh

Writes profiles, embeds them, trains the GAT, the same without text, and the same without the graph;
builds a small language model of the catalog that re-ranks the GAT's best; compares all of them
with popularity on the test part; prints three users' lists, each item with its reason in the words
of another small language model. Also python -m launch.quickstart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from launch.cli import flags as common

if TYPE_CHECKING:
  from pathlib import Path

  from gatrec_jax.rerank.pipeline import Reranked

common.define(
  *common.DATA,
  *common.TEXT,
  "preset",
  "set",
  "seed",
  "workdir",
  "bootstrap",
  "llm",
  "lora",
  "dtype",
  "quantize",
  "attention",
  "mesh",
  "top_candidates",
  preset="tiny",
  llm="builtin",
)

# name -> fields that differ from the GAT with text and graph.
VARIANTS = {
  "GAT (text + graph)": {},
  "without text (graph alone)": {"node_features": "ids"},
  "without graph (text alone)": {"node_features": "projected", "layer_widths": "", "heads": ""},
}


def main() -> None:
  import dataclasses
  import pathlib

  import numpy as np

  from gatrec_jax import runs
  from gatrec_jax.config.overrides import with_fields
  from gatrec_jax.config.presets import get_preset
  from gatrec_jax.experiment.train_and_evaluate import train_and_evaluate
  from gatrec_jax.explain import make_explainer
  from gatrec_jax.explain.lists import lists_of_file, lists_of_run
  from gatrec_jax.lm.folders.source import resolve_encoder
  from gatrec_jax.runs.log import CONSOLE
  from launch.cli.evaluation_tables import print_table
  from launch.cli.language_models import open_author
  from launch.cli.reasons import print_reasons
  from launch.cli.rerank_results import print_comparison

  config = with_fields(common.config_from_flags(), {"protocol": "full", "ks": (10, 20)})
  # The encoder that `auto` finds may be another one tomorrow, and is another run then.
  encoder = resolve_encoder(config.text.encoder)
  kind = "lexical" if encoder.kind == "lexical" else encoder.name.split("/")[-1].lower()
  default = f"runs/quickstart-{kind}-{config.train.seed}"
  workdir = pathlib.Path(common.FLAGS["workdir"].value or default)
  trained = {}
  for name, fields in VARIANTS.items():
    CONSOLE.info(f"— {name}")
    folder = workdir / name.split(" (")[0].lower().replace(" ", "-")
    trained[name] = train_and_evaluate(with_fields(config, fields), folder, log=CONSOLE)
  run = trained["GAT (text + graph)"][0]

  CONSOLE.info("— popularity")
  popular = dataclasses.replace(
    get_preset("popularity"), data=config.data, evaluate=config.evaluate
  )
  _, results = train_and_evaluate(popular, workdir / "popularity", log=CONSOLE)
  rows = {"popularity": results["full"]}
  rows |= {name: results["full"] for name, (_, results) in trained.items()}
  reranked = None
  if common.FLAGS["llm"].value != "none":
    reranked = rerank_best(run.workdir)
    rows[f"GAT re-ranked by {reranked.results['llm_name']}"] = reranked.results["metrics"]["fused"]
  runs.write_json(workdir / "results.json", rows)
  print()
  print_table(
    rows,
    title=f"{config.data.dataset}, test part, full ranking",
    protocol="full",
    metrics=("ndcg@10", "recall@10", "recall@20", "map@10", "coverage@10"),
    notes=[f"texts: {run.texts.facts['encoder']}"],
  )
  best = rows["GAT (text + graph)"]["ndcg@10"]["mean"]
  for name in ("popularity", *list(VARIANTS)[1:]):
    print(f"NDCG@10 of the GAT against {name}: {best / rows[name]['ndcg@10']['mean'] - 1:+.1%}")
  if reranked:
    print_comparison({"label": reranked}, title="re-ranking", markdown=False)
  print("\nThree users' lists, and why:")
  explainer = make_explainer(run)
  able = np.flatnonzero(explainer.rescorer.ratings > 0)
  picked = able[np.linspace(0, len(able) - 1, 3).astype(int)].tolist()
  lists = lists_of_run(run, picked, top_n=5)
  if reranked:
    path = str(reranked.folder / "recommendations.parquet")
    lists = lists_of_file(path, run, picked, top_n=5)
  print_reasons(explainer, open_author(), lists, style="short", top_n=5)
  print(f"\nEverything is in {workdir}. To go on: source .venv/bin/activate, then")
  print(f"python -m launch.recommend --workdir={run.workdir} --liked=1,2,3")
  print(f"python -m launch.rerank --workdir={run.workdir} --users=1,2")
  print(f"python -m launch.explain --workdir={run.workdir} --users=1,2 --style=detailed")


def rerank_best(workdir: Path) -> Reranked:
  """The GAT's best items in the order that the language model of --llm makes of them."""
  from gatrec_jax.rerank.pipeline import RerankSettings, rerank
  from gatrec_jax.rerank.sources import open_source
  from gatrec_jax.rerank.strategies.registry import make_strategy
  from gatrec_jax.runs.log import CONSOLE
  from launch.cli.language_models import open_model

  llm, top = common.FLAGS["llm"].value, common.FLAGS["top_candidates"].value
  CONSOLE.info(f"— the best {top} re-ranked by {llm}")
  source = open_source(workdir, candidates=None, top=top, users=None, log=CONSOLE)
  model, lora, model_hash = open_model(source)
  return rerank(
    source,
    make_strategy("label", model, batch_size=32, lora=lora),
    model_name=model.name,
    model_hash=model_hash,
    settings=RerankSettings(),
    log=CONSOLE,
  )


if __name__ == "__main__":
  common.run(main, __doc__)
