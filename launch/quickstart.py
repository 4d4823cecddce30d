"""The main job on the built-in catalogue, start to end: bash launch/quickstart.sh

Trains the GAT, the same without text, and the same without the graph; compares them with
popularity on the test part; prints five users' recommendations. Also python -m launch.quickstart.
"""

from launch import common

common.define(*common.DATA, *common.TEXT, *common.RUN, "bootstrap", preset="tiny")

# name -> fields that differ from the GAT with text and graph.
VARIANTS = {
  "GAT (text + graph)": {},
  "without text (graph alone)": {"node_features": "ids"},
  "without graph (text alone)": {"node_features": "projected", "layer_widths": "", "heads": ""},
}


def main() -> None:
  import pathlib

  import numpy as np

  from gatrec_jax import runs
  from gatrec_jax.config import with_fields
  from gatrec_jax.evaluate.tables import print_table
  from gatrec_jax.evaluate.top_items import top_items
  from gatrec_jax.lm.source import resolve_encoder
  from gatrec_jax.models.baselines.popularity import popularity_vectors
  from gatrec_jax.train import serving
  from gatrec_jax.train.pipeline import train_and_evaluate
  from launch.tables import print_recommendations

  config = with_fields(common.config_from_flags(), {"protocol": "full", "ks": (10, 20)})
  # The encoder that `auto` finds may be another one tomorrow, and is another run then.
  encoder = resolve_encoder(config.text.encoder)
  kind = "lexical" if encoder.kind == "lexical" else encoder.name.split("/")[-1].lower()
  default = f"runs/quickstart-{kind}-{config.train.seed}"
  workdir = pathlib.Path(common.FLAGS["workdir"].value or default)
  trained = {}
  for name, fields in VARIANTS.items():
    common.say(f"— {name}")
    folder = workdir / name.split(" (")[0].lower().replace(" ", "-")
    trained[name] = train_and_evaluate(with_fields(config, fields), folder, say=common.say)
  run = trained["GAT (text + graph)"][0]

  everyone = np.arange(run.prepared.interactions.num_users, dtype=np.int32)
  popular, _ = top_items(
    *popularity_vectors(run.prepared.train, positive_threshold=run.prepared.positive_threshold),
    everyone, seen=run.prepared.known, k=max(config.evaluate.ks),
  )  # fmt: skip
  lists = serving.evaluate_lists(popular, everyone, config=config, prepared=run.prepared)
  rows = {"popularity": lists["full"].to_json()}
  rows |= {name: results["full"] for name, (_, results) in trained.items()}
  runs.write_json(workdir / "results.json", rows)
  print()
  print_table(
    rows, title=f"{config.data.dataset}, test part, full ranking", protocol="full",
    metrics=("ndcg@10", "recall@10", "recall@20", "map@10", "coverage@10"),
    notes=[f"texts: {run.texts.facts['encoder']}"],
  )  # fmt: skip
  best = rows["GAT (text + graph)"]["ndcg@10"]["mean"]
  for name, values in rows.items():
    if name != "GAT (text + graph)":
      print(f"NDCG@10 against {name}: {best / values['ndcg@10']['mean'] - 1:+.1%}")
  print("\nRecommendations for five users:")
  ids = run.prepared.interactions.user_ids
  picked = [ids[u] for u in np.linspace(0, len(ids) - 1, 5).astype(int)]
  print_recommendations(serving.recommend(run, picked, top_n=5))
  print(f"\nEverything is in {workdir}. To go on: source .venv/bin/activate, then")
  print(f"python -m launch.recommend --workdir={run.workdir} --liked=1,2,3")


if __name__ == "__main__":
  common.run(main, __doc__)
