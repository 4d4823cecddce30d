"""Profiles by a language model as a resumable stage of a run: WORKDIR/written."""

from __future__ import annotations

import collections
import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gatrec_jax import runs
from gatrec_jax.config.schema import Config
from gatrec_jax.data.prepared import Prepared
from gatrec_jax.errors import DamagedFile, InputError
from gatrec_jax.lm.folders.source import content_hash
from gatrec_jax.profiles import builder, users
from gatrec_jax.profiles import provided as given
from gatrec_jax.profiles.schema import Profile, parse_profile
from gatrec_jax.profiles.writer.batches import batches_of_users
from gatrec_jax.profiles.writer.checks import Names, common_terms
from gatrec_jax.profiles.writer.local_author import LocalAuthor
from gatrec_jax.profiles.writer.prompts import PROMPT_VERSION
from gatrec_jax.profiles.writer.write import ItemTask, UserTask
from gatrec_jax.runs.log import Log
from gatrec_jax.runs.resumable import in_chunks
from gatrec_jax.stages.data import prepare

KINDS = ("items", "users")
# Beside weights and tokenizer, the files that determine prompts and the end of answers.
_PROMPT_FILES = (
  "tokenizer_config.json",
  "special_tokens_map.json",
  "chat_template.jinja",
  "chat_template.json",
  "generation_config.json",
  "tokenizer.model",
)


@dataclasses.dataclass(frozen=True)
class Request:
  """Which profiles to write, and with which model.

  Attributes:
    origin: everything that determines the model's answers, as plain values; kept in the manifest.
    open: loads the model; called only where something is left to write.
    kinds: of `KINDS`.
    items: ids of the items to write; () for all. limit: write only the first so many of these
      items, and of the users; 0 for no limit.
    form: of users' profiles, `unified` or `summary`.
    batch_size: profiles that are written together, and lost when the process is killed.
    seed: of the random draws.
  """

  origin: Mapping[str, Any]
  open: Callable[[], LocalAuthor]
  kinds: Sequence[str]
  form: str
  batch_size: int
  seed: int
  items: Sequence[str] = ()
  limit: int = 0


def folder_hash(folder: pathlib.Path) -> str:
  """A hash of all files of a model's folder that determine what it writes."""
  others = {
    name: runs.file_digest(folder / name) for name in _PROMPT_FILES if (folder / name).is_file()
  }
  return runs.digest(content_hash(folder), others)


def write_profiles(
  config: Config, workdir: pathlib.Path, request: Request, *, log: Log
) -> dict[str, Any]:
  """Writes the requested profiles that do not exist yet. Returns: the manifest.

  Users' profiles describe items by the profiles just written, else given, else built.

  Raises:
    InputError: the folder holds profiles of another model, prompt version, form or of other data;
      or anything wrong with data and model.
    Interrupted: a signal arrived; the same call resumes.
  """
  manifest = _Manifest(workdir / "written", config, request)
  prepared = prepare(config.data, workdir, log=log)
  manifest.tie_data(prepared.facts["content"])
  author = _Once(request.open)
  if "items" in request.kinds:
    chosen = _chosen(request, prepared.train.item_ids)
    origin = {} if len(chosen) == prepared.train.num_items else {"items": runs.digest(chosen)}
    if not manifest.is_complete("items", origin, log=log):
      built = builder.build_item_profiles(prepared.item_fields, noun=prepared.item_noun)
      names = Names(prepared.item_fields)
      task = ItemTask(prepared.item_fields, built, names, prepared.item_noun)
      _write(manifest, "items", prepared.train.item_ids, chosen, task, author, request, log=log)
  if "users" in request.kinds:
    items = _item_profiles(config, prepared, manifest)
    ids = prepared.train.user_ids
    chosen = list(range(len(ids)))[: request.limit or None]
    origin = {
      "form": request.form,
      **({} if len(chosen) == len(ids) else {"users": len(chosen)}),
      "item profiles": runs.digest([item and dataclasses.asdict(item) for item in items]),
    }
    if not manifest.is_complete("users", origin, log=log):
      task = _user_task(prepared, items, request.form)
      _write(manifest, "users", ids, chosen, task, author, request, log=log)
  return manifest.tree


def written_items(workdir: pathlib.Path, prepared: Prepared) -> dict[int, str]:
  """The profiles by item that the model wrote, as `write_profiles` left them in a run.

  Raises: InputError where there are none, or the file is damaged.
  """
  path = workdir / "written" / "items.jsonl"
  index = {raw: item for item, raw in enumerate(prepared.train.item_ids)}
  return {
    index[line["item_id"]]: line["profile"] for line in _read_lines(path) if line["source"] == "llm"
  }


