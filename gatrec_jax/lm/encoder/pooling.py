"""Pools token vectors into one vector per text, as configured in a sentence-transformers folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from gatrec_jax.errors import InputError
from gatrec_jax.lm.folders.fields import flag, require_object, shown, whole
from gatrec_jax.lm.folders.source import module_folders, read_json
from gatrec_jax.lm.folders.weights import Rule, load_params

# In the order in which sentence-transformers concatenates them if several are set.
MODES = {
  "pooling_mode_cls_token": "cls",
  "pooling_mode_max_tokens": "max",
  "pooling_mode_mean_tokens": "mean",
  "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
  "pooling_mode_weightedmean_tokens": "weightedmean",
  "pooling_mode_lasttoken": "lasttoken",
}
SUPPORTED = ("cls", "max", "mean", "lasttoken")
POOLINGS = {"mean": "mean", "last": "lasttoken"}
"""What the setting `encoder_pooling` may ask for, beside `auto`."""
DENSE_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
  "Identity": lambda x: x,
  "Tanh": jnp.tanh,
  "ReLU": jax.nn.relu,
  "GELU": lambda x: jax.nn.gelu(x, approximate=False),
}


@dataclasses.dataclass(frozen=True)
class Head:
  """The layers after the encoder.

  Attributes:
    modes: poolings, each one of `SUPPORTED`, concatenated along the features.
    steps: the steps after pooling, in order: `normalize`, or the activation of a dense layer.
  """

  modes: tuple[str, ...] = ("mean",)
  steps: tuple[str, ...] = ("normalize",)


@dataclasses.dataclass(frozen=True)
class Modules:
  """Contents of a sentence-transformers folder.

  Attributes:
    transformer: folder with config.json, weights and tokenizer.
    head: pooling and the layers after it.
    dense: parameters of the dense layers of `head.steps`, in order; kernel [in, out], bias [out].
    prompt: put before every text.
    lower_case: whether texts are lower-cased before tokenization.
  """

  transformer: Path
  head: Head
  dense: tuple[Mapping[str, jax.Array], ...]
  prompt: str
  lower_case: bool


def read_modules(folder: Path) -> Modules:
  """Reads `modules.json` and the modules that it lists.

  Without that file, the vector is the L2-normalized mean of the tokens.

  Raises: InputError that names the file and the module or pooling that is not supported.
  """
  path = folder / "modules.json"
  if not path.is_file():
    return Modules(transformer=folder, head=Head(), dense=(), prompt="", lower_case=False)
  parts = module_folders(folder)
  kinds = [kind for kind, _ in parts]
  if kinds[:2] != ["Transformer", "Pooling"]:
    raise InputError(f"{path}: modules {kinds} must begin with Transformer, Pooling")
  transformer = parts[0][1]
  modes, include_prompt = _pooling_modes(parts[1][1] / "config.json")
  steps, dense = [], []
  for kind, module in parts[2:]:
    if kind == "Normalize":
      steps.append("normalize")
    elif kind == "Dense":
      activation, params = _dense(module)
      steps.append(activation)
      dense.append(params)
    else:
      raise InputError(f"{path}: module {kind!r} is not one of Normalize, Dense")
  prompt = _prompt(folder / "config_sentence_transformers.json")
  if prompt and not include_prompt:
    raise InputError(f"{parts[1][1] / 'config.json'}: include_prompt false is not supported")
  lower = transformer / "sentence_bert_config.json"
  return Modules(
    transformer=transformer,
    head=Head(modes=modes, steps=tuple(steps)),
    dense=tuple(dense),
    prompt=prompt,
    lower_case=flag(_optional_json(lower), "do_lower_case", str(lower)),
  )


def pool(
  hidden: jax.Array, lengths: jax.Array, *, head: Head, dense: tuple[Mapping[str, jax.Array], ...]
) -> jax.Array:
  """Pools token vectors and applies the layers after pooling.

  Args:
    hidden: [B, T, D] float token vectors. lengths: [B] int32 tokens of each text, at least 1.
    head: poolings and steps. dense: parameters of its dense layers.
  Returns: [B, D'] float32.
  """
  hidden = hidden.astype(jnp.float32)
  seen = (jnp.arange(hidden.shape[1])[None, :] < lengths[:, None])[..., None]
  poolings = {
    "cls": lambda: hidden[:, 0],
    "max": lambda: jnp.where(seen, hidden, -jnp.inf).max(axis=1),
    "mean": lambda: jnp.where(seen, hidden, 0.0).sum(axis=1) / lengths[:, None],
    "lasttoken": lambda: jnp.take_along_axis(hidden, lengths[:, None, None] - 1, axis=1)[:, 0],
  }
  vectors = jnp.concatenate([poolings[mode]() for mode in head.modes], axis=-1)
  layers = iter(dense)
  for step in head.steps:
    if step == "normalize":
      norm = jnp.sqrt(jnp.square(vectors).sum(axis=-1, keepdims=True))
      vectors = vectors / jnp.maximum(norm, 1e-12)
    else:
      layer = next(layers)
      product = jnp.dot(vectors, layer["kernel"], precision=jax.lax.Precision.HIGHEST)
      vectors = DENSE_ACTIVATIONS[step](product + layer.get("bias", 0.0))
  return vectors


def _optional_json(path: Path) -> Mapping[str, Any]:
  return require_object(read_json(path), str(path)) if path.is_file() else {}


def _pooling_modes(path: Path) -> tuple[tuple[str, ...], bool]:
  """(modes, whether to pool the prompt's tokens too), from either form of the config."""
  fields = require_object(read_json(path), str(path))
  named = fields.get("pooling_mode")
  if named is not None:
    modes = tuple(named) if isinstance(named, list) else (named,)
  else:
    modes = tuple(mode for flag, mode in MODES.items() if fields.get(flag))
  wrong = [mode for mode in modes if mode not in SUPPORTED]
  if wrong or not modes:
    given = ", ".join(map(shown, wrong)) or "none"
    raise InputError(f"{path}: pooling {given} is not one of {', '.join(SUPPORTED)}")
  return modes, flag(fields, "include_prompt", str(path), default=True)


def _dense(folder: Path) -> tuple[str, Mapping[str, jax.Array]]:
  where = str(folder / "config.json")
  fields = require_object(read_json(folder / "config.json"), where)
  activation = str(fields.get("activation_function", "Tanh")).rsplit(".", 1)[-1].rstrip("()")
  if activation not in DENSE_ACTIVATIONS:
    raise InputError(
      f"{where}: activation_function {shown(activation)} is not one of "
      + ", ".join(DENSE_ACTIVATIONS)
    )
  if not {"in_features", "out_features"} <= fields.keys():
    raise InputError(f"{where}: needs in_features and out_features")
  size_in, size_out = (whole(fields, name, where) for name in ("in_features", "out_features"))
  rules = [Rule("kernel", (("linear.weight", (size_out, size_in)),), transpose=True)]
  if flag(fields, "bias", where, default=True):
    rules.append(Rule("bias", (("linear.bias", (size_out,)),)))
  return activation, load_params(folder, rules)


def _prompt(path: Path) -> str:
  """Returns the prompt that sentence-transformers puts before each text by default."""
  fields = _optional_json(path)
  name = fields.get("default_prompt_name")
  prompts = require_object(fields.get("prompts") or {}, f"{path}: prompts")
  prompt = prompts.get(name) if isinstance(name, str) else None
  return prompt if isinstance(prompt, str) else ""
