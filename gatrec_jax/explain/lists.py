"""Reasons for whole lists, of a run or re-ranked, and files of reasons that can be resumed."""

from __future__ import annotations

import dataclasses
import itertools
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gatrec_jax import runs
from gatrec_jax.errors import InputError, Interrupted, require_list
from gatrec_jax.evaluate.files import read_recommendations
from gatrec_jax.explain.authors import Author, TemplateAuthor
from gatrec_jax.explain.evidence import Evidence
from gatrec_jax.explain.explainer import Explainer, explain_items, make_explainer
from gatrec_jax.explain.reasons import Reason, unsupported
from gatrec_jax.runs.log import SILENT, Log
from gatrec_jax.serve.recommendations import top_lists
from gatrec_jax.serve.run import Run, indices_of


@dataclasses.dataclass(frozen=True)
class List:
  """A user's list that is to be explained.

  Attributes:
    items: indices, best first.
    ranks: their positions if the list was re-ranked; None for the run's own list.
    reranked: for each item, as in `Evidence`, if known.
  """

  items: Sequence[int]
  ranks: Sequence[int] | None = None
  reranked: Sequence[dict[str, float]] | None = None


Lists = Mapping[int, List]
"""By user index."""

COMPONENT_PREFIX = "component_"
"""Prefix of the columns of a re-ranked list with the components of its scores."""


def lists_of_run(run: Run, users: Sequence[int], *, top_n: int) -> Lists:
  """The run's own lists. Args: users: indices. top_n: items per list."""
  items, _ = top_lists(run, np.asarray(users, np.int32), k=top_n)
  return {
    int(user): List([int(item) for item in row if item >= 0])
    for user, row in zip(users, items, strict=True)
  }


def lists_of_file(path: str, run: Run, users: Sequence[int] | None, *, top_n: int) -> Lists:
  """The first `top_n` items of lists in a file that any tool may have written.

  Args: path: of the file. run: whose catalog it uses. users: indices; None for all users in it.
  Raises: InputError as `read_recommendations`, or if the file has no list of a user.
  """
  ids = run.prepared.interactions
  found, items = read_recommendations(path, user_ids=ids.user_ids, item_ids=ids.item_ids)
  lists, components = {}, _components_of_file(path)
  for user, row in zip(found, items, strict=True):
    kept = [int(item) for item in row[:top_n] if item >= 0]
    reranked = [components.get((ids.user_ids[user], ids.item_ids[item]), {}) for item in kept]
    lists[int(user)] = List(kept, range(1, len(kept) + 1), reranked)
  if missing := [ids.user_ids[user] for user in users or () if user not in lists]:
    raise InputError(f"{path}: has no list of user {missing[0]}")
  return lists if users is None else {user: lists[user] for user in users}


def _components_of_file(path: str) -> dict[tuple[str, str], dict[str, float]]:
  """By raw ids, the components of scores that `launch.rerank` wrote; {} for other files."""
  import pyarrow as pa
  import pyarrow.parquet as pq

  if not path.endswith(".parquet"):
    return {}
  names = [
    field.name
    for field in pq.read_schema(path)
    if field.name.startswith(COMPONENT_PREFIX) and pa.types.is_floating(field.type)
  ]
  rows = pq.read_table(path, columns=["user_id", "item_id", *names]).to_pylist() if names else []
  return {
    (str(row["user_id"]), str(row["item_id"])): {
      name.removeprefix(COMPONENT_PREFIX): row[name] for name in names
    }
    for row in rows
    if not any(row[name] is None or np.isnan(row[name]) for name in names)
  }


def explain(
  run: Run,
  users: Sequence[str | int],
  *,
  items: Sequence[str | int] | None = None,
  top_n: int = 5,
  style: str = "short",
  author: Author | None = None,
  path: str | os.PathLike[str] | None = None,
) -> dict[str, list[tuple[Evidence, Reason]]]:
  """The evidence and the reason for each recommendation of the given users.

  Args:
    users: ids. items: ids to explain; None = each user's first `top_n`.
    style: one of `STYLES`. author: puts evidence into words; None = templates.
    path: also write a JSON line per item to this file, after those of an earlier call.
  Returns: by user id, in the order of the list.
  Raises:
    InputError: an unknown id, a user without training ratings, an item that the user has rated, or
      a model that cannot be explained.
  """
  author = author or TemplateAuthor()
  ids = run.prepared.interactions
  rows = indices_of(require_list(users, field="users"), run.user_index, "user")
  if items is None:
    lists = lists_of_run(run, rows, top_n=top_n)
  else:
    own = indices_of(require_list(items, field="items"), run.item_index, "item").tolist()
    lists = {int(user): List(own) for user in rows}
  explainer = make_explainer(run)
  found = {
    ids.user_ids[user]: [
      (evidence, reason)
      for evidence, reason, _ in reasons_for(explainer, author, user, one, style=style, top_n=top_n)
    ]
    for user, one in lists.items()
  }
  if path is not None:
    write_reasons(
      pathlib.Path(path), explainer, author, lists, style=style, top_n=top_n, log=SILENT
    )
  return found


