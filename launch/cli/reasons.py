"""Lists with reasons on the console."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from gatrec_jax.explain.audit.audit import MEANINGS
from gatrec_jax.explain.authors import Author, TemplateAuthor
from gatrec_jax.explain.explainer import Explainer
from gatrec_jax.explain.lists import Lists, reasons_for
from gatrec_jax.explain.phrases import shown_title


def print_reasons(
  explainer: Explainer, author: Author, lists: Lists, *, style: str, top_n: int
) -> None:
  """For each user each item with its place, title and reason; then how many sentences templates
  wrote where a language model's did not say what the evidence says.

  Raises: InputError for a user without training ratings, or an item that she has rated.
  """
  sentences = by_template = 0
  for user, own in lists.items():
    found = reasons_for(explainer, author, user, own, style=style, top_n=top_n)
    print(f"user {explainer.run.prepared.interactions.user_ids[user]}")
    for evidence, reason, _ in found:
      sentences += len(reason.sentences)
      by_template += reason.by_template
      moved = "" if evidence.rank == evidence.rank_before else f"  (was {evidence.rank_before})"
      print(f"  {evidence.rank:>3}{moved}  {shown_title(evidence.title)}  [{evidence.item_id}]")
      print(
        textwrap.fill(
          reason.text,
          width=98,
          initial_indent=" " * 7,
          subsequent_indent=" " * 7,
          break_on_hyphens=False,
          break_long_words=False,
        )
      )
  if by_template and author.name != TemplateAuthor.name:
    print(
      f"{by_template} of {sentences} sentences are templates, because those of {author.name} did "
      "not say what the evidence says"
    )


def print_figures(figures: Mapping[str, Any], *, title: str) -> None:
  """What `audit_reasons` measured, a line each, with its meaning."""
  print(f"\nreasons · {title}")
  for name, value in figures.items():
    if isinstance(value, dict):
      value = ", ".join(f"{key} {_shown(one)}" for key, one in value.items()) or "none"
    else:
      value = _shown(value)
    meaning = MEANINGS.get(name)
    print(f"  {name.replace('_', ' '):<24} {value}" + (f"   ({meaning})" if meaning else ""))


def _shown(value: Any) -> str:
  if value is None:
    return "none"
  if isinstance(value, list):
    return "/".join(map(str, value))
  return f"{value:.4f}" if isinstance(value, float) else str(value)
