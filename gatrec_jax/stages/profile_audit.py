"""Audits the written item profiles of a run beside built and given ones of the same items."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gatrec_jax import runs
from gatrec_jax.config.schema import Config
from gatrec_jax.data.prepared import Prepared
from gatrec_jax.errors import InputError
from gatrec_jax.evaluate.evaluation import bootstrap_intervals
from gatrec_jax.evaluate.significance import paired_difference
from gatrec_jax.lm.folders.encoder_source import resolve_encoder
from gatrec_jax.profiles import builder
from gatrec_jax.profiles import provided as given
from gatrec_jax.profiles.audit import liked_auc, text_figures
from gatrec_jax.profiles.embed import TextEncoder, lexical_text_encoder
from gatrec_jax.profiles.lexical import fit_lexical
from gatrec_jax.profiles.quality import people_of
from gatrec_jax.profiles.schema import render_profile
from gatrec_jax.profiles.writer.domains import domain_of
from gatrec_jax.stages.texts import open_configured

_RESAMPLES = 2000


def audit_profiles(
  config: Config,
  workdir: pathlib.Path,
  prepared: Prepared,
  written: Mapping[int, str],
  *,
  count: int,
  seed: int,
) -> dict[str, Any]:
  """Measures written profiles, and the built and given ones of the same items.

  Items are drawn among those that a model wrote. Liked pairs come from all ratings of the data: no
  profile of an item is made from ratings, and nothing is chosen here. The figures are kept in
  WORKDIR/written/audit.json.

  Args:
    config: its `item_profiles` are the given ones. workdir: of the run.
    written: texts by item, of the model alone. count: of items, at most. seed: of their draw.
  Returns: counts, and by kind (`written`, `built`, `given`) the figures and the AUC with its
    interval, and its difference from the written profiles' (paired over users).
  Raises: InputError for no written profiles, or an encoder that is not available.
  """
  if not written:
    raise InputError("no profile of an item was written by the model; there is nothing to measure")
  drawn = np.random.default_rng(seed).permutation(sorted(written))[:count]
  items = sorted(drawn.tolist())
  kinds = {"written": [written[item] for item in items], **_others(config, prepared, items)}
  fields = [prepared.item_fields[item] for item in items]
  people = people_of(prepared.item_fields)
  judgment = domain_of(prepared.item_noun).judgment(prepared.item_noun)
  histories = _histories(prepared, items)
  values, figures = {}, {}
  for kind, texts in kinds.items():
    there = [place for place, text in enumerate(texts) if text]
    own = text_figures(
      [texts[place] for place in there],
      [fields[place] for place in there],
      people=people,
      judgment=judgment,
    )
    encoder = _encoder(config, texts)
    values[kind] = liked_auc(encoder.encode(texts)[0], *histories)
    figures[kind] = {"profiles": own.profiles, **own.shares(), **_auc(values[kind], seed)}
  for kind in kinds:
    if kind != "written":
      difference = paired_difference(
        values["written"], values[kind], num_resamples=_RESAMPLES, seed=seed
      )
      figures[kind]["written against it"] = dataclasses.asdict(difference)
  facts = {
    "items": len(items),
    "written by the model": len(written),
    "users": int(np.isfinite(values["written"]).sum()),
    "encoder": encoder.name,
    "seed": seed,
    "kinds": figures,
  }
  runs.write_json(workdir / "written" / "audit.json", facts)
  return facts


def _others(config: Config, prepared: Prepared, items: Sequence[int]) -> dict[str, list[str]]:
  built = builder.build_item_profiles(prepared.item_fields, noun=prepared.item_noun)
  found = {"built": [render_profile(built[item]) if built[item] else "" for item in items]}
  if config.text.item_profiles:
    texts = given.read_profiles(
      config.text.item_profiles, id_field="item_id", ids=prepared.train.item_ids
    ).texts
    if any(item in texts for item in items):
      found["given"] = [texts.get(item, "") for item in items]
  return found


def _histories(
  prepared: Prepared, items: Sequence[int]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
  """[U] places in `items` that each user liked, and that they rated."""
  ids = prepared.interactions
  place = np.full(ids.num_items, -1)
  place[list(items)] = np.arange(len(items))
  found = []
  for chosen in (prepared.feedback.liked(ids.rating), np.ones(len(ids.rating), bool)):
    rows = np.flatnonzero(chosen & (place[ids.item] >= 0))
    rows = rows[np.argsort(ids.user[rows], kind="stable")]
    ends = np.searchsorted(ids.user[rows], np.arange(ids.num_users + 1))
    places = place[ids.item[rows]]
    found.append([np.unique(places[a:b]) for a, b in zip(ends[:-1], ends[1:], strict=True)])
  return found[0], found[1]


def _encoder(config: Config, texts: Sequence[str]) -> TextEncoder:
  """The run's encoder; the lexical one is fitted on these texts, as in a run that is given them."""
  source = resolve_encoder(config.text.encoder)
  if source.kind == "lexical":
    return lexical_text_encoder(fit_lexical([text for text in texts if text]), where=source.where)
  return open_configured(config.text, source)


def _auc(values: np.ndarray, seed: int) -> dict[str, Any]:
  low, high = bootstrap_intervals(values[:, None], num_resamples=_RESAMPLES, seed=seed)
  counted = np.isfinite(values)
  if not counted.any():
    return {"auc": None, "auc interval": None}
  return {"auc": float(values[counted].mean()), "auc interval": [float(low[0]), float(high[0])]}
