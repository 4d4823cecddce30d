"""The table of suite `lm`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from launch.cli.grid import Table, amount

HEADER = ("", "unit", "ours", "transformers", "× as fast", "share of the device's peak")
Json = dict[str, Any]


def table(results: Json) -> Table:
  """The table of `run_lm`'s results."""
  settings, scored = results["settings"], results["continuations"]
  rows = []
  for entry in results["generation"]:
    for part, share in (("prefill", "prefill_flops_share"), ("decode", "decode_bandwidth_share")):
      name = f"{part}_tokens_per_second"
      peer = entry["peer"] and entry["peer"][name]
      of = "FLOP/s" if part == "prefill" else "bandwidth"
      rows.append(
        (
          f"{part}, batch {entry['batch']}",
          "tokens/s",
          _cell(entry["ours"][name]),
          _cell(peer),
          _ratio(entry["ours"][name]["median"], peer and peer["median"]),
          f"{entry[share]:.0%} of {of}",
        )
      )
  peer = scored["peer"] and scored["peer"]["seconds"]
  for name, key in (("shared prefix", "shared"), ("separate forwards", "separate")):
    ours = scored[f"ours_{key}_seconds"]
    rows.append(
      (
        f"{scored['continuations']} continuations, {name}",
        "s",
        _cell(ours),
        _cell(peer),
        _ratio(peer and peer["median"], ours["median"]),
        "",
      )
    )
  cold, cached = results["compile"]["cold"]["batches"], results["compile"]["cached"]["batches"]
  for batch in settings["batch_sizes"]:
    for name, values in (("first start", cold), ("second start", cached)):
      seconds = amount(values[str(batch)]["compile_seconds"])
      rows.append((f"compiling, batch {batch}, {name}", "s", seconds, "–", "–", ""))
  machine = results["machine"]
  title = (
    f"{results['model']['name']} · {results['model']['parameters'] / 1e6:.3g} M parameters · "
    f"{results['model']['dtype']} · {machine['device']}"
  )
  notes = [
    f"prompts of {settings['prompt_tokens']} tokens, {settings['max_tokens']} new ones; median of "
    f"{settings['repeats']} runs (minimum–maximum), alternating with the peer",
    f"peak: {machine['bandwidth'] / 1e9:.4g} GB/s {machine['bandwidth_source']}, "
    f"{machine['flops'] / 1e12:.3g} TFLOP/s {machine['flops_source']}",
    "log-likelihoods, shared and separate: largest difference "
    f"{scored['shared_against_separate_max_difference']:.2g}",
    *_peer_notes(results),
  ]
  return Table(title, HEADER, rows, notes)


def _peer_notes(results: Json) -> list[str]:
  peer, scored = results["peer"], results["continuations"]
  if peer is None:
    return ["no peer: --peer_python names a Python that has torch and transformers"]
  most = results["settings"]["max_tokens"]
  ways = "; ".join(
    f"batch {one['batch']}: prefill by {one['peer']['prefill_by']}, decode by "
    f"{one['peer']['decode_by']}"
    for one in results["generation"]
  )
  agree = ", ".join(
    f"{one['greedy_tokens_agree']} of {most} (batch {one['batch']})"
    for one in results["generation"]
  )
  return [
    f"transformers {peer['transformers']}, torch {peer['torch']}, {peer['threads']} threads, "
    f"{peer['device']}, attention sdpa; the faster of its variants counts ({ways}; continuations: "
    f"{scored['peer']['by']})",
    f"leading greedy tokens that agree: {agree}",
    "log-likelihoods, ours and the peer's: largest difference "
    f"{scored['ours_against_peer_max_difference']:.2g}",
  ]


def _cell(figure: Mapping[str, float] | None) -> str:
  if figure is None:
    return "–"
  return f"{amount(figure['median'])} ({amount(figure['min'])}–{amount(figure['max'])})"


def _ratio(left: float | None, right: float | None) -> str:
  return "–" if left is None or right is None else f"{left / right:.2f}"
