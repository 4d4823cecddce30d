"""Metrics, lists and traces on the console, in one form for all programs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from launch.cli.output import say

if TYPE_CHECKING:
  from gatrec_jax.serve.recommendations import Recommendations
  from gatrec_jax.serve.run import Run
  from gatrec_jax.serve.similar import SimilarItems

_COLUMNS = {
  "full": ("precision", "recall", "ndcg", "map", "mrr", "hit", "coverage", "novelty", "popularity"),
  "judged": ("precision", "recall", "ndcg", "map", "coverage", "novelty"),
}

_BUCKETS = "_by_training_count"
NOTHING_LEFT = "  nothing is left to recommend"


def print_results(results: Mapping[str, Any], *, title: str, run: Run | None) -> None:
  """Prints one table per protocol with a row per cut-off, and NDCG@10 by group of users.

  Args: results: results.json. title: of the data. run: whose text encoder is named below.
  """
  from launch.cli.evaluation_tables import evaluation_grid, rows_by_cutoff
  from launch.cli.grid import print_grid

  notes = []
  if run is not None:
    notes.append(f"texts: {run.texts.facts.get('encoder', 'not used')}")
  if not _protocols(results):
    say(f"{title}: nothing was tested, since no ratings were held out")
  for protocol in _protocols(results):
    print_grid(
      evaluation_grid(
        rows_by_cutoff(results[protocol]),
        title=f"{title} · {protocol} ranking",
        protocol=protocol,
        metrics=_COLUMNS.get(protocol, _COLUMNS["full"]),
        digits=6,
        intervals=False,
        notes=notes,
      )
    )
    headline = results[protocol].get("ndcg@10")
    if headline and headline["lo"] is not None:
      say(
        f"NDCG@10 {headline['mean']:.4f} "
        f"[{headline['lo']:.4f}, {headline['hi']:.4f}] over {headline['n']} users"
      )
    buckets = [
      f"{bucket}: {values['ndcg@10']['mean']:.4f} (n={values['ndcg@10']['n']})"
      for bucket, values in results[f"{protocol}{_BUCKETS}"].items()
      if "ndcg@10" in values
    ]
    if buckets:
      say("NDCG@10 by number of training ratings: " + " · ".join(buckets))


def _protocols(results: Mapping[str, Any]) -> list[str]:
  return [name.removesuffix(_BUCKETS) for name in results if name.endswith(_BUCKETS)]


def print_recommendations(lists: Recommendations) -> None:
  """Prints one block per user: rank, score, title (if any) and id."""
  for user, items, titles, scores in zip(
    lists.users, lists.items, lists.titles, lists.scores, strict=True
  ):
    say(f"user {user}" if user else "new user")
    if not items:
      say(NOTHING_LEFT)
    for rank, (item, title, score) in enumerate(zip(items, titles, scores, strict=True), 1):
      say(f"  {rank:>3}  {score:8.4f}  {title or '(no title)'}  [{item}]")


_BASES = {
  "vectors": "cosine of the model's item vectors",
  "likes": "cosine of who liked the items",
  "content": "cosine of attributes and text, since nobody rated it",
}


def print_similar(found: SimilarItems) -> None:
  """Prints the similar items with what each shares with the item."""
  say(f"similar to {found.title or '(no title)'}  [{found.item}], by {_BASES[found.basis]}")
  if not found.items:
    say("  no item is similar")
  for rank, one in enumerate(found.items, 1):
    say(f"  {rank:>3}  {one.similarity:8.4f}  {one.title or '(no title)'}  [{one.item}]")
    kinds: dict[str, list[str]] = {}
    for kind, name in one.shared:
      kinds.setdefault(kind, []).append(name)
    reasons = [f"liked by {one.liked_both} users who liked this"] if one.liked_both else []
    reasons += [f"{kind} {', '.join(names)}" for kind, names in kinds.items()]
    say(f"                 {'; '.join(reasons) or 'no like and no attribute in common'}")


@contextlib.contextmanager
def traced(folder: str | None) -> Iterator[None]:
  """Traces some of the work inside and prints its slowest operations.

  Args: folder: where JAX's profiler writes the trace; without one, nothing is traced.
  Raises: InputError: the folder cannot be written to.
  """
  if not folder:
    yield
    return
  from gatrec_jax.runs.tracing import largest_operations, recording
  from launch.cli.grid import Table, print_grid

  with recording(folder) as found:
    yield
  if found.trace is None:
    say("trace: nothing was trained, so there is no trace")
    return
  rows = [
    (one.name, f"{one.share:.1%}", f"{one.milliseconds:.1f}", str(one.count))
    for one in largest_operations(found.trace)
  ]
  header = ("operation", "share of the time", "ms", "count")
  print_grid(Table(f"trace of {found.what} · {found.trace.parent}", header, rows))
