"""Profiles and their vectors as stages of a run, and the texts of new users and items."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gatrec_jax import runs
from gatrec_jax.config.schema import DataConfig, TextConfig
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.data.prepared import Prepared
from gatrec_jax.errors import InputError
from gatrec_jax.profiles import builder, users
from gatrec_jax.profiles import provided as given
from gatrec_jax.profiles.embed import TextEncoder, embed_texts, lexical_text_encoder, open_encoder
from gatrec_jax.profiles.lexical import fit_lexical, load_lexical, save_lexical
from gatrec_jax.profiles.schema import Profile, parse_profile
from gatrec_jax.runs.log import SILENT, Log
from gatrec_jax.stages.text_coverage import any_text, require_texts

if TYPE_CHECKING:
  from gatrec_jax.lm.folders.source import EncoderSource

_FORMAT = 3  # raised when a stage's files change their form, so that old ones are made again


@dataclasses.dataclass(frozen=True)
class Texts:
  """Text vectors of all nodes.

  Attributes:
    vectors: [U + I, D] float32, users first; 0 for a node without text.
    num_users: U.
    digest: hash of the vectors' origin.
    is_text: False where the model reads no text and D is 1.
    facts: encoder, where it was found, counts; as kept in the manifest.
  """

  vectors: np.ndarray
  num_users: int
  digest: str
  is_text: bool
  facts: Mapping[str, Any]

  @property
  def item_vectors(self) -> np.ndarray:
    """[I, D] float32."""
    return self.vectors[self.num_users :]


def build_profiles(
  text: TextConfig, workdir: pathlib.Path, prepared: Prepared, *, data: DataConfig, log: Log
) -> str:
  """Writes profiles/items.jsonl and users.jsonl: given ones where there are any, else built ones.

  Items are described by their metadata, users by their training rows alone. Where no item has any
  text, a line says so.

  Args: data: says whether given user profiles are known to hold held-out ratings.
  Returns:
    The hash of what the profiles were made from.
  Raises:
    InputError: unreadable profile files, user profiles known to hold held-out ratings, or more
      missing texts than `max_missing_share`.
  """
  data_content = prepared.facts["content"]
  inputs = runs.digest(
    _FORMAT,
    data_content,
    runs.file_digest(text.item_profiles),
    runs.file_digest(text.user_profiles),
    text.profile_style,
  )
  runs.require_same_origin(workdir, "profiles", inputs)
  folder = workdir / "profiles"

  def make() -> Mapping[str, Any]:
    train = prepared.train
    facts: dict[str, Any] = {}
    item_texts, user_texts = {}, {}
    if text.item_profiles:
      item_texts = _read(text.item_profiles, "item_id", train.item_ids, facts)
    if text.user_profiles:
      user_texts = _read(text.user_profiles, "user_id", train.user_ids, facts)
      warning = given.check_user_profiles_leak(
        user_texts.values(),
        path=text.user_profiles,
        dataset=data.dataset,
        fold=data.fold or None,
        trains_on_all_training=data.valid_share == 0,
        data_content=data_content,
      )
      if warning:
        log.info(f"warning: {warning}")
        facts["warning"] = warning
    profiles = _item_profiles(prepared, item_texts)
    built_items = builder.item_texts(profiles, style=text.profile_style, noun=prepared.item_noun)
    built_users = builder.user_texts(
      _user_profiles(prepared, train, profiles), style=text.profile_style
    )
    for kind, ids, own, built in (
      ("item", train.item_ids, item_texts, built_items),
      ("user", train.user_ids, user_texts, built_users),
    ):
      rows = [(own.get(n) or built[n], "given" if own.get(n) else "built") for n in range(len(ids))]
      _write(folder / f"{kind}s.jsonl", kind, ids, rows)
      facts[f"{kind}s given"] = sum(1 for body, source in rows if body and source == "given")
      facts[f"{kind}s built"] = sum(1 for body, source in rows if body and source == "built")
      facts[f"{kind}s without text"] = sum(1 for body, _ in rows if not body)
    return facts

  facts = runs.stage(
    folder,
    name="profiles",
    inputs=inputs,
    make=make,
    log=log,
    outputs=("items.jsonl", "users.jsonl"),
  )
  log.info("profiles: " + ", ".join(f"{k} {v}" for k, v in facts.items() if k != "warning"))
  if not any_text(facts):
    log.info(
      "profiles: no item has any text: the GAT's features are ids; give `item_metadata` or "
      "`item_profiles` for texts"
    )
  else:
    require_texts(text, prepared, facts)
  return inputs


def embed_run(
  text: TextConfig, workdir: pathlib.Path, prepared: Prepared, *, data: DataConfig, log: Log
) -> Texts:
  """Turns profiles into vectors, or reads those of the run folder if nothing changed.

  Where there is no text at all, no encoder is opened, and the result has `is_text` False.

  Raises:
    InputError: as `build_profiles`, or the encoder is not available.
  """
  from gatrec_jax.lm.folders.source import resolve_encoder

  origin = build_profiles(text, workdir, prepared, data=data, log=log)
  if not any_text(runs.facts_of_stage(workdir / "profiles")["facts"]):
    return _without_text(workdir, prepared, inputs=runs.digest(_FORMAT, origin, "none"))
  bodies = {kind: read_texts(workdir, kind) for kind in ("users", "items")}
  source = resolve_encoder(text.encoder)
  log.info(f"embed: {source.name} ({source.where})")
  folder = workdir / "embeddings"
  inputs = runs.digest(
    _FORMAT,
    origin,
    runs.file_digest(workdir / "profiles" / "items.jsonl"),
    runs.file_digest(workdir / "profiles" / "users.jsonl"),
    source.content_hash,
    text.encoder_max_tokens,
    text.encoder_dtype,
    *filter(None, [text.encoder_prompt]),
  )

  runs.require_same_origin(workdir, "text vectors", inputs)
  lines = []

  def make() -> Mapping[str, Any]:
    if source.kind == "lexical":
      # Fitted on item texts alone, so that no rating shapes it.
      lexical = fit_lexical([body for body in bodies["items"] if body])
      save_lexical(lexical, folder / "lexical")
      encoder = lexical_text_encoder(lexical, where=source.where)
    else:
      encoder = open_configured(text, source)
    vectors, report = embed_texts(
      bodies["users"] + bodies["items"], encoder, cache_dir=runs.cache_dir() / "embeddings", log=log
    )
    lines.append(
      f"embed: {report.encoded} texts encoded, {report.texts - report.encoded - report.missing} "
      f"repeated or from the cache, {report.texts_per_second:.1f} texts/s, "
      f"{report.truncated_share:.1%} truncated at {text.encoder_max_tokens} tokens"
    )
    num_users = len(bodies["users"])
    for kind, part in (("users", vectors[:num_users]), ("items", vectors[num_users:])):
      with runs.atomic_path(folder / f"{kind}.npy") as path, open(path, "wb") as out:
        np.save(out, part, allow_pickle=False)
    return {
      "dimension": vectors.shape[1],
      "kind": source.kind,
      "content_hash": encoder.content_hash,
      "truncated_share": report.truncated_share,
      "texts_per_second": report.texts_per_second,
      **dataclasses.asdict(report),
    }

  outputs = ("users.npy", "items.npy", *(["lexical"] if source.kind == "lexical" else []))
  runs.stage(folder, name="embeddings", inputs=inputs, make=make, log=log, outputs=outputs)
  for line in lines:
    log.info(line)
  return load_texts(workdir)


def _without_text(workdir: pathlib.Path, prepared: Prepared, *, inputs: str) -> Texts:
  """Records in embeddings/manifest.json that nothing was embedded."""
  runs.require_same_origin(workdir, "text vectors", inputs)
  ids = prepared.interactions
  facts = {"kind": "none", "encoder": "none", "users": ids.num_users, "items": ids.num_items}
  runs.stage(
    workdir / "embeddings",
    name="embeddings",
    inputs=inputs,
    make=lambda: facts,
    log=SILENT,
    outputs=(),
  )
  return load_texts(workdir)


def load_texts(workdir: pathlib.Path) -> Texts:
  """Reads what `embed_run` wrote. Raises InputError where it is missing or damaged."""
  folder = workdir / "embeddings"
  manifest = runs.facts_of_stage(folder)
  facts = manifest["facts"]
  if facts["kind"] == "none":
    nodes = facts["users"] + facts["items"]
    return Texts(np.zeros((nodes, 1), np.float32), facts["users"], manifest["inputs"], False, facts)
  try:
    parts = [np.load(folder / f"{k}.npy", allow_pickle=False) for k in ("users", "items")]
  except (OSError, ValueError) as error:
    raise InputError(f"{folder}: damaged ({error}); delete that folder and run again") from None
  return Texts(np.concatenate(parts), len(parts[0]), manifest["inputs"], True, facts)


TextsOfNewUsers = Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], np.ndarray]
"""(liked, disliked), B arrays of item indices each -> [B, D] float32 vectors of the texts built
from them; 0 where none can be. Raises InputError if the encoder of the run's texts is missing."""