def _chosen(request: Request, ids: Sequence[str]) -> list[int]:
  """Indices of the items to write, in the order of the catalog. Raises: InputError."""
  index = {raw: item for item, raw in enumerate(ids)}
  unknown = [raw for raw in request.items if raw not in index]
  if unknown:
    raise InputError(f"item {unknown[0]} is not in the catalog of {len(ids)} items", field="items")
  chosen = sorted({index[raw] for raw in request.items}) or list(range(len(ids)))
  return chosen[: request.limit or None]


class _Once:
  """A model that is loaded on first use."""

  def __init__(self, open_author: Callable[[], LocalAuthor]) -> None:
    self._open, self._author = open_author, None

  def __call__(self) -> LocalAuthor:
    self._author = self._author or self._open()
    return self._author


class _Manifest:
  """written/manifest.json: what the profiles were made from, and how many are written."""

  def __init__(self, folder: pathlib.Path, config: Config, request: Request) -> None:
    """Raises: InputError where the folder's profiles have another origin."""
    self.folder, self.path = folder, folder / "manifest.json"
    settings = {k: v for k, v in dataclasses.asdict(config.data).items() if k != "data_dir"}
    origin = {
      "prompt version": PROMPT_VERSION,
      **request.origin,
      "batch_size": request.batch_size,
      "seed": request.seed,
      **settings,
    }
    if not any(self._exists(kind) for kind in KINDS):
      self.tree: dict[str, Any] = {
        "origin": origin,
        "data_content": "",
        "environment": runs.environment(),
      }
      return
    self.tree = runs.read_sealed(
      self.path, remedy=f"its profiles cannot be continued without it; delete {self.folder}"
    )
    self._require_same("profiles", self.tree.get("origin", {}), origin)

  def tie_data(self, content: str) -> None:
    """Raises: InputError where the profiles were written from other data."""
    if self.tree["data_content"] not in ("", content):
      raise InputError(
        f"{self.folder}: its profiles were written from other contents of the data files than "
        "there are now; use another `workdir`, or delete that folder"
      )
    self.tree["data_content"] = content
    runs.write_sealed(self.path, self.tree)

  def is_complete(self, kind: str, origin: Mapping[str, Any], *, log: Log) -> bool:
    """Whether every profile of this kind is written; else the manifest records that it was begun.

    Raises: InputError where it was begun with another origin, or its file was changed since.
    """
    own = self.tree.setdefault(kind, {})
    path = self.folder / f"{kind}.jsonl"
    if self._exists(kind):
      self._require_same(path.name, own.get("origin", {}), origin)
    if not path.exists():
      if not _journal(path).exists():
        own.clear()
      own.setdefault("origin", dict(origin))
      runs.write_sealed(self.path, self.tree)
      return False
    if "sha256" not in own:  # it was killed between the file and this note
      self.complete(kind)
    _journal(path).unlink(missing_ok=True)
    self.require_unchanged(kind)
    log.info(f"{kind}: unchanged, kept ({path})")
    return True

  def require_unchanged(self, kind: str) -> None:
    """Raises DamagedFile where a finished file is not the one that was written."""
    path, known = self.folder / f"{kind}.jsonl", self.tree.get(kind, {}).get("sha256")
    if known is not None and known != runs.file_digest(path):
      raise DamagedFile(
        f"{path}: damaged (was changed after it was written); delete it to have it made again"
      )

  def note(self, kind: str, **figures: float) -> None:
    """Records figures of the profiles so far."""
    self.tree[kind] |= figures
    runs.write_sealed(self.path, self.tree)

  def complete(self, kind: str) -> None:
    """Records what the file holds."""
    path = self.folder / f"{kind}.jsonl"
    lines = _read_lines(path)
    sources = collections.Counter(line["source"] for line in lines)
    problems = collections.Counter(
      problem.split(' "')[0] for line in lines for problem in set(line["problems"])
    )
    self.note(
      kind,
      profiles=len(lines),
      sources=dict(sorted(sources.items())),
      second_attempts=sum(line["attempts"] == 2 for line in lines),
      problems=dict(sorted(problems.items())),
      sha256=runs.file_digest(path),
    )

  def _exists(self, kind: str) -> bool:
    path = self.folder / f"{kind}.jsonl"
    return path.exists() or _journal(path).exists()

  def _require_same(self, what: str, former: Mapping[str, Any], origin: Mapping[str, Any]) -> None:
    changed = [
      f"{key}: {former.get(key)} → {origin.get(key)}"
      for key in {**former, **origin}
      if former.get(key) != origin.get(key)
    ]
    if changed:
      raise InputError(
        f"{self.folder}: its {what} were written from something else ({'; '.join(changed)}); use "
        "another `workdir`, or delete that folder"
      )


