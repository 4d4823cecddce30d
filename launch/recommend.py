"""Recommendations of a trained run, for its users or for somebody new:

  python -m launch.recommend --workdir=runs/ml-100k-u1-best-0 --users=1,2 --top_n=5
  python -m launch.recommend --workdir=runs/ml-100k-u1-best-0 --liked=50,172,181
  python -m launch.recommend --workdir=runs/ml-100k-u1-best-0 --new_ratings=today.csv
  python -m launch.recommend --workdir=runs/ml-100k-u1-best-0 --new_items=arrivals.jsonl

Without --workdir, --dataset, --fold, --preset and --seed name the run folder as in launch.train.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from launch.cli import flags as common
from launch.cli.language_models import FLAGS, open_author

if TYPE_CHECKING:
  from gatrec_jax.serve.run import Recommendations, Run

common.define(
  "preset",
  "model",
  "seed",
  "workdir",
  "dataset",
  "fold",
  "users",
  "liked",
  "disliked",
  "top_n",
  "exclude_seen",
  "explain",
  "style",
  "out",
  "export_embeddings",
  "new_ratings",
  "new_items",
  *FLAGS,
  llm="builtin",
)


def main() -> None:
  import pathlib

  from gatrec_jax.errors import InputError
  from gatrec_jax.serve import run as serving
  from launch.cli.results import print_recommendations

  flags = common.FLAGS
  run = serving.load_run(common.workdir_from_flags(common.config_from_flags()))
  common.require_agreement(run.config)
  if flags["new_ratings"].value or flags["new_items"].value:
    run = with_what_is_new(run)
  settings = dict(top_n=flags["top_n"].value, exclude_seen=flags["exclude_seen"].value)
  if flags["export_embeddings"].value:
    _ = run.item_vectors  # raises, before anything is written, where the model has none
  if flags["liked"].value and flags["users"].present:
    raise InputError("--users and --liked: give one of them")
  if not flags["users"].value:
    raise InputError("--users: give user ids, or all")
  if flags["liked"].value:
    lists = serving.recommend_to_new_user(
      run, flags["liked"].value, disliked=flags["disliked"].value, **settings
    )
  elif flags["disliked"].value:
    raise InputError("--disliked: goes with --liked, for a user who is not in the catalog")
  else:
    names = flags["users"].value
    lists = serving.recommend(run, None if names == ["all"] else names, **settings)
  if flags["explain"].value:
    print_with_reasons(run, lists)
  elif flags["out"].value:
    serving.write_lists(pathlib.Path(flags["out"].value), lists)
    print(f"{len(lists.users)} lists written to {flags['out'].value}")
  else:
    print_recommendations(lists)
  if flags["export_embeddings"].value:
    serving.export_embeddings(run, flags["export_embeddings"].value)
    print(f"vectors written to {flags['export_embeddings'].value}")


def print_with_reasons(run: Run, lists: Recommendations) -> None:
  """The lists with a reason for each item."""
  from gatrec_jax.errors import InputError
  from gatrec_jax.explain import make_explainer
  from gatrec_jax.explain.lists import List
  from gatrec_jax.serve.run import indices_of
  from launch.cli.reasons import print_reasons

  flags, ids = common.FLAGS, run.prepared.interactions
  if flags["liked"].value or flags["out"].value or not flags["exclude_seen"].value:
    raise InputError(
      "--explain: goes with --users and what they have not rated, on the console; launch.explain "
      "writes files"
    )
  explained = {
    int(user): List(indices_of(items, ids.item_ids, "item").tolist())
    for user, items in zip(indices_of(lists.users, ids.user_ids, "user"), lists.items, strict=True)
  }
  print_reasons(
    make_explainer(run),
    open_author(),
    explained,
    style=flags["style"].value,
    top_n=flags["top_n"].value,
  )


def with_what_is_new(run: Run) -> Run:
  """The run with the ratings of --new_ratings, in columns called as those of the run's own table,
  and the items of --new_items."""
  from gatrec_jax.data.interactions import no_interactions
  from gatrec_jax.data.tables import Columns, load_interactions, load_item_metadata
  from gatrec_jax.runs.log import CONSOLE
  from gatrec_jax.serve.new_ratings import with_new_ratings

  data, notes = run.config.data, {}
  fields, added = {}, no_interactions()
  if path := common.FLAGS["new_items"].value:
    fields, notes = load_item_metadata(path, max_bad_share=data.max_bad_share)
  if path := common.FLAGS["new_ratings"].value:
    columns = Columns(data.user_column, data.item_column, data.rating_column, data.time_column)
    added, more = load_interactions(path, columns=columns)
    notes = notes | more
  grown = with_new_ratings(run, added, fields)
  former, now = run.prepared.interactions, grown.prepared.interactions
  counts = {
    "new ratings": len(added),
    "new users": now.num_users - former.num_users,
    "new items": now.num_items - former.num_items,
  }
  if known := len(fields.keys() & set(former.item_ids)):
    counts["known items left as they were"] = known
  CONSOLE.info(", ".join(f"{name} {count}" for name, count in (counts | notes).items()))
  return grown


if __name__ == "__main__":
  common.run(main, __doc__)
