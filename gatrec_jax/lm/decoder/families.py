"""Model families: the defaults that their config.json may omit, and their patterns of layers.

A file omits the fields that equal its family's defaults, so the defaults are listed here as their
authors set them. To add a family, add its defaults and, if its layers differ, a case in
`layer_kinds`; `config._build` decides which biases, norms and scales a family has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gatrec_jax.errors import InputError
from gatrec_jax.lm.folders.fields import flag, shown, whole

_COMMON = {
  "rms_norm_eps": 1e-6,
  "tie_word_embeddings": False,
  "attention_bias": False,
  "mlp_bias": False,
  "rope_theta": 10_000.0,
  "hidden_act": "silu",
  "bos_token_id": None,
  "eos_token_id": None,
  "pad_token_id": None,
}
_GEMMA = _COMMON | {
  "tie_word_embeddings": True,
  "hidden_activation": "gelu_pytorch_tanh",
  "head_dim": 256,
  "query_pre_attn_scalar": 256,
  "num_attention_heads": 8,
  "num_key_value_heads": 4,
  "bos_token_id": 2,
  "eos_token_id": 1,
  "pad_token_id": 0,
  "sliding_window": 4096,
}
_QWEN = _COMMON | {
  "max_position_embeddings": 32_768,
  "use_sliding_window": False,
  "sliding_window": 4096,
  "max_window_layers": 28,
  "vocab_size": 151_936,
}
FAMILIES: dict[str, Mapping[str, Any]] = {
  "llama": _COMMON | {"bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 2048},
  "mistral": _COMMON
  | {
    "bos_token_id": 1,
    "eos_token_id": 2,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131_072,
    "sliding_window": 4096,
  },
  "qwen2": _QWEN,
  "qwen3": _QWEN | {"head_dim": 128},
  "smollm3": _COMMON
  | {
    "tie_word_embeddings": True,
    "rope_theta": 2_000_000.0,
    "num_key_value_heads": 4,
    "use_sliding_window": False,
    "sliding_window": None,
    "no_rope_layer_interval": 4,
    "max_position_embeddings": 32_768,
    "bos_token_id": 128_000,
    "eos_token_id": 128_001,
    "pad_token_id": 128_004,
  },
  "gemma2": _GEMMA
  | {
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "max_position_embeddings": 8192,
    "vocab_size": 256_000,
  },
  "gemma3_text": _GEMMA
  | {
    "final_logit_softcapping": None,
    "max_position_embeddings": 131_072,
    "sliding_window_pattern": 6,
    "rope_theta": 1_000_000.0,
    "rope_local_base_freq": 10_000.0,
    "vocab_size": 262_208,
  },
}
SLIDING, FULL = "sliding_attention", "full_attention"


def layer_kinds(
  family: str, fields: Mapping[str, Any], given: Mapping[str, Any], count: int, where: str
) -> list[str]:
  """Returns `sliding_attention` or `full_attention` for every layer.

  Args: family: a key of `FAMILIES`. fields: of config.json, with defaults. given: fields that the
    file itself has. count: number of layers. where: the file, for messages.
  Raises: InputError if the file's own list does not fit.
  """
  if "layer_types" in given and family not in ("llama", "mistral"):
    kinds = _list(given, "layer_types", where)
    unknown = [kind for kind in kinds if kind not in (SLIDING, FULL)]
    if unknown:
      raise InputError(f"{where}: layer_types {shown(unknown[0])} is not one of {SLIDING}, {FULL}")
    if len(kinds) != count:
      raise InputError(f"{where}: layer_types has {len(kinds)} entries for {count} layers")
    return kinds
  layers = range(count)
  if family == "mistral":
    sliding = [fields["sliding_window"] is not None] * count
  elif family in ("qwen2", "qwen3"):
    uses = flag(fields, "use_sliding_window", where) and fields["sliding_window"] is not None
    first = whole(fields, "max_window_layers", where, low=0)
    sliding = [uses and layer >= first for layer in layers]
  elif family == "smollm3":
    uses = flag(fields, "use_sliding_window", where) and fields["sliding_window"] is not None
    sliding = [uses and not has_rope for has_rope in rope_flags(fields, count, where)]
  elif family == "gemma2":
    sliding = [layer % 2 == 0 for layer in layers]
  elif family == "gemma3_text":
    pattern = whole(fields, "sliding_window_pattern", where)
    sliding = [(layer + 1) % pattern != 0 for layer in layers]
  else:
    sliding = [False] * count
  return [SLIDING if flag else FULL for flag in sliding]


def rope_flags(fields: Mapping[str, Any], count: int, where: str) -> list[bool]:
  """Whether each of `count` layers of SmolLM3 has rotary position embeddings. As `layer_kinds`."""
  if fields.get("no_rope_layers") is None:
    interval = whole(fields, "no_rope_layer_interval", where)
    return [(layer + 1) % interval != 0 for layer in range(count)]
  flags = _list(fields, "no_rope_layers", where)
  if len(flags) < count:
    raise InputError(f"{where}: no_rope_layers has {len(flags)} entries for {count} layers")
  return [bool(one) for one in flags[:count]]


def _list(fields: Mapping[str, Any], name: str, where: str) -> list[Any]:
  if not isinstance(fields[name], list):
    raise InputError(f"{where}: {name} is {shown(fields[name])}; it must be a list")
  return fields[name]