def _write(
  manifest: _Manifest,
  kind: str,
  ids: Sequence[str],
  chosen: Sequence[int],
  task: ItemTask | UserTask,
  author: _Once,
  request: Request,
  *,
  log: Log,
) -> None:
  """Writes the profiles of some rows; similar ones together, and in the file in their order."""
  path, id_field = manifest.folder / f"{kind}.jsonl", f"{kind[:-1]}_id"
  before = {name: manifest.tree[kind].get(name, 0) for name in ("tokens", "seconds")}
  writer = author()
  order = sorted(chosen, key=task.size)
  spent, begun = _tokens(writer), time.perf_counter()
  first: list[int] = []

  def make(places: range) -> list[dict[str, Any]]:
    first[:] = first or [places.start]
    rows = [order[place] for place in places]
    written = task.write(writer, rows, seed=request.seed)
    seconds = round(before["seconds"] + time.perf_counter() - begun, 1)
    manifest.note(kind, tokens=before["tokens"] + _tokens(writer) - spent, seconds=seconds)
    return [
      {
        id_field: ids[row],
        "profile": one.text,
        "source": one.source,
        "batches": one.batches,
        "attempts": one.attempts,
        "problems": list(one.problems),
      }
      for row, one in zip(rows, written, strict=True)
    ]

  def values(done: int) -> dict[str, str]:
    tokens, seconds = _tokens(writer) - spent, time.perf_counter() - begun
    left = tokens / max(1, done - first[0]) * (len(order) - done)
    return {"at": f"{tokens / max(seconds, 1e-9):.0f} tokens/s,", "about": f"{left:,.0f} tokens"}

  journal, keys = _journal(path), [ids[row] for row in order]
  records = in_chunks(
    journal, keys, make, chunk=request.batch_size, name=kind, log=log, values=values
  )
  place = {ids[row]: n for n, row in enumerate(chosen)}
  records.sort(key=lambda record: place[record["key"]])
  with runs.atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as out:
    for record in records:
      line = {name: value for name, value in record.items() if name != "key"}
      out.write(json.dumps(line, ensure_ascii=False) + "\n")
  manifest.complete(kind)
  journal.unlink()
  log.info(_line(kind, manifest.tree[kind], path))


def _journal(path: pathlib.Path) -> pathlib.Path:
  """The file that grows by a batch at a time until all profiles are written."""
  return path.with_name(f"{path.stem}.partial.jsonl")


def _read_lines(path: pathlib.Path) -> list[dict[str, Any]]:
  try:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n")[:-1]]
  except (OSError, ValueError) as error:
    raise InputError(f"{path}: damaged ({error}); delete it to have it written again") from None


def _tokens(author: LocalAuthor) -> int:
  return author.speed.prompt_tokens + author.speed.new_tokens


def _line(kind: str, facts: Mapping[str, Any], path: pathlib.Path) -> str:
  sources = facts["sources"]
  counts = [f"{sources.get('llm', 0)} by the model"]
  if sources.get("built"):
    problems = ", ".join(f"{name} {count}" for name, count in facts["problems"].items())
    counts.append(f"{sources['built']} built without it ({problems or 'nothing to write from'})")
  if sources.get("none"):
    why = "no text is known" if kind == "items" else "nothing liked in training"
    counts.append(f"{sources['none']} without a profile ({why})")
  speed = facts["profiles"] / max(facts.get("seconds", 0.0), 1e-9)
  rate = facts.get("tokens", 0) / max(facts.get("seconds", 0.0), 1e-9)
  return f"{kind}: {', '.join(counts)}, {speed:.2f} profiles/s, {rate:.0f} tokens/s ({path})"


def _item_profiles(config: Config, prepared: Prepared, manifest: _Manifest) -> list[Profile | None]:
  """The profiles of items in users' prompts: written, else given, else built."""
  profiles = builder.build_item_profiles(prepared.item_fields, noun=prepared.item_noun)
  written = manifest.folder / "items.jsonl"
  if written.exists():
    manifest.require_unchanged("items")
  ids = prepared.train.item_ids
  texts: Mapping[int, str] = {}
  if written.exists() and "sha256" in manifest.tree.get("items", {}):
    index = {raw: item for item, raw in enumerate(ids)}
    lines = _read_lines(written)
    texts = {index[line["item_id"]]: line["profile"] for line in lines if line["profile"]}
  elif config.text.item_profiles:
    texts = given.read_profiles(config.text.item_profiles, id_field="item_id", ids=ids).texts
  for item, text in texts.items():
    parsed = parse_profile(text)
    # A text of another form is used unchanged.
    profiles[item] = Profile(overview=text) if parsed == Profile(name=parsed.name) else parsed
  return profiles


def _user_task(prepared: Prepared, items: Sequence[Profile | None], form: str) -> UserTask:
  train = prepared.train
  return UserTask(
    batches=batches_of_users(
      train,
      feedback=prepared.feedback,
      described=np.array([item is not None for item in items], bool),
    ),
    items=items,
    titles=[str(fields.get("title") or "") for fields in prepared.item_fields],
    built=users.build_user_profiles(
      train, items, feedback=prepared.feedback, noun=prepared.item_noun
    ),
    names=Names(prepared.item_fields, terms=common_terms(items)),
    noun=prepared.item_noun,
    form=form,
  )
