"""Tables of re-ranking: what each strategy does to accuracy, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  import numpy as np

  from gatrec_jax.data.prepared import Prepared
  from gatrec_jax.rerank.pipeline import Reranked

_COLUMNS = (
  "strategy",
  "NDCG@10 before",
  "LM alone",
  "fused",
  "difference [95 %]",
  "relative",
  "LM tokens a user",
  "users/s",
)


def print_comparison(found: Mapping[str, Reranked], *, title: str, markdown: bool) -> None:
  """A row for each strategy, the weights below. Args: markdown: as Markdown, for notes."""
  rows = [_row(name, one.results) for name, one in found.items()]
  if markdown:
    print(f"| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}")
    for row in rows:
      print(f"| {' | '.join(row)} |")
  else:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for place, column in enumerate(_COLUMNS):
      table.add_column(column, justify="left" if place == 0 else "right", no_wrap=True)
    for row in rows:
      table.add_row(*row)
    console = Console()
    console.width = max(console.width, Console(width=10_000).measure(table).maximum)
    console.print(table)
  for name, one in found.items():
    for line in one.results["says"]:
      print(f"{name}: {line}")
    if "diverse" in one.results["differences"]:
      effect = one.results["differences"]["diverse"]
      print(
        f"{name}: with MMR NDCG@10 {_signed(effect['ndcg@10'])}"
        + (f", diversity@10 {_signed(effect['diversity@10'])}" if "diversity@10" in effect else "")
        + " against the order before"
      )
  print("full ranking on the test part; differences are paired over users")


def _row(name: str, results: Mapping[str, Any]) -> tuple[str, ...]:
  def mean(system):
    return f"{results['metrics'][system]['ndcg@10']['mean']:.4f}"

  difference, cost = results["differences"]["fused"]["ndcg@10"], results["cost"]
  relative = difference["relative"]
  return (
    name,
    mean("base"),
    mean("llm"),
    mean("fused"),
    _signed(difference),
    "–" if relative is None else f"{relative:+.1%}",
    f"{cost['tokens_per_list']:.0f}",
    f"{cost['lists_per_second']:.1f}",
  )


def _signed(difference: Mapping[str, Any]) -> str:
  text = f"{difference['mean']:+.4f}"
  if difference["lo"] is not None:
    text += f" [{difference['lo']:+.4f}, {difference['hi']:+.4f}]"
  return text


def print_lists(
  one: Reranked, prepared: Prepared, *, users: Sequence[int] | np.ndarray, top_n: int
) -> None:
  """The re-ranked lists of the users with these indices, each item with its place before."""
  ids = prepared.interactions
  for user, items, before in zip(
    one.candidates.users, one.lists, one.candidates.lists, strict=True
  ):
    if user not in users:
      continue
    print(f"user {ids.user_ids[user]}")
    for place, item in enumerate(items[items >= 0][:top_n], 1):
      title = prepared.item_fields[item].get("title", "(no title)")
      former = int((before == item).argmax()) + 1
      print(f"  {place:>3}  (was {former:>2})  {title}  [{ids.item_ids[item]}]")
