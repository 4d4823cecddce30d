"""Results on the console, in one form for all programs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from gatrec_jax.serve.recommendations import Recommendations
  from gatrec_jax.serve.run import Run

_COLUMNS = {
  "full": ("precision", "recall", "ndcg", "map", "mrr", "hit", "coverage", "novelty", "popularity"),
  "judged": ("precision", "recall", "ndcg", "map", "coverage", "novelty"),
}

_BUCKETS = "_by_training_count"


def print_results(results: Mapping[str, Any], *, title: str, run: Run | None) -> None:
  """A table per protocol, rows by cut-off; then NDCG@10 by the users' training count."""
  from launch.cli.evaluation_tables import print_table, rows_by_cutoff

  notes = []
  if run is not None:
    notes.append(f"texts: {run.texts.facts.get('encoder', 'not used')}")
  for protocol in _protocols(results):
    columns = _COLUMNS.get(protocol, _COLUMNS["full"])
    print_table(
      rows_by_cutoff(results[protocol]),
      title=f"{title} · {protocol} ranking",
      protocol=protocol,
      metrics=columns,
      digits=6,
      intervals=False,
      notes=notes,
    )
    headline = results[protocol].get("ndcg@10")
    if headline and headline["lo"] is not None:
      print(
        f"NDCG@10 {headline['mean']:.4f} "
        f"[{headline['lo']:.4f}, {headline['hi']:.4f}] over {headline['n']} users"
      )
    buckets = results[f"{protocol}{_BUCKETS}"]
    parts = [
      f"{bucket}: {values['ndcg@10']['mean']:.4f} (n={values['ndcg@10']['n']})"
      for bucket, values in buckets.items()
      if "ndcg@10" in values
    ]
    if parts:
      print("NDCG@10 by number of training ratings: " + " · ".join(parts))


def _protocols(results: Mapping[str, Any]) -> list[str]:
  return [name.removesuffix(_BUCKETS) for name in results if name.endswith(_BUCKETS)]


def print_recommendations(lists: Recommendations, *, limit: int | None = None) -> None:
  """One block per user: rank, title (or id), score."""
  for user, items, titles, scores in list(
    zip(lists.users, lists.items, lists.titles, lists.scores, strict=True)
  )[:limit]:
    print(f"user {user}" if user else "new user")
    for rank, (item, title, score) in enumerate(zip(items, titles, scores, strict=True), 1):
      print(f"  {rank:>3}  {score:8.4f}  {title or '(no title)'}  [{item}]")


@contextlib.contextmanager
def profiled(folder: str | None) -> Iterator[None]:
  """What is trained inside is traced into the folder of --profile, if any; a table says the most.

  Raises:
    InputError: the folder cannot be written to.
  """
  if not folder:
    yield
    return
  from gatrec_jax.runs.tracing import largest_operations, recording
  from launch.cli.grid import print_grid

  with recording(folder) as found:
    yield
  if found.trace is None:
    print("profile: nothing was trained, so that there is no trace")
    return
  rows = [
    (one.name, f"{one.share:.1%}", f"{one.milliseconds:.1f}", str(one.count))
    for one in largest_operations(found.trace)
  ]
  print_grid(
    f"profile of {found.what} · {found.trace.parent}",
    ("operation", "share of the time", "ms", "count"),
    rows,
  )
