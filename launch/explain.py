"""Explains recommendations by the ratings that the model's scores depend on.

  python -m launch.explain --workdir=runs/ml-100k-u1-best-0 --users=1,2 --top_n=5
  python -m launch.explain --workdir=runs/ml-100k-u1-best-0 --users=1 --style=detailed
  python -m launch.explain --workdir=runs/ml-100k-u1-best-0 --users=1 --items=50,172
  python -m launch.explain --workdir=runs/ml-100k-u1-best-0 --out=reasons.jsonl      (all users)
  python -m launch.explain --workdir=runs/ml-100k-u1-best-0 --style=detailed --audit=500
  python -m launch.explain --workdir=runs/ml-100k-u1-best-0 --audit=500 --retrain=50
  python -m launch.explain --workdir=RUN --recommendations=RUN/rerank/…/recommendations.parquet

The evidence is computed by removing ratings and scoring again. The sentences are written by --llm:
builtin (a small model trained on first use), a decoder, or none for templates.
A model chooses among phrases that state a fact, and connecting words. Every sentence is checked
against the evidence and replaced by a template if it says anything else. A file of reasons is
continued where it stopped; each line has the text, the evidence and the checks.

--audit measures how many claims are true with an independent checker; --retrain also trains the
model again without the cited ratings. --recommendations explains a re-ranked list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from launch.cli import (
  FLAGS,
  LANGUAGE_MODEL,
  config_from_flags,
  data_label,
  define,
  path_flag,
  require_agreement,
  require_at_least,
  require_one_of,
  require_writable,
  run,
  say,
  workdir_from_flags,
)

if TYPE_CHECKING:
  from gatrec_jax.explain import Explainer
  from gatrec_jax.explain.lists import Lists
  from gatrec_jax.serve.run import Run

define(
  "preset",
  "model",
  "seed",
  "workdir",
  "verify",
  "dataset",
  "fold",
  "users",
  "items",
  "top_n",
  "style",
  "recommendations",
  "out",
  "audit",
  "retrain",
  "prefilter",
  "json_out",
  *LANGUAGE_MODEL,
  llm="builtin",
)


def main() -> None:
  """Flags -> run and lists -> reasons, or an audit."""

  from gatrec_jax.explain import make_explainer
  from gatrec_jax.explain.lists import write_reasons
  from gatrec_jax.runs.log import CONSOLE
  from gatrec_jax.serve import run as serving
  from launch.cli.language_models import open_author
  from launch.cli.reasons import print_reasons

  _require_possible()
  opened = serving.load_run(workdir_from_flags(config_from_flags()))
  require_agreement(opened.config)
  explainer = make_explainer(opened, prefilter=FLAGS.prefilter)
  if FLAGS.audit:
    print_audit(explainer)
    return
  lists, author = lists_from_flags(opened), open_author()
  if FLAGS.out:
    path = path_flag("out")
    count = write_reasons(
      path, explainer, author, lists, style=FLAGS.style, top_n=FLAGS.top_n, log=CONSOLE
    )
    say(f"{count} reasons are in {path}")
  else:
    print_reasons(explainer, author, lists, style=FLAGS.style, top_n=FLAGS.top_n)


def _require_possible() -> None:
  """Raises InputError, before the run is loaded, for flags that cannot work."""

  from gatrec_jax.errors import InputError
  from gatrec_jax.explain.reasons import STYLES

  require_one_of("style", tuple(STYLES))
  require_at_least("top_n", 1)
  require_writable("json_out")
  require_writable("out")
  if FLAGS.out and path_flag("out").suffix != ".jsonl":
    raise InputError("must end in .jsonl", field="out", value=FLAGS.out)
  if not FLAGS.out and not FLAGS.audit and FLAGS.users == ["all"]:
    raise InputError(
      "name a .jsonl file for the reasons of all users, or give `users`", field="out"
    )


def print_audit(explainer: Explainer) -> None:
  """Measures reasons; prints the figures and writes --json_out."""

  from gatrec_jax import runs
  from gatrec_jax.explain.audit.audit import audit_reasons
  from gatrec_jax.runs.log import CONSOLE
  from launch.cli.language_models import open_author
  from launch.cli.reasons import print_figures

  require_at_least("audit", 1)
  figures = audit_reasons(
    explainer,
    open_author(),
    pairs=FLAGS.audit,
    style=FLAGS.style,
    top_n=FLAGS.top_n,
    seed=FLAGS.seed or 0,
    log=CONSOLE,
    retrained=FLAGS.retrain,
  )
  print_figures(figures, title=f"{data_label(explainer.run.config)} · {FLAGS.style}")
  if FLAGS.json_out:
    runs.write_json(path_flag("json_out"), {**figures, "environment": runs.environment()})


def lists_from_flags(opened: Run) -> Lists:
  """The items to explain, by user index. Raises InputError."""
  from gatrec_jax.errors import InputError
  from gatrec_jax.explain.lists import List, lists_of_file, lists_of_run
  from gatrec_jax.serve.run import indices_of

  ids, path = opened.prepared.interactions, FLAGS.recommendations
  if not FLAGS.users:
    raise InputError("give user ids, or all", field="users")
  everyone = FLAGS.users == ["all"]
  users = None if everyone else indices_of(FLAGS.users, opened.user_index, "user").tolist()
  if FLAGS.items:
    if path or users is None:
      raise InputError("needs `users`, and excludes `recommendations`", field="items")
    items = indices_of(FLAGS.items, opened.item_index, "item").tolist()
    return {user: List(items) for user in users}
  if path:
    return lists_of_file(path, opened, users, top_n=FLAGS.top_n)
  return lists_of_run(
    opened, list(range(ids.num_users)) if users is None else users, top_n=FLAGS.top_n
  )


if __name__ == "__main__":
  run(main, __doc__)
