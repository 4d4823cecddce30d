"""Tables of re-ranking: how each strategy changes accuracy, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from launch.cli.grid import Table, markdown_grid, print_grid, signed
from launch.cli.output import say, say_text

if TYPE_CHECKING:
  import numpy as np

  from gatrec_jax.data.prepared import Prepared
  from gatrec_jax.rerank.pipeline import Reranked

_HEADER = (
  "strategy",
  "NDCG@10 before",
  "LM alone",
  "fused",
  "difference [95 %]",
  "relative",
  "LM tokens per user",
  "users/s",
)


def print_strategies(found: Mapping[str, Reranked], *, title: str, markdown: bool) -> None:
  """Prints a row per strategy, with the fitted weights below.

  Args: found: by strategy. markdown: whether to print the table as Markdown too.
  """
  rows = [_row(name, one.results) for name, one in found.items()]
  grid = Table(title, _HEADER, rows, _notes(found))
  print_grid(grid)
  if markdown:
    say_text(f"\n{markdown_grid(grid)}")


def print_lists(
  one: Reranked, prepared: Prepared, *, users: Sequence[int] | np.ndarray, top_n: int
) -> None:
  """Prints the re-ranked lists of some users with each item's former rank.

  Args: users: indices. top_n: items per list.
  """
  ids = prepared.interactions
  for user, items, before in zip(
    one.candidates.users, one.lists, one.candidates.lists, strict=True
  ):
    if user not in users:
      continue
    say(f"user {ids.user_ids[user]}")
    for rank, item in enumerate(items[items >= 0][:top_n], 1):
      title = prepared.item_fields[item].get("title", "(no title)")
      former = int((before == item).argmax()) + 1
      say(f"  {rank:>3}  (was {former:>2})  {title}  [{ids.item_ids[item]}]")


def _row(name: str, results: Mapping[str, Any]) -> tuple[str, ...]:
  means = {
    system: f"{results['metrics'][system]['ndcg@10']['mean']:.4f}"
    for system in ("base", "llm", "fused")
  }
  difference, cost = results["differences"]["fused"]["ndcg@10"], results["cost"]
  relative = difference["relative"]
  return (
    name,
    means["base"],
    means["llm"],
    means["fused"],
    signed(difference),
    "–" if relative is None else f"{relative:+.1%}",
    f"{cost['tokens_per_list']:.0f}",
    f"{cost['lists_per_second']:.1f}",
  )


def _notes(found: Mapping[str, Reranked]) -> list[str]:
  notes = [f"{name}: {line}" for name, one in found.items() for line in one.results["says"]]
  for name, one in found.items():
    if "diverse" in one.results["differences"]:
      effect = one.results["differences"]["diverse"]
      note = f"{name}: with MMR NDCG@10 changes by {signed(effect['ndcg@10'])}"
      if "diversity@10" in effect:
        note += f" and diversity@10 by {signed(effect['diversity@10'])}"
      notes.append(note)
  return [*notes, "full ranking on the test part; differences are paired over users"]