def texts_of_new_users(
  workdir: pathlib.Path, text: TextConfig, prepared: Prepared, texts: Texts
) -> TextsOfNewUsers:
  """A function that describes new users. It holds the terms of the catalog and the encoder.

  The encoder is opened when the first text is to be encoded.
  """
  if not texts.is_text:
    return lambda liked, disliked: np.zeros((len(liked), texts.vectors.shape[1]), np.float32)
  given_items = {i: body for i, body in enumerate(read_texts(workdir, "items")) if body}
  profiles = _item_profiles(prepared, given_items)
  vocabulary = users.taste_vocabulary(prepared.train, profiles, noun=prepared.item_noun)
  encoder = functools.cache(lambda: _encoder_of(workdir, text, texts))

  def describe(liked: Sequence[np.ndarray], disliked: Sequence[np.ndarray]) -> np.ndarray:
    bodies = builder.user_texts(
      [
        users.user_profile_from_items(good, bad, vocabulary=vocabulary)
        for good, bad in zip(liked, disliked, strict=True)
      ],
      style=text.profile_style,
    )
    vectors = np.zeros((len(bodies), texts.vectors.shape[1]), np.float32)
    there = [row for row, body in enumerate(bodies) if body]
    if there:
      # Without the cache of `embed_texts`: few users have the same text.
      vectors[there], _ = encoder().encode([bodies[row] for row in there])
    return vectors

  return describe