def reasons_for(
  explainer: Explainer, author: Author, user: int, own: List, *, style: str, top_n: int
) -> list[tuple[Evidence, Reason, float]]:
  """Explains each item of a user's list.

  Returns: evidence, reason and seconds per item.
  """
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
  """Writes one JSON line per item, user by user, after the lines of an earlier call.

  Users without training ratings are skipped and counted.

  Args:
    path: of the file. explainer, author: make the reasons. lists: by user.
    style: of the reasons. top_n: items per list.
    log: where messages go.
  Returns: the number of lines in the file.
  Raises:
    InputError: the file contains something else, or reasons in another style or for another list
      length, run or model.
    Interrupted: on a signal; calling again resumes the work.
  """
  user_ids = explainer.run.prepared.interactions.user_ids
  origin = {
    "run": explainer.run.content_hash,
    "model": author.name,
    "model_hash": author.model_hash,
    "style": style,
    "top_n": top_n,
    "prefilter": explainer.prefilter,
  }
  item_ids = explainer.run.prepared.interactions.item_ids
  wanted = {user_ids[user]: [item_ids[item] for item in one.items] for user, one in lists.items()}
  kept = _kept(path, origin, wanted, log=log)
  written = sum(map(len, kept.values()))
  left = [user for user in lists if user_ids[user] not in kept]
  unrated = [user for user in left if not explainer.rescorer.ratings[user]]
  if kept:
    log.info(f"explain: {path} already contains {len(kept)} users")
  with runs.signals("explain: stopping after this user", log=log) as received:
    with open(path, "a", encoding="utf-8") as out:
      for done, user in enumerate(left):
        if received:
          raise Interrupted(
            f"explain: stopped after {len(kept) + done} users; run the same command to resume",
            received[0],
          )
        if user in unrated:
          continue
        rows = [
          _row_of(evidence, reason, seconds=seconds) | origin
          for evidence, reason, seconds in reasons_for(
            explainer, author, user, lists[user], style=style, top_n=top_n
          )
        ]
        out.write("".join(map(runs.sealed_line, rows)))
        out.flush()
        written += len(rows)
        if (done + 1) % 100 == 0:
          log.info(f"explain: {len(kept) + done + 1} of {len(kept) + len(left)} users")
  if unrated:
    log.info(f"explain: skipped {len(unrated)} users without training ratings")
  return written


def _differences(row: Mapping[str, Any], origin: Mapping[str, Any], names: Sequence[str]) -> str:
  """What the origin of a row has else, for the user."""
  words = {
    "run": "another run, or this one as it was trained before",
    "model_hash": "other weights",
  }
  return ", ".join(
    words.get(name) or f"{name} {row.get(name)} instead of {origin[name]}" for name in names
  )


def _kept(
  path: pathlib.Path, origin: Mapping[str, Any], lists: Mapping[str, Sequence[str]], *, log: Log
) -> dict[str, list[dict[str, Any]]]:
  """Rows by user of an existing file of the same origin.

  Users with an incomplete list or a damaged line are dropped, from the file too.

  Args: path: of the file. origin: fields that every row must have. lists: item ids, by user id.
  Raises: InputError: the file has something else, or reasons of another origin.
  """
  if not path.exists():
    return {}
  lines = path.read_bytes().split(b"\n")[:-1]
  rows = [row for row in map(runs.unsealed_line, lines) if row is not None]
  if lines and not (rows and all(row.keys() >= {"user_id", "item_id", *origin} for row in rows)):
    raise InputError(
      "exists and does not contain reasons; name another file", field="out", value=path
    )
  by_user: dict[str, list[dict[str, Any]]] = {}
  for row in rows:
    by_user.setdefault(row["user_id"], []).append(row)
    if other := [name for name in origin if row.get(name) != origin[name]]:
      raise InputError(
        f"contains reasons with {_differences(row, origin, other)}; name another file",
        field="out",
        value=path,
      )
  complete = {}
  for user, own in by_user.items():
    items = [row["item_id"] for row in own]
    if user not in lists or items == lists[user]:
      complete[user] = own
    elif items != [item for item in lists[user] if item in items]:  # more than lines are missing
      raise InputError(
        f"contains reasons for another list of user {user}; name another file",
        field="out",
        value=path,
      )
  if len(rows) < len(lines):
    log.info(f"explain: {len(lines) - len(rows)} damaged lines in {path}: made again")
  with runs.atomic_path(path) as temporary:
    kept = itertools.chain.from_iterable(complete.values())
    temporary.write_text("".join(map(runs.sealed_line, kept)), "utf-8")
  return complete
