"""Reasons for whole lists: of a run, or of a list that somebody re-ranked; in files that go on."""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gatrec_jax import runs
from gatrec_jax.errors import InputError, Interrupted
from gatrec_jax.evaluate.files import read_recommendations
from gatrec_jax.explain.authors import Author
from gatrec_jax.explain.evidence import Evidence, Explainer, explain_items
from gatrec_jax.explain.reasons import Reason, unsupported
from gatrec_jax.runs.log import Log
from gatrec_jax.serve.recommendations import top_lists
from gatrec_jax.serve.run import Run


@dataclasses.dataclass(frozen=True)
class List:
  """What is to be explained to a user.

  Attributes:
    items: indices, best first.
    ranks: their places where others than the run made the list.
    reranked: of each item, as in `Evidence`, where it is known.
  """

  items: Sequence[int]
  ranks: Sequence[int] | None = None
  reranked: Sequence[dict[str, float]] | None = None


Lists = Mapping[int, List]
"""By user index."""


def lists_of_run(run: Run, users: Sequence[int], *, top_n: int) -> Lists:
  """The run's own lists."""
  items, _ = top_lists(run, np.asarray(users, np.int32), k=top_n)
  return {
    int(user): List([int(item) for item in row if item >= 0])
    for user, row in zip(users, items, strict=True)
  }


def lists_of_file(path: str, run: Run, users: Sequence[int] | None, *, top_n: int) -> Lists:
  """The first `top_n` of lists that any tool made.

  Raises: InputError as `read_recommendations`, and for a user whom the file does not have.
  """
  ids = run.prepared.interactions
  found, items = read_recommendations(path, user_ids=ids.user_ids, item_ids=ids.item_ids)
  lists, parts = {}, _parts_of_file(path)
  for user, row in zip(found, items, strict=True):
    kept = [int(item) for item in row[:top_n] if item >= 0]
    reranked = [parts.get((ids.user_ids[user], ids.item_ids[item]), {}) for item in kept]
    lists[int(user)] = List(kept, range(1, len(kept) + 1), reranked)
  if missing := [ids.user_ids[user] for user in users or () if user not in lists]:
    raise InputError(f"{path}: has no list of user {missing[0]}")
  return lists if users is None else {user: lists[user] for user in users}


def _parts_of_file(path: str) -> dict[tuple[str, str], dict[str, float]]:
  """By raw ids, what `launch.rerank` wrote of the parts of its scores; nothing of other files."""
  import pyarrow as pa
  import pyarrow.parquet as pq

  if not path.endswith(".parquet"):
    return {}
  names = [
    field.name
    for field in pq.read_schema(path)
    if field.name.startswith("part_") and pa.types.is_floating(field.type)
  ]
  rows = pq.read_table(path, columns=["user_id", "item_id", *names]).to_pylist() if names else []
  return {
    (str(row["user_id"]), str(row["item_id"])): {
      name.removeprefix("part_"): row[name] for name in names
    }
    for row in rows
    if not any(row[name] is None or np.isnan(row[name]) for name in names)
  }


def reasons_for(
  explainer: Explainer, author: Author, user: int, own: List, *, style: str, top_n: int
) -> list[tuple[Evidence, Reason, float]]:
  """Evidence, reason and seconds for each item of a user's list."""
  start = time.perf_counter()
  found = explain_items(
    explainer, user, own.items, ranks=own.ranks, reranked=own.reranked, top_n=top_n
  )
  reasons = author(found, style=style)
  each = (time.perf_counter() - start) / max(len(own.items), 1)
  return [(evidence, reason, each) for evidence, reason in zip(found, reasons, strict=True)]


def _row_of(evidence: Evidence, reason: Reason, *, seconds: float) -> dict[str, Any]:
  wrong = unsupported(reason, evidence)
  return {
    "user_id": evidence.user_id,
    "item_id": evidence.item_id,
    "rank": evidence.rank,
    "title": evidence.title,
    "text": reason.text,
    "sentences": list(reason.sentences),
    "checks": {"claims": len(reason.claims), "unsupported": wrong},
    "by_template": reason.by_template,
    "seconds": round(seconds, 4),
    "evidence": evidence.to_json(),
  }


def write_reasons(
  path: pathlib.Path,
  explainer: Explainer,
  author: Author,
  lists: Lists,
  *,
  style: str,
  top_n: int,
  log: Log,
) -> int:
  """Writes a line for each item, user by user; what a former call wrote is kept.

  Users without training ratings are left out and counted.

  Returns: how many lines there are now.
  Raises:
    InputError: the file holds something else, or reasons of another style, list length, run or
      model.
    Interrupted: a signal came; the same call goes on.
  """
  user_ids = explainer.run.prepared.interactions.user_ids
  origin = {
    "run": str(explainer.run.workdir.resolve()),
    "model": author.name,
    "style": style,
    "top_n": top_n,
    "prefilter": explainer.prefilter,
  }
  kept = _kept(path, origin, {user_ids[user]: len(own.items) for user, own in lists.items()})
  written = sum(map(len, kept.values()))
  left = [user for user in lists if user_ids[user] not in kept]
  silent = [user for user in left if not explainer.rescorer.ratings[user]]
  if kept:
    log.info(f"explain: {len(kept)} users are in {path} already")
  with runs.signals("explain: stopping after this user", log=log) as received:
    with open(path, "a", encoding="utf-8") as out:
      for done, user in enumerate(left):
        if received:
          raise Interrupted(
            f"explain: stopped after {len(kept) + done} users; the same command goes on",
            received[0],
          )
        if user in silent:
          continue
        rows = [
          _row_of(evidence, reason, seconds=seconds) | origin
          for evidence, reason, seconds in reasons_for(
            explainer, author, user, lists[user], style=style, top_n=top_n
          )
        ]
        out.write("".join(map(_line, rows)))
        out.flush()
        written += len(rows)
        if (done + 1) % 100 == 0:
          log.info(f"explain: {len(kept) + done + 1} of {len(kept) + len(left)} users")
  if silent:
    log.info(f"explain: {len(silent)} users without training ratings have no reasons")
  return written


def _kept(
  path: pathlib.Path, origin: Mapping[str, Any], lengths: Mapping[str, int]
) -> dict[str, list[dict[str, Any]]]:
  """Rows by user of a file of the same origin. The last user goes where her list was cut.

  Args: lengths: of the lists that are to be there, by user.
  """
  if not path.exists():
    return {}
  by_user: dict[str, list[dict[str, Any]]] = {}
  lines = path.read_text("utf-8").split("\n")
  try:
    rows = [json.loads(line) for line in lines[:-1]]
    for row in rows:
      by_user.setdefault(row["user_id"], []).append(row)
    found = {name: rows[0][name] for name in origin} if rows else origin
  except (ValueError, KeyError, TypeError):
    raise InputError(
      "is there and holds no reasons; name another file", field="out", value=path
    ) from None
  if found != origin:
    raise InputError(
      f"holds reasons of {found['run']} by {found['model']} in style "
      f"{found['style']} for lists of {found['top_n']}, prefilter {found['prefilter']}; name another file",
      field="out",
      value=path,
    )
  last = next(reversed(by_user), None)
  if last is not None and len(by_user[last]) < lengths.get(last, 0):
    del by_user[last]
  with runs.atomic_path(path) as temporary:
    temporary.write_text("".join(map(_line, itertools.chain(*by_user.values()))), "utf-8")
  return by_user


def _line(row: Mapping[str, Any]) -> str:
  return json.dumps(row, ensure_ascii=False) + "\n"
