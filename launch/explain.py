"""Reasons for recommendations, each resting on what the model does without a rating:

  python -m launch.explain --workdir=runs/ml-100k-u1-best-0 --users=1,2 --top_n=5
  python -m launch.explain --workdir=runs/ml-100k-u1-best-0 --users=1 --style=detailed
  python -m launch.explain --workdir=runs/ml-100k-u1-best-0 --users=1 --items=50,172
  python -m launch.explain --workdir=runs/ml-100k-u1-best-0 --out=reasons.jsonl      (all users)
  python -m launch.explain --workdir=runs/ml-100k-u1-best-0 --style=detailed --audit=500
  python -m launch.explain --workdir=runs/ml-100k-u1-best-0 --audit=500 --retrain=50
  python -m launch.explain --workdir=RUN --recommendations=RUN/rerank/…/recommendations.parquet

Sentences are written by the language model of --llm: builtin (made on the first use), a model
folder, or none for templates alone. Each is read back, and stays only if it says what the evidence
says. A file of reasons goes on where it was stopped; each line has text, evidence and checks.
--audit measures how true reasons are, by a checker that looks everything up anew; --retrain also
trains the model without what reasons cite. --recommendations takes a list that was re-ranked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from launch.cli import flags as common
from launch.cli.language_models import FLAGS, open_author

if TYPE_CHECKING:
  from gatrec_jax.explain import Explainer
  from gatrec_jax.explain.lists import Lists
  from gatrec_jax.serve.run import Run

common.define(
  "preset",
  "model",
  "seed",
  "workdir",
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
  *FLAGS,
  llm="builtin",
)


def main() -> None:
  import pathlib

  from gatrec_jax.errors import InputError
  from gatrec_jax.explain import make_explainer
  from gatrec_jax.explain.lists import write_reasons
  from gatrec_jax.explain.reasons import STYLES
  from gatrec_jax.runs.log import CONSOLE
  from gatrec_jax.serve import run as serving
  from launch.cli.reasons import print_reasons

  flags = common.FLAGS
  style, top_n, out = (flags[name].value for name in ("style", "top_n", "out"))
  if style not in STYLES:
    raise InputError(f"--style={style}: must be one of {', '.join(STYLES)}")
  if top_n < 1:
    raise InputError(f"--top_n={top_n}: must be at least 1")
  if out and pathlib.Path(out).suffix != ".jsonl":
    raise InputError(f"--out={out}: must end in .jsonl")
  common.require_writable("json_out")
  if out:
    common.require_writable("out")
  elif not flags["audit"].value and flags["users"].value == ["all"]:
    raise InputError("--out: name a .jsonl file for the reasons of all users, or give --users")
  run = serving.load_run(common.workdir_from_flags(common.config_from_flags()))
  common.require_agreement(run.config)
  explainer = make_explainer(run, prefilter=flags["prefilter"].value)
  if flags["audit"].value:
    print_audit(explainer)
    return
  lists = lists_from_flags(run)
  author = open_author()
  if out:
    count = write_reasons(
      pathlib.Path(out), explainer, author, lists, style=style, top_n=top_n, log=CONSOLE
    )
    print(f"{count} reasons are in {out}")
  else:
    print_reasons(explainer, author, lists, style=style, top_n=top_n)


def print_audit(explainer: Explainer) -> None:
  """Measures reasons, and prints and keeps the figures."""
  import pathlib

  from gatrec_jax import runs
  from gatrec_jax.errors import InputError
  from gatrec_jax.explain.audit.audit import audit_reasons
  from gatrec_jax.runs.log import CONSOLE
  from launch.cli.reasons import print_figures

  flags = common.FLAGS
  if flags["audit"].value < 1:
    raise InputError(f"--audit={flags['audit'].value}: must be at least 1")
  figures = audit_reasons(
    explainer,
    open_author(),
    pairs=flags["audit"].value,
    style=flags["style"].value,
    top_n=flags["top_n"].value,
    seed=flags["seed"].value or 0,
    log=CONSOLE,
    retrained=flags["retrain"].value,
  )
  print_figures(figures, title=f"{common.label(explainer.run.config)} · {flags['style'].value}")
  if flags["json_out"].value:
    runs.write_json(
      pathlib.Path(flags["json_out"].value), {**figures, "environment": runs.environment()}
    )


def lists_from_flags(run: Run) -> Lists:
  """What is to be explained, by user index."""
  from gatrec_jax.errors import InputError
  from gatrec_jax.explain.lists import List, lists_of_file, lists_of_run
  from gatrec_jax.serve.run import indices_of

  flags, ids = common.FLAGS, run.prepared.interactions
  names, top_n, path = (flags[name].value for name in ("users", "top_n", "recommendations"))
  if not names:
    raise InputError("--users: give user ids, or all")
  users = None if names == ["all"] else indices_of(names, ids.user_ids, "user").tolist()
  if flags["items"].value:
    if path or users is None:
      raise InputError("--items: goes with --users and without --recommendations")
    items = indices_of(flags["items"].value, ids.item_ids, "item").tolist()
    return {user: List(items) for user in users}
  if path:
    return lists_of_file(path, run, users, top_n=top_n)
  return lists_of_run(run, list(range(ids.num_users)) if users is None else users, top_n=top_n)


if __name__ == "__main__":
  common.run(main, __doc__)
