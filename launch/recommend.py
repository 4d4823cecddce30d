r"""Recommends items to the users of a trained run, or to new users.

  python -m launch.recommend --workdir=runs/ml-100k-u1-best-0 --users=1,2 --top_n=5
  python -m launch.recommend --workdir=runs/ml-100k-u1-best-0 --liked=50,172,181
  python -m launch.recommend --workdir=runs/ml-100k-u1-best-0 --new_ratings=today.csv --users=1
  python -m launch.recommend --workdir=runs/ml-100k-u1-best-0 --new_items=arrivals.jsonl
  python -m launch.recommend --workdir=runs/ml-100k-u1-best-0 --users=1 --explain
  python -m launch.recommend --workdir=runs/ml-100k-u1-best-0 --users=1 --only=genres=Comedy \
    --only=year=1990.. --exclude=watched.csv
  python -m launch.recommend --workdir=runs/ml-100k-u1-best-0 --similar_to=50

Without --workdir, the run folder follows from --dataset, --fold, --preset and --seed as in
launch.train.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from launch.cli import (
  FLAGS,
  LANGUAGE_MODEL,
  config_from_flags,
  define,
  path_flag,
  require_agreement,
  run,
  say,
  workdir_from_flags,
)

if TYPE_CHECKING:
  from gatrec_jax.serve.recommendations import Recommendations
  from gatrec_jax.serve.run import Run
  from gatrec_jax.serve.similar import SimilarItems

define(
  "preset",
  "model",
  "seed",
  "workdir",
  "verify",
  "dataset",
  "fold",
  "users",
  "liked",
  "disliked",
  "top_n",
  "exclude_seen",
  "only",
  "exclude",
  "candidates",
  "similar_to",
  "explain",
  "style",
  "out",
  "export_embeddings",
  "new_ratings",
  "new_items",
  *LANGUAGE_MODEL,
  llm="builtin",
)


def main() -> None:
  """Flags -> run -> lists."""

  from gatrec_jax import serve as serving
  from gatrec_jax.serve.export import require_vectors
  from launch.cli.results import print_recommendations, print_similar

  opened = serving.load_run(workdir_from_flags(config_from_flags()))
  require_agreement(opened.config)
  if FLAGS.new_ratings or FLAGS.new_items:
    opened = with_new_data(opened)
  if FLAGS.similar_to:
    print_similar(similar_from_flags(opened))
    return
  if FLAGS.export_embeddings:
    require_vectors(opened)  # before anything is written
  lists = lists_from_flags(opened)
  if FLAGS.explain:
    print_with_reasons(opened, lists)
  elif FLAGS.out:
    serving.write_lists(path_flag("out"), lists, workdir=opened.workdir)
    say(lists_written(lists))
  else:
    print_recommendations(lists)
  if FLAGS.export_embeddings:
    found = serving.export_embeddings(opened, FLAGS.export_embeddings)
    say(f"vectors of {found.items.shape[1]} numbers written to {FLAGS.export_embeddings}")


def similar_from_flags(opened: Run) -> SimilarItems:
  """The items similar to --similar_to. Raises InputError."""
  from gatrec_jax import serve as serving
  from gatrec_jax.errors import InputError

  for name in ("users", "liked", "disliked", "candidates", "out", "explain", "export_embeddings"):
    if FLAGS[name].present:
      raise InputError(f"and `{name}` exclude each other", field="similar_to")
  return serving.similar_items(
    opened, FLAGS.similar_to, top_n=FLAGS.top_n, only=FLAGS.only, exclude=FLAGS.exclude
  )


def lists_written(lists: Recommendations) -> str:
  """A line that says how many lists are in the file of --out."""
  empty = sum(not items for items in lists.items)
  line = f"{_counted(len(lists.users) - empty, 'list')} written to {FLAGS.out}"
  if empty:
    line += f"; for {_counted(empty, 'user')} nothing is left, so they have no row"
  return line


def _counted(count: int, name: str) -> str:
  return f"{count} {name}" if count == 1 else f"{count} {name}s"


def lists_from_flags(opened: Run) -> Recommendations:
  """Lists for --users, or for the new user of --liked. Raises InputError."""
  from gatrec_jax import serve as serving
  from gatrec_jax.errors import InputError
  from gatrec_jax.runs.log import CONSOLE

  settings = dict(
    top_n=FLAGS.top_n, exclude_seen=FLAGS.exclude_seen, only=FLAGS.only, exclude=FLAGS.exclude
  )
  if FLAGS.liked:
    if FLAGS["users"].present:
      raise InputError("`users` and `liked` exclude each other")
    if FLAGS.candidates:
      raise InputError(
        "is for `users`; with `liked` give item ids by `only=FILE`", field="candidates"
      )
    return serving.recommend_to_new_user(opened, FLAGS.liked, disliked=FLAGS.disliked, **settings)
  if FLAGS.disliked:
    raise InputError("needs `liked`, for a user who is not in the catalog", field="disliked")
  if not FLAGS.users:
    raise InputError("give user ids, or all", field="users")
  if FLAGS.candidates:
    settings["candidates"] = serving.read_candidates(opened, FLAGS.candidates, log=CONSOLE)
  return serving.recommend(opened, None if FLAGS.users == ["all"] else FLAGS.users, **settings)


def print_with_reasons(opened: Run, lists: Recommendations) -> None:
  """Prints the lists with a reason for each item."""
  from gatrec_jax.errors import InputError
  from gatrec_jax.explain import make_explainer
  from gatrec_jax.explain.lists import List
  from gatrec_jax.serve.run import indices_of
  from launch.cli.language_models import open_author
  from launch.cli.reasons import print_reasons

  if FLAGS.liked:
    raise InputError(
      "is for `users`; write what the new user liked as rows of a file, in the columns of the "
      "run's table, and give `new_ratings=FILE` and `users=ID` instead of `liked`",
      field="explain",
    )
  if FLAGS.out or not FLAGS.exclude_seen:
    raise InputError(
      "works on the console, for `users` and items that they have not rated; launch.explain "
      "writes files",
      field="explain",
    )
  users = indices_of(lists.users, opened.user_index, "user")
  explained = {
    int(user): List(indices_of(items, opened.item_index, "item").tolist())
    for user, items in zip(users, lists.items, strict=True)
  }
  print_reasons(
    make_explainer(opened),
    open_author(),
    explained,
    style=FLAGS.style,
    top_n=FLAGS.top_n,
    filtered=bool(FLAGS.only or FLAGS.exclude or FLAGS.candidates),
  )


def with_new_data(opened: Run) -> Run:
  """The run with the ratings of --new_ratings (in the columns of the run's own table) and the
  items of --new_items.

  Raises: InputError: a file that cannot be read, or an event that has no weight in the run.
  """
  from gatrec_jax.data.interactions import no_interactions
  from gatrec_jax.data.tables.interaction_tables import load_interactions
  from gatrec_jax.data.tables.metadata import load_item_metadata
  from gatrec_jax.errors import InputError
  from gatrec_jax.runs.log import CONSOLE
  from gatrec_jax.serve.new_ratings import with_new_ratings
  from gatrec_jax.stages.data import columns_of, options_of, reading_of_more

  data, notes = opened.config.data, {}
  fields, added = {}, no_interactions()
  if FLAGS.new_items:
    found = load_item_metadata(
      FLAGS.new_items, item_column=data.item_column, max_bad_share=data.max_bad_share
    )
    CONSOLE.info(found.sentence)
    fields, notes = found.fields, found.notes
  if FLAGS.new_ratings:
    try:
      table = load_interactions(
        FLAGS.new_ratings,
        columns=columns_of(data),
        reading=reading_of_more(data, opened.prepared.feedback),
        options=options_of(data),
        time_format=data.time_format,
        max_bad_share=data.max_bad_share,
      )
    except InputError as error:
      if error.field != "event_weights":
        raise
      raise InputError(error.message, field="new_ratings") from None
    added, notes = table.interactions, {**notes, **table.notes}
  grown = with_new_ratings(opened, added, fields)
  former, now = opened.prepared.interactions, grown.prepared.interactions
  counts = {
    "new ratings": len(added),
    "new users": now.num_users - former.num_users,
    "new items": now.num_items - former.num_items,
  }
  if known := len(fields.keys() & set(former.item_ids)):
    counts["known items left unchanged"] = known
  CONSOLE.info(", ".join(f"{name} {count}" for name, count in (counts | notes).items()))
  return grown


if __name__ == "__main__":
  run(main, __doc__)
