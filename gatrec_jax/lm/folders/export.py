"""Writes a decoder as an ordinary Hugging Face folder, which other tools can read."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import ml_dtypes  # noqa: F401  (registers bfloat16 with numpy, which safetensors needs)
import numpy as np

from gatrec_jax import runs
from gatrec_jax.errors import InputError
from gatrec_jax.lm.decoder.config import DecoderConfig, decoder_config
from gatrec_jax.lm.decoder.gguf import config_fields
from gatrec_jax.lm.decoder.model import compute_dtype
from gatrec_jax.lm.decoder.packed import Packed
from gatrec_jax.lm.decoder.weights import weight_rules
from gatrec_jax.lm.folders.gguf import is_gguf, read_gguf
from gatrec_jax.lm.folders.load import LanguageModel
from gatrec_jax.lm.folders.source import read_json
from gatrec_jax.runs.folder import writing
from gatrec_jax.runs.paths import user_path

MARK_NAME = "gatrec_export.json"  # marks a folder as an export, which may be replaced
DTYPES = ("float32", "bfloat16", "float16")
_COPIED = (
  "tokenizer*",
  "special_tokens_map.json",
  "added_tokens.json",
  "vocab.json",
  "vocab.txt",
  "merges.txt",
  "chat_template*",
  "generation_config.json",
)
_SPARE_BYTES = 64 << 20  # tokenizer and JSON files


def export_folder(
  model: LanguageModel,
  folder: str | Path,
  *,
  dtype: str | None = None,
  max_shard_bytes: int = 5_000_000_000,
) -> Path:
  """Writes config.json, generation_config.json, tokenizer and weights, atomically.

  The config.json of the model's source folder is kept except for its dtype. Weights larger than
  `max_shard_bytes` are split into several files with an index.

  Args:
    model: a model with plain (not int8) weights.
    folder: where to write; if it exists, it must be empty or an earlier export, which is replaced.
    dtype: of the written weights, one of `DTYPES`; None keeps that of the parameters.
    max_shard_bytes: most bytes of tensors per file; a larger tensor gets a file of its own.
  Returns:
    The folder.
  Raises:
    InputError: the folder contains something else, the weights are int8, the disk is full, or a
      model without a source folder has settings that a llama config.json cannot express.
  """
  folder = user_path(folder)
  if dtype not in (None, *DTYPES):
    raise InputError(f"dtype={dtype}: must be one of {', '.join(DTYPES)}")
  tensors = _named_leaves(model)
  fields = _config_fields(model, dtype or str(compute_dtype(model.params)))
  with _replaced(folder, needed=_total_bytes(tensors, dtype) + _SPARE_BYTES) as target:
    runs.write_json(target / "config.json", fields)
    _write_tokenizer(model, target)
    _write_weights(tensors, target, dtype=dtype, max_shard_bytes=max_shard_bytes)
    runs.write_json(target / MARK_NAME, {"made_by": "gatrec_jax", "model": model.name})
  return folder


def require_writable(folder: Path) -> None:
  """Raises InputError if `folder` contains anything but an earlier export."""
  if folder.exists() and not folder.is_dir():
    raise InputError(f"{folder}: is a file; give a folder to export to")
  if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK_NAME).is_file():
    raise InputError(f"{folder}: not empty and not an earlier export; give another folder")


def llama_fields(config: DecoderConfig) -> dict[str, Any]:
  """Returns the fields of config.json for a decoder with the llama layout.

  Raises: InputError if such a file cannot express the configuration.
  """
  theta = config.layers[0].rope.theta if config.layers and config.layers[0].rope else 0.0
  fields = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": config.vocabulary,
    "hidden_size": config.width,
    "intermediate_size": config.inner,
    "num_hidden_layers": len(config.layers),
    "num_attention_heads": config.heads,
    "num_key_value_heads": config.kv_heads,
    "head_dim": config.head_size,
    "max_position_embeddings": config.context,
    "rms_norm_eps": config.epsilon,
    "hidden_act": config.activation,
    "rope_theta": theta,
    "rope_parameters": {"rope_type": "default", "rope_theta": theta},
    "tie_word_embeddings": config.tied,
    "attention_bias": config.qkv_bias,
    "mlp_bias": config.mlp_bias,
    "bos_token_id": config.bos,
    "eos_token_id": _one_or_more(config),
    "pad_token_id": config.pad,
  }
  if decoder_config(fields) != config:
    raise InputError(
      f"a {config.family} model without a source folder cannot be exported, only a plain llama "
      "layout can; load the model from its Hugging Face folder"
    )
  return fields


def _config_fields(model: LanguageModel, dtype: str) -> dict[str, Any]:
  if model.folder is None:
    return llama_fields(model.config) | {"dtype": dtype}
  if is_gguf(model.folder):
    return config_fields(read_gguf(model.folder)) | {"dtype": dtype}
  fields = dict(read_json(model.folder / "config.json"))
  if isinstance(fields.get("text_config"), dict):  # Only the text model was loaded.
    tokens = ("bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings")
    outer = {name: fields[name] for name in tokens if name in fields}
    fields = fields["text_config"] | outer
    fields |= {"model_type": "gemma3_text", "architectures": ["Gemma3ForCausalLM"]}
  fields.pop("quantization_config", None)
  fields["tie_word_embeddings"] = model.config.tied
  return fields | {"torch_dtype" if "torch_dtype" in fields else "dtype": dtype}


def _write_tokenizer(model: LanguageModel, target: Path) -> None:
  """Copies the source folder's tokenizer files, or writes them for a model without one."""
  if model.folder is not None and model.folder.is_dir():
    for path in sorted({path for pattern in _COPIED for path in model.folder.glob(pattern)}):
      if path.is_file():
        shutil.copyfile(path, target / path.name)
    return
  ids = {"bos_token_id": model.config.bos, "eos_token_id": _one_or_more(model.config)}
  runs.write_json(target / "generation_config.json", ids | {"pad_token_id": model.config.pad})
  if model.tokenizer is not None:
    model.tokenizer.save_pretrained(target)