def _encoder_of(workdir: pathlib.Path, text: TextConfig, texts: Texts) -> TextEncoder:
  """The encoder of the run's texts. Raises InputError where it is not available."""
  if texts.facts["kind"] == "lexical":
    folder = workdir / "embeddings" / "lexical"
    encoder = lexical_text_encoder(load_lexical(folder), where=str(folder))
  else:
    from gatrec_jax.lm.folders.source import resolve_encoder

    encoder = open_configured(text, resolve_encoder(text.encoder))
  if encoder.content_hash != texts.facts["content_hash"]:
    raise InputError(
      f"is now {encoder.name} ({encoder.where}), but the run's texts were encoded by "
      f"{texts.facts['encoder']} ({texts.facts['where']}); make that available",
      field="encoder",
      value=text.encoder,
    )
  return encoder


def texts_of_new_items(
  workdir: pathlib.Path,
  text: TextConfig,
  texts: Texts,
  *,
  known: Sequence[Mapping[str, Any]],
  new: Sequence[Mapping[str, Any]],
  noun: str,
) -> np.ndarray:
  """[n, D] float32 vectors of the texts built for new items; 0 where none can be.

  Args: known, new: fields of the catalog's items and of the new ones. noun: as in `Prepared`.
  Raises: InputError where the encoder of the run's texts is not available.
  """
  if not texts.is_text:
    return np.zeros((len(new), texts.vectors.shape[1]), np.float32)
  profiles = builder.build_item_profiles([*known, *new], noun=noun)[len(known) :]
  bodies = builder.item_texts(profiles, style=text.profile_style, noun=noun)
  if not any(bodies):
    return np.zeros((len(new), texts.vectors.shape[1]), np.float32)
  encoder = _encoder_of(workdir, text, texts)
  return embed_texts(bodies, encoder, cache_dir=runs.cache_dir() / "embeddings", log=SILENT)[0]


def open_configured(text: TextConfig, source: EncoderSource) -> TextEncoder:
  """The encoder of a source that is not lexical, as configured."""
  return open_encoder(
    source, max_tokens=text.encoder_max_tokens, dtype=text.encoder_dtype, prompt=text.encoder_prompt
  )


def _item_profiles(prepared: Prepared, texts: Mapping[int, str]) -> list[Profile | None]:
  """Profiles with genres or tags: parsed from given texts, else built."""
  profiles = builder.build_item_profiles(prepared.item_fields, noun=prepared.item_noun)
  for item, text in texts.items():
    parsed = parse_profile(text)
    if parsed.genres or parsed.tags:
      profiles[item] = parsed
  return profiles


def _user_profiles(
  prepared: Prepared, train: Interactions, profiles: Sequence[Profile | None]
) -> list[Profile | None]:
  return users.build_user_profiles(
    train, profiles, feedback=prepared.feedback, noun=prepared.item_noun
  )


def _read(path: str, field: str, ids: Sequence[str], facts: dict[str, Any]) -> dict[int, str]:
  found = given.read_profiles(path, id_field=field, ids=ids)
  if found.unknown:
    facts[f"unknown {field} in {pathlib.Path(path).name}"] = found.unknown
  return dict(found.texts)


def _write(
  path: pathlib.Path, kind: str, ids: Sequence[str], rows: Sequence[tuple[str | None, str]]
) -> None:
  with runs.atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as out:
    for raw, (body, source) in zip(ids, rows, strict=True):
      line = {f"{kind}_id": raw, "profile": body or "", "source": source if body else "none"}
      out.write(json.dumps(line, ensure_ascii=False) + "\n")


def read_texts(workdir: pathlib.Path, kind: str, *, given_alone: bool = False) -> list[str | None]:
  """The texts of profiles/KIND.jsonl in catalog order, None where there is none.

  Args: given_alone: leave out the built ones.
  """
  path = workdir / "profiles" / f"{kind}.jsonl"
  runs.facts_of_stage(path.parent, path.name)
  try:
    lines = path.read_text("utf-8").rstrip("\n").split("\n")
  except OSError as error:
    raise InputError(f"{path}: cannot be read ({error.strerror}); run again to rebuild") from None
  rows = [json.loads(line) for line in lines]
  return [
    None if given_alone and row["source"] == "built" else row["profile"] or None for row in rows
  ]


def no_texts(prepared: Prepared) -> Texts:
  """What a model gets that reads no text."""
  nodes = prepared.interactions.num_users + prepared.interactions.num_items
  return Texts(np.zeros((nodes, 1), np.float32), prepared.interactions.num_users, "none", False, {})
