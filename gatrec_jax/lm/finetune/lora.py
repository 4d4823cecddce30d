"""Low-rank adapters (Hu et al. 2021): initialization, merging, and files in the format of PEFT."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax import runs
from gatrec_jax.errors import InputError
from gatrec_jax.lm.decoder.config import DecoderConfig
from gatrec_jax.lm.decoder.model import Lora
from gatrec_jax.lm.decoder.packed import Packed
from gatrec_jax.lm.decoder.weights import weight_rules
from gatrec_jax.lm.folders.fields import flag, real, require_object, shown, whole
from gatrec_jax.lm.folders.source import read_json
from gatrec_jax.lm.folders.weights import readable_weights, some
from gatrec_jax.runs.paths import user_path
from gatrec_jax.sharding.placement import to_device

TARGETS = ("q", "k", "v", "o", "gate", "up", "down")
ADAPTER_FILES = CONFIG_NAME, WEIGHTS_NAME = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
# PEFT settings that would change the meaning of the two matrices, with the only supported values.
_PLAIN = {
  "use_dora": (False, None),
  "bias": ("none", None),
  "rank_pattern": ({}, None),
  "alpha_pattern": ({}, None),
  "modules_to_save": (None, []),
  "fan_in_fan_out": (False, None),
}


def init_lora(
  key: jax.Array,
  config: DecoderConfig,
  *,
  targets: Sequence[str] = ("q", "v"),
  rank: int = 8,
  alpha: float = 32.0,
  dropout: float = 0.0,
) -> Lora:
  """Initializes adapters that do not change the model: b is 0, a is uniform in ±1/√in as in PEFT.

  Args:
    key: is consumed.
    config: of the decoder.
    targets: projections to adapt in every layer, from `TARGETS`.
    rank: of the matrices, at least 1.
    alpha: the adapters' outputs are multiplied by alpha / rank.
    dropout: share of the adapters' inputs that is dropped during training, in [0, 1).
  Returns:
    Adapters with float32 arrays.
  Raises:
    InputError: an unknown target, or a value out of range.
  """
  unknown = [target for target in targets if target not in TARGETS]
  if unknown or not targets:
    raise InputError(
      f"{unknown[0] if unknown else 'none'} is not one of {', '.join(TARGETS)}",
      field="lora_targets",
      value=",".join(targets),
    )
  if rank < 1 or not 0 <= dropout < 1 or alpha <= 0:
    raise InputError(
      f"lora_rank={rank} lora_alpha={alpha} lora_dropout={dropout}: the rank must be at least 1, "
      "alpha above 0 and dropout in [0, 1)"
    )
  tree: dict[str, Any] = {}
  for index, (path, _, shape) in enumerate(_projections(config)):
    if path[-1] in targets:
      size_out, size_in = shape
      bound = size_in**-0.5
      a = jax.random.uniform(
        jax.random.fold_in(key, index), (rank, size_in), minval=-bound, maxval=bound
      )
      _put(tree, path, {"a": a, "b": jnp.zeros((size_out, rank))})
  return Lora(params=tree, scale=alpha / rank, dropout=dropout)


def merge_lora(params: dict[str, Any], lora: Lora) -> dict[str, Any]:
  """Adds adapters to the kernels of a decoder: W + scale · b a, in W's dtype.

  Args:
    params: of the decoder; not modified.
    lora: adapters for this decoder.
  Returns:
    New parameters, which share all leaves without adapters with `params`.
  Raises:
    InputError: a kernel is quantized, missing, or of another shape.
  """

  def merged(node: dict[str, Any], adapter: dict[str, Any], path: str) -> dict[str, Any]:
    if "a" not in adapter:
      missing = [name for name in adapter if name not in node]
      if missing:
        raise InputError(f"{path}{missing[0]}: the adapters have it, but the model does not")
      return {**node, **{n: merged(node[n], adapter[n], f"{path}{n}/") for n in adapter}}
    if "kernel_int8" in node or isinstance(node.get("kernel"), Packed):
      name = "kernel_int8" if "kernel_int8" in node else "kernel"
      raise InputError(
        f"{path}{name}: adapters cannot be merged into quantized weights; load the model with "
        "`quantize=none`"
      )
    kernel, a, b = node["kernel"], adapter["a"], adapter["b"]
    if kernel.shape != (b.shape[0], a.shape[1]):
      raise InputError(
        f"{path}kernel is {list(kernel.shape)}, its adapter is for {[b.shape[0], a.shape[1]]}; "
        "they belong to different models"
      )
    product = jnp.matmul(
      b.astype(jnp.float32), a.astype(jnp.float32), precision=jax.lax.Precision.HIGHEST
    )
    total = kernel.astype(jnp.float32) + lora.scale * product
    return {**node, "kernel": total.astype(kernel.dtype)}

  return merged(params, lora.params, "")


def count_params(tree: Any) -> int:
  """Counts the elements of a tree of arrays, such as `lora.params` or a decoder's parameters."""
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def save_lora(lora: Lora, config: DecoderConfig, folder: str | Path, *, base: str = "") -> None:
  """Writes `adapter_config.json` and `adapter_model.safetensors`, each atomically.

  Args:
    lora: adapters, all of the same rank.
    config: of their decoder.
    folder: is created if it does not exist.
    base: folder or hub id of the decoder, recorded in the file.
  """
  from safetensors.numpy import save

  tensors, ranks, used = {}, set(), set()
  for path, name, _ in _projections(config):
    adapter = _get(lora.params, path)
    if adapter is not None:
      tensors[f"{_PREFIX}{name}.lora_A.weight"] = np.asarray(adapter["a"])
      tensors[f"{_PREFIX}{name}.lora_B.weight"] = np.asarray(adapter["b"])
      ranks.add(adapter["a"].shape[0])
      used.add(name.rsplit(".", 1)[1])
  if len(ranks) != 1:
    raise InputError(f"{folder}: all adapters must have the same rank, these have {sorted(ranks)}")
  rank = ranks.pop()
  folder = user_path(folder)
  with runs.atomic_path(folder / WEIGHTS_NAME) as temporary:
    temporary.write_bytes(save(tensors, metadata={"format": "pt"}))
  runs.write_json(
    folder / CONFIG_NAME,
    {
      "peft_type": "LORA",
      "task_type": "CAUSAL_LM",
      "base_model_name_or_path": base,
      "r": rank,
      "lora_alpha": lora.scale * rank,
      "lora_dropout": lora.dropout,
      "bias": "none",
      "target_modules": sorted(used),
      "fan_in_fan_out": False,
      "inference_mode": True,
      "init_lora_weights": True,
      "modules_to_save": None,
      "use_dora": False,
      "use_rslora": False,
    },
  )


