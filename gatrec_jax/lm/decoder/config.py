"""config.json of a decoder folder -> one frozen configuration that drives the decoder's blocks.

Both spellings are read: the older one (`rope_theta`, `rope_scaling`, `rope_local_base_freq`,
`sliding_window_pattern`) and that of transformers 5 (`rope_parameters`, `layer_types`). Files
leave out what equals the family's default, so these defaults stand here as their authors set them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gatrec_jax.errors import InputError
from gatrec_jax.lm.decoder.rope import ROPE_KINDS, Rope, yarn_attention_factor
from gatrec_jax.lm.folders.files import read_json

ACTIVATIONS = {
  "silu": "silu",
  "swish": "silu",
  "gelu": "gelu",
  "gelu_pytorch_tanh": "gelu_tanh",
  "gelu_new": "gelu_tanh",
}

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
# family -> what its config.json may leave out.
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
SIZES = (
  "hidden_size",
  "num_attention_heads",
  "num_key_value_heads",
  "num_hidden_layers",
  "vocab_size",
  "intermediate_size",
  "max_position_embeddings",
)


@dataclasses.dataclass(frozen=True)
class Layer:
  """What differs from block to block.

  Attributes:
    window: a token sees so many tokens, itself included; None for all before it.
    rope: None for a block without position embeddings.
  """

  window: int | None
  rope: Rope | None


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
  """The shape of a decoder, hashable.

  Attributes:
    family: a key of `FAMILIES`.
    vocabulary: V. width: D of the hidden states. inner: of the MLP.
    heads, kv_heads, head_size: of attention; kv_heads divides heads.
    layers: one entry a block.
    context: positions that the model was made for.
    epsilon: of the RMS norms.
    activation: `silu`, `gelu` or `gelu_tanh`.
    tied: the output head is the embedding table.
    qkv_bias, output_bias, mlp_bias: which projections have biases.
    qk_norm: queries and keys are normed per head.
    norm_offset: norms scale by 1 + weight (Gemma).
    sandwich_norms: attention and MLP are normed on their way out too (Gemma).
    embedding_scale: embeddings are multiplied with it.
    query_scale: attention scores are multiplied with it.
    attention_softcap, final_softcap: c in c·tanh(x / c) on scores and logits; None for no cap.
    bos: id put before a text, None where there is none. eos: ids that end a text.
    pad: id that fills rows up; masked everywhere, so any will do.
  """

  family: str
  vocabulary: int
  width: int
  inner: int
  heads: int
  kv_heads: int
  head_size: int
  layers: tuple[Layer, ...]
  context: int
  epsilon: float = 1e-6
  activation: str = "silu"
  tied: bool = False
  qkv_bias: bool = False
  output_bias: bool = False
  mlp_bias: bool = False
  qk_norm: bool = False
  norm_offset: bool = False
  sandwich_norms: bool = False
  embedding_scale: float = 1.0
  query_scale: float = 1.0
  attention_softcap: float | None = None
  final_softcap: float | None = None
  bos: int | None = None
  eos: tuple[int, ...] = ()
  pad: int = 0


def read_decoder_config(folder: str | Path) -> DecoderConfig:
  """The configuration of a decoder folder, with the end tokens of its generation_config.json.

  Raises: InputError naming the file and the field that is missing, wrong or not supported.
  """
  folder = Path(folder)
  path = folder / "config.json"
  if not path.is_file():
    raise InputError(f"{path}: not found; a decoder folder holds config.json")
  fields = read_json(path)
  if not isinstance(fields, dict):
    raise InputError(f"{path}: not a JSON object")
  config = decoder_config(fields, where=str(path))
  generation = folder / "generation_config.json"
  if generation.is_file():
    extra = read_json(generation).get("eos_token_id")
    config = dataclasses.replace(config, eos=tuple(dict.fromkeys((*config.eos, *_ids(extra)))))
  return config


def is_decoder(fields: Mapping[str, Any]) -> bool:
  """Whether these are the fields of a config.json that `decoder_config` reads."""
  return fields.get("model_type") in (*FAMILIES, "gemma3")


def decoder_config(fields: Mapping[str, Any], *, where: str = "config.json") -> DecoderConfig:
  """The configuration that the fields of a config.json mean.

  Args: fields: as read. where: the file, for messages.
  Raises: InputError as `read_decoder_config`.
  """
  family = fields.get("model_type")
  if family == "gemma3":  # The multimodal form; its text half is a gemma3_text.
    inner = fields.get("text_config")
    if not isinstance(inner, dict):
      raise InputError(f"{where}: model_type gemma3 without a text_config")
    tokens = ("bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings")
    outer = {name: fields[name] for name in tokens if name in fields}
    fields, family = inner | outer | {"model_type": "gemma3_text"}, "gemma3_text"
  if family not in FAMILIES:
    raise InputError(f"{where}: model_type {family!r} is not one of {', '.join(FAMILIES)}")
  if quantization := fields.get("quantization_config"):
    method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
    raise InputError(
      f"{where}: quantization_config {method!r}: only plain weights are read; take the unquantized "
      "model, and `quantize=int8` for small memory"
    )
  known = {name: value for name, value in fields.items() if value is not None}
  # None is a value where it says that there is none of something.
  off = (
    "sliding_window",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "bos_token_id",
    "eos_token_id",
  )
  known |= {name: None for name in off if name in fields and fields[name] is None}
  defaults = dict(FAMILIES[family])
  if "num_key_value_heads" in fields and fields["num_key_value_heads"] is None:
    defaults.pop("num_key_value_heads", None)
  try:
    return _build(family, defaults | known, known, where)
  except KeyError as error:
    raise InputError(f"{where}: has no {error.args[0]}") from None
  except (TypeError, ValueError, AttributeError) as error:
    raise InputError(f"{where}: a field is not of its kind: {error}") from None


def _build(
  family: str, fields: Mapping[str, Any], given: Mapping[str, Any], where: str
) -> DecoderConfig:
  gemma = family in ("gemma2", "gemma3_text")
  for name in SIZES:
    if int(fields.get(name, 1)) < 1:
      raise InputError(f"{where}: {name} is {fields[name]}; it must be 1 or more")
  width, heads = int(fields["hidden_size"]), int(fields["num_attention_heads"])
  kv_heads = int(fields.get("num_key_value_heads", heads))
  head_size = int(fields.get("head_dim") or width // heads)
  # Gemma's files may hold a hidden_act of old that nothing reads.
  activation = fields["hidden_activation" if gemma else "hidden_act"]
  if activation not in ACTIVATIONS:
    raise InputError(f"{where}: hidden_act {activation!r} is not one of {', '.join(ACTIVATIONS)}")
  if heads % kv_heads:
    raise InputError(f"{where}: {heads} attention heads are no multiple of {kv_heads} key heads")
  if head_size % 2:
    raise InputError(f"{where}: head_dim {head_size} is odd; rotary embeddings need an even one")
  if fields.get("use_bidirectional_attention"):
    raise InputError(f"{where}: use_bidirectional_attention is set; only causal decoders are read")
  bias = bool(fields["attention_bias"])
  scalar = float(fields["query_pre_attn_scalar"]) if gemma else head_size
  return DecoderConfig(
    family=family,
    vocabulary=int(fields["vocab_size"]),
    width=width,
    inner=int(fields["intermediate_size"]),
    heads=heads,
    kv_heads=kv_heads,
    head_size=head_size,
    layers=_layers(family, fields, given, where),
    context=int(fields["max_position_embeddings"]),
    epsilon=float(fields["rms_norm_eps"]),
    activation=ACTIVATIONS[activation],
    tied=bool(fields["tie_word_embeddings"]),
    qkv_bias=family == "qwen2" or (bias and family != "mistral"),
    output_bias=bias and family not in ("qwen2", "mistral"),
    mlp_bias=bool(fields["mlp_bias"]) and family in ("llama", "smollm3"),
    qk_norm=family in ("qwen3", "gemma3_text"),
    norm_offset=gemma,
    sandwich_norms=gemma,
    embedding_scale=width**0.5 if gemma else 1.0,
    query_scale=scalar**-0.5,
    # transformers reads Gemma 3's field and does not apply it.
    attention_softcap=(
      _optional_float(fields["attn_logit_softcapping"]) if family == "gemma2" else None
    ),
    final_softcap=_optional_float(fields.get("final_logit_softcapping")),
    bos=None if fields["bos_token_id"] is None else int(fields["bos_token_id"]),
    eos=_ids(fields["eos_token_id"]),
    pad=int(fields["pad_token_id"] or 0),
  )


def _layers(
  family: str, fields: Mapping[str, Any], given: Mapping[str, Any], where: str
) -> tuple[Layer, ...]:
  count = int(fields["num_hidden_layers"])
  kinds = _kinds(family, fields, given, count, where)
  window = fields.get("sliding_window")
  if SLIDING in kinds and not window:
    raise InputError(f"{where}: has sliding_attention layers and no sliding_window")
  ropes = {kind: _rope(family, fields, kind, where) for kind in sorted(set(kinds))}
  with_rope = [True] * count
  if family == "smollm3":
    interval = int(fields["no_rope_layer_interval"])
    default = [(layer + 1) % interval != 0 for layer in range(count)]
    with_rope = [bool(flag) for flag in fields.get("no_rope_layers", default)]
    if len(with_rope) < count:
      raise InputError(f"{where}: no_rope_layers has {len(with_rope)} entries for {count} layers")
  return tuple(
    Layer(
      window=int(window) if kind == SLIDING else None,
      rope=ropes[kind] if with_rope[layer] else None,
    )
    for layer, kind in enumerate(kinds)
  )


def _kinds(
  family: str, fields: Mapping[str, Any], given: Mapping[str, Any], count: int, where: str
) -> list[str]:
  """`sliding_attention` or `full_attention` for every layer."""
  if "layer_types" in given and family not in ("llama", "mistral"):
    kinds = [str(kind) for kind in given["layer_types"]]
    unknown = sorted(set(kinds) - {SLIDING, FULL})
    if unknown:
      raise InputError(f"{where}: layer_types {unknown[0]!r} is not one of {SLIDING}, {FULL}")
    if len(kinds) != count:
      raise InputError(f"{where}: layer_types has {len(kinds)} entries for {count} layers")
    return kinds
  layers = range(count)
  if family == "mistral":
    sliding = [fields["sliding_window"] is not None] * count
  elif family in ("qwen2", "qwen3"):
    uses = bool(fields["use_sliding_window"]) and fields["sliding_window"] is not None
    sliding = [uses and layer >= int(fields["max_window_layers"]) for layer in layers]
  elif family == "smollm3":
    uses = bool(fields["use_sliding_window"]) and fields["sliding_window"] is not None
    interval = int(fields["no_rope_layer_interval"])
    flags = fields.get("no_rope_layers", [int((layer + 1) % interval != 0) for layer in layers])
    sliding = [uses and not flag for flag in flags[:count]]
  elif family == "gemma2":
    sliding = [layer % 2 == 0 for layer in layers]
  elif family == "gemma3_text":
    pattern = int(fields["sliding_window_pattern"])
    sliding = [(layer + 1) % pattern != 0 for layer in layers]
  else:
    sliding = [False] * count
  return [SLIDING if flag else FULL for flag in sliding]


def _rope(family: str, fields: Mapping[str, Any], kind: str, where: str) -> Rope:
  """The position embedding of the layers of a kind."""
  local = family == "gemma3_text" and kind == SLIDING
  theta = fields["rope_local_base_freq" if local else "rope_theta"]
  nested = dict(fields.get("rope_parameters") or {})
  if {SLIDING, FULL} & set(nested):
    numbers = dict(nested.get(kind) or {})
  elif local:  # Gemma 3 stretches its global layers only.
    numbers = {}
  else:
    numbers = dict(fields.get("rope_scaling") or nested)
  numbers = {name: value for name, value in numbers.items() if value is not None}
  rope_type = numbers.get("rope_type", numbers.get("type", "default"))
  if rope_type not in ROPE_KINDS:
    raise InputError(f"{where}: rope type {rope_type!r} is not one of {', '.join(ROPE_KINDS)}")
  partial = float(numbers.get("partial_rotary_factor", fields.get("partial_rotary_factor", 1.0)))
  if partial != 1.0:
    raise InputError(f"{where}: partial_rotary_factor {partial} is not supported, only 1")
  theta = float(numbers.get("rope_theta", theta))
  if rope_type == "default":
    return Rope(theta=theta)
  context = int(fields["max_position_embeddings"])
  original = int(
    fields.get("original_max_position_embeddings")
    or numbers.get("original_max_position_embeddings")
    or context
  )
  if "factor" in numbers:
    factor = float(numbers["factor"])
  elif rope_type == "yarn":
    factor = context / original
  else:
    raise InputError(f"{where}: rope type {rope_type} without a factor")
  if rope_type == "linear":
    return Rope(kind="linear", theta=theta, factor=factor)
  if rope_type == "llama3":
    return Rope(
      kind="llama3",
      theta=theta,
      factor=factor,
      original_context=original,
      low_frequency=float(numbers["low_freq_factor"]),
      high_frequency=float(numbers["high_freq_factor"]),
    )
  implied = yarn_attention_factor(
    factor, float(numbers.get("mscale", 0)), float(numbers.get("mscale_all_dim", 0))
  )
  return Rope(
    kind="yarn",
    theta=theta,
    factor=factor,
    original_context=original,
    beta_fast=float(numbers.get("beta_fast") or 32.0),
    beta_slow=float(numbers.get("beta_slow") or 1.0),
    truncate=bool(numbers.get("truncate", True)),
    attention_factor=float(numbers.get("attention_factor", implied)),
  )


def _ids(value: int | Sequence[int] | None) -> tuple[int, ...]:
  if value is None:
    return ()
  return tuple(int(one) for one in value) if isinstance(value, list | tuple) else (int(value),)


def _optional_float(value: float | None) -> float | None:
  return None if value is None else float(value)
