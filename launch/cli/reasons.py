"""Lists with reasons, and the figures of an audit, on the console."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from gatrec_jax.explain.audit.audit import MEANINGS
from gatrec_jax.explain.authors import Author, TemplateAuthor
from gatrec_jax.explain.explainer import Explainer
from gatrec_jax.explain.lists import Lists, reasons_for
from gatrec_jax.explain.phrases import shown_title
from launch.cli.grid import Table, print_grid
from launch.cli.output import say, say_text
from launch.cli.results import NOTHING_LEFT


def print_reasons(
  explainer: Explainer,
  author: Author,
  lists: Lists,
  *,
  style: str,
  top_n: int,
  filtered: bool = False,
) -> None:
  """Prints each user's items with rank, title and reason, and how many sentences are templates.

  Args:
    filtered: whether the lists are what filters left, so that places in them count as ranks.
  Raises: InputError for a user without training ratings, or an item that they have rated.
  """
  sentences = by_template = 0
  for user, own in lists.items():
    found = reasons_for(explainer, author, user, own, style=style, top_n=top_n)
    say(f"user {explainer.run.prepared.interactions.user_ids[user]}")
    if not own.items:
      say(NOTHING_LEFT)
    for place, (evidence, reason, _) in enumerate(found, 1):
      sentences += len(reason.sentences)
      by_template += reason.by_template
      rank, before = place if filtered else evidence.rank, evidence.rank_before
      moved = "" if rank == before else f"  (was {before})"
      say(f"  {rank:>3}{moved}  {shown_title(evidence.title)}  [{evidence.item_id}]")
      say_text(_wrapped(reason.text))
  if by_template and author.name != TemplateAuthor.name:
    say(
      f"{by_template} of {sentences} sentences are templates, because {author.name} could not "
      "state their facts"
    )


def print_figures(figures: Mapping[str, Any], *, title: str) -> None:
  """Prints the figures of `audit`, and what each one means below."""
  names = {name: name.replace("_", " ") for name in figures}
  rows = [(names[name], _shown(value)) for name, value in figures.items()]
  notes = [f"{names[name]}: {MEANINGS[name]}" for name in figures if name in MEANINGS]
  print_grid(Table(f"reasons · {title}", ("figure", "value"), rows, notes))


def _wrapped(text: str) -> str:
  indent = " " * 7
  return textwrap.fill(
    text,
    width=98,
    initial_indent=indent,
    subsequent_indent=indent,
    break_on_hyphens=False,
    break_long_words=False,
  )


def _shown(value: Any) -> str:
  if value is None:
    return "none"
  if isinstance(value, dict):
    return ", ".join(f"{key} {_shown(one)}" for key, one in value.items()) or "none"
  if isinstance(value, list):
    return "/".join(map(str, value))
  return f"{value:.4f}" if isinstance(value, float) else str(value)
