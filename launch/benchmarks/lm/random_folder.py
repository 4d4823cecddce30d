"""Model folders with random weights, for measurements that depend on the shape alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from gatrec_jax import runs
from gatrec_jax.errors import InputError
from gatrec_jax.lm.decoder.config import decoder_config
from gatrec_jax.lm.decoder.weights import weight_rules
from gatrec_jax.lm.folders.source import read_json

_QWEN = {
  "architectures": ["Qwen2ForCausalLM"],
  "model_type": "qwen2",
  "hidden_act": "silu",
  "max_position_embeddings": 32_768,
  "rms_norm_eps": 1e-6,
  "rope_theta": 1_000_000.0,
  "tie_word_embeddings": True,
  "use_sliding_window": False,
  "attention_dropout": 0.0,
  "initializer_range": 0.02,
  "use_cache": True,
  "bos_token_id": None,
  "eos_token_id": None,
  "dtype": "float32",
}
# name -> config.json. 0.5b is the shape of Qwen2-0.5B and Qwen2.5-0.5B.
SHAPES: dict[str, dict[str, Any]] = {
  "0.5b": _QWEN
  | {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 151_936,
  },
  "tiny": _QWEN
  | {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
  },
}
DEVIATION = 0.02  # of all weights except those of norms, which are 1


def random_folder(folder: Path, shape: str, *, seed: int = 0) -> Path:
  """Writes a Hugging Face folder with random float32 weights and no tokenizer.

  A folder with the same config.json is kept. One tensor is in memory at a time.

  Args: folder: to write. shape: one of `SHAPES`. seed: of the weights.
  Returns: the folder.
  Raises: InputError for an unknown shape, or a folder that holds another model.
  """
  if shape not in SHAPES:
    raise InputError(f"must be one of {', '.join(SHAPES)}", field="random_shape", value=shape)
  fields = SHAPES[shape] | {"random_seed": seed}
  config = folder / "config.json"
  if config.is_file():
    if read_json(config) == fields:
      return folder
    raise InputError(f"{folder} holds another model; delete it, or use another `workdir`")
  rules = weight_rules(decoder_config(fields))
  tensors = [(*rule.sources[0], rule.target.endswith("/scale")) for rule in rules]
  with runs.atomic_path(folder / "model.safetensors") as temporary:
    _write(temporary, tensors, seed)
  runs.write_json(config, fields)  # last, since it marks the folder as complete
  return folder


def _write(path: Path, tensors: list[tuple[str, tuple[int, ...], bool]], seed: int) -> None:
  """Writes a safetensors file; the library's NumPy writer needs all tensors in memory at once.

  Args: tensors: (name, shape, whether it is all ones).
  """
  header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
  end = 0
  for name, shape, _ in tensors:
    start, end = end, end + 4 * int(np.prod(shape))
    header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
  head = json.dumps(header).encode()
  head += b" " * (-len(head) % 8)
  with open(path, "wb") as file:
    file.write(len(head).to_bytes(8, "little") + head)
    for number, (_, shape, ones) in enumerate(tensors):
      random = np.random.default_rng([seed, number])
      values = np.ones(shape) if ones else random.standard_normal(shape, np.float32) * DEVIATION
      values.astype("<f4").tofile(file)