def load_lora(folder: str | Path, config: DecoderConfig) -> Lora:
  """Loads adapters from a folder written by `save_lora` or PEFT.

  Args:
    folder: with `adapter_config.json` and `adapter_model.safetensors`.
    config: of the decoder to adapt.
  Returns:
    Adapters with float32 arrays.
  Raises:
    InputError: a file is missing or damaged, has unsupported settings, or does not match the
      decoder; every mismatched tensor is named.
  """
  from safetensors.numpy import load_file

  folder = user_path(folder)
  rank, scale, dropout = _read_settings(folder / CONFIG_NAME)
  path = folder / WEIGHTS_NAME
  if not path.is_file():
    raise InputError(f"{path}: not found; adapters need {CONFIG_NAME} and {WEIGHTS_NAME}")
  with readable_weights(path):
    tensors = load_file(path)
  # PEFT puts the name of the adapter into the key if a model has several.
  named = re.compile(r"\.(lora_[AB])\.\w+\.weight$")
  tensors = {named.sub(r".\1.weight", key): array for key, array in tensors.items()}
  tree: dict[str, Any] = {}
  problems, wanted = [], set()
  for parts, name, (size_out, size_in) in _projections(config):
    sides = {
      "a": (f"{_PREFIX}{name}.lora_A.weight", (rank, size_in)),
      "b": (f"{_PREFIX}{name}.lora_B.weight", (size_out, rank)),
    }
    wanted |= {key for key, _ in sides.values()}
    if not any(key in tensors for key, _ in sides.values()):
      continue
    for side, (key, shape) in sides.items():
      if key not in tensors:
        problems.append(f"missing {key} {list(shape)}")
      elif tensors[key].shape != shape:
        problems.append(f"{key} is {list(tensors[key].shape)}, expected {list(shape)}")
      elif not jnp.issubdtype(tensors[key].dtype, jnp.floating):
        problems.append(f"{key} is {tensors[key].dtype}, expected a float")
      elif not np.isfinite(tensors[key]).all():
        problems.append(f"{key} has values that are not finite")
      else:
        _put(tree, (*parts, side), to_device(np.asarray(tensors[key], np.float32)))
  problems += [f"unexpected {key}" for key in sorted(tensors) if key not in wanted]
  if problems or not tree:
    raise InputError(
      f"{path}: the adapters do not match this model, {len(problems)} tensors: "
      + some(problems, between="; ")
    )
  return Lora(params=tree, scale=scale, dropout=dropout)


def _read_settings(path: Path) -> tuple[int, float, float]:
  """Reads (rank, scale, dropout) from an adapter_config.json."""
  where = str(path)
  settings = require_object(read_json(path), where)
  if settings.get("peft_type") != "LORA":
    raise InputError(f"{path}: not a LoRA configuration (peft_type must be LORA)")
  for name, plain in _PLAIN.items():
    if settings.get(name) not in plain:
      raise InputError(
        f"{path}: {name}={shown(settings.get(name))} is not supported; it must be {plain[0]!r}"
      )
  try:
    rank, alpha = whole(settings, "r", where), real(settings, "lora_alpha", where)
  except KeyError as error:
    raise InputError(f"{path}: has no {error.args[0]}") from None
  dropout = real(settings, "lora_dropout", where, low=0.0) if settings.get("lora_dropout") else 0.0
  return rank, alpha / (rank**0.5 if flag(settings, "use_rslora", where) else rank), dropout


def _projections(config: DecoderConfig) -> Iterator[tuple[tuple[str, ...], str, tuple[int, int]]]:
  """Yields (path, name in the file without `.weight`, [out, in] shape) of adaptable kernels."""
  for rule in weight_rules(config):
    *path, leaf = rule.target.split("/")
    if leaf == "kernel" and path[-1] in TARGETS:
      name, (size_out, size_in) = rule.sources[0]
      yield tuple(path), name.removesuffix(".weight"), (size_out, size_in)


def _put(tree: dict[str, Any], path: Sequence[str], leaf: Any) -> None:
  for part in path[:-1]:
    tree = tree.setdefault(part, {})
  tree[path[-1]] = leaf


def _get(tree: dict[str, Any], path: Sequence[str]) -> dict[str, jax.Array] | None:
  for part in path:
    if part not in tree:
      return None
    tree = tree[part]
  return tree