def _one_or_more(config: DecoderConfig) -> int | list[int] | None:
  return list(config.eos) if len(config.eos) > 1 else next(iter(config.eos), None)


def _named_leaves(model: LanguageModel) -> dict[str, Any]:
  """Name in the file -> parameter: inverts the name table."""
  tensors = {}
  for rule in weight_rules(model.config):
    node = model.params
    *parents, leaf = rule.target.split("/")
    for part in parents:
      node = node[part]
    if isinstance(node.get(leaf), Packed | None):
      raise InputError(
        f"{model.name}: its weights are {'packed' if leaf in node else 'int8'}; load it with "
        "`quantize=none` to export it"
      )
    ((name, _),) = rule.sources
    tensors[name] = node[leaf]
  return tensors


def _bytes_of(leaf: Any, dtype: str | None) -> int:
  return leaf.size * jnp.dtype(dtype or leaf.dtype).itemsize


def _total_bytes(tensors: dict[str, Any], dtype: str | None) -> int:
  return sum(_bytes_of(leaf, dtype) for leaf in tensors.values())


def _write_weights(
  tensors: dict[str, Any], target: Path, *, dtype: str | None, max_shard_bytes: int
) -> None:
  """Writes the files one at a time, so that only one shard is in host memory."""
  from safetensors.numpy import save_file

  shards: list[list[str]] = [[]]
  size = 0
  for name, leaf in tensors.items():
    needed = _bytes_of(leaf, dtype)
    if shards[-1] and size + needed > max_shard_bytes:
      shards.append([])
      size = 0
    shards[-1].append(name)
    size += needed
  places = {}
  for number, names in enumerate(shards, start=1):
    file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
    file = "model.safetensors" if len(shards) == 1 else file
    cast = {name: tensors[name].astype(dtype or tensors[name].dtype) for name in names}
    arrays = {name: np.asarray(array) for name, array in cast.items()}
    # transformers rejects files without this entry.
    save_file(arrays, target / file, metadata={"format": "pt"})
    places |= dict.fromkeys(names, file)
  if len(shards) > 1:
    total = {"total_size": _total_bytes(tensors, dtype)}
    index = {"metadata": total, "weight_map": dict(sorted(places.items()))}
    runs.write_json(target / "model.safetensors.index.json", index)


@contextlib.contextmanager
def _replaced(folder: Path, *, needed: int) -> Iterator[Path]:
  """Yields a temporary folder that replaces `folder` if the block ends without an error.

  Raises: InputError if `folder` contains anything but an export, or the disk is full.
  """
  require_writable(folder)
  folder.parent.mkdir(parents=True, exist_ok=True)
  if (free := shutil.disk_usage(folder.parent).free) < needed:
    raise InputError(
      f"{folder}: the disk is full ({free / 1e6:.1f} MB free, the export needs "
      f"{needed / 1e6:.1f} MB); free some space or give a folder elsewhere"
    )
  temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
  former = folder.with_name(f".{folder.name}.{os.getpid()}.old")
  shutil.rmtree(temporary, ignore_errors=True)
  temporary.mkdir()
  try:
    with writing(folder):
      yield temporary
  except BaseException:
    shutil.rmtree(temporary, ignore_errors=True)
    raise
  if folder.exists():
    folder.rename(former)
  temporary.rename(folder)
  shutil.rmtree(former, ignore_errors=True)
