"""Suite `embed`: sentence vectors of the published item profiles."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gatrec_jax.errors import InputError
from gatrec_jax.lm.encoder.encode import encode
from gatrec_jax.lm.encoder.load import load_encoder
from gatrec_jax.lm.folders.encoder_source import resolve_encoder
from gatrec_jax.runs.log import Log
from launch.benchmarks.hardware import device_rates
from launch.benchmarks.measure import Counts, Figure, Json, peer_device, peer_process, suite_results

MAX_TOKENS = 256


def run_embed(flags: Mapping[str, Any], *, log: Log) -> Json:
  """Encodes all profiles, tokenization included, alternating with the peer."""
  found = resolve_encoder("minilm")
  texts = _profiles(flags["data_dir"] or "")
  rates = device_rates("float32")
  with peer_process(flags, "torch_encoder.py") as peer:
    about = peer.ask("hello") if peer else None
    model = load_encoder(found.folder)
    if peer:
      peer.ask("load", folder=str(found.folder), device=peer_device(about), dtype="float32")
    begun = time.perf_counter()
    vectors, first = encode(model, texts, max_tokens=MAX_TOKENS)
    compiling = time.perf_counter() - begun
    ours: list[float] = []
    theirs: list[Json] = []
    for repeat in range(flags["repeats"]):
      log.info(f"{len(texts)} profiles, run {repeat + 1}")
      ours.append(encode(model, texts, max_tokens=MAX_TOKENS)[1].seconds)
      if peer:
        time.sleep(0.5)
        theirs.append(peer.ask("encode", texts=texts, max_tokens=MAX_TOKENS, batch_size=32))
        time.sleep(0.5)
  config = model.config
  weights = config.layers * (4 * config.width**2 + 2 * config.width * config.inner)
  attention = 4 * config.layers * config.width * first.tokens**2 / len(texts)
  figure = Figure(
    f"{len(texts)} profiles, {first.tokens / len(texts):.0f} tokens on average",
    ours,
    max(compiling - min(ours), 0.0),
    Counts(4 * weights, 2 * weights * first.tokens + attention),
    peer_seconds=[_seconds(one) for one in theirs],
  )
  notes = [f"{len(texts) / min(ours):.1f} texts/s at best; float32; {found.where}"]
  if theirs:
    difference = max(abs(a - float(b)) for a, b in zip(theirs[0]["first"], vectors[0], strict=True))
    notes += [
      f"peer: {len(texts) / min(figure.peer_seconds):.1f} texts/s at best",
      f"largest difference from the peer's first vector: {difference:.1g}",
    ]
  return suite_results(
    "sentence vectors, MiniLM",
    [figure],
    rates=rates,
    repeats=flags["repeats"],
    notes=notes,
    peer=about,
  )


def _seconds(answer: Json) -> float:
  seconds = answer["seconds"]
  return min(seconds) if isinstance(seconds, list) else seconds


def _profiles(data_dir: str) -> list[str]:
  path = Path(data_dir) / "published" / "profiles_ml100k_items.jsonl"
  try:
    with path.open(encoding="utf-8") as file:
      return [json.loads(line)["profile"] for line in file]
  except FileNotFoundError:
    raise InputError(
      f"{path} does not exist; suite embed needs the published profiles, and `data_dir` names the "
      "folder that contains published/"
    ) from None
