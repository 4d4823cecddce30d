"""Parsers of model folders (configs, safetensors, tokenizers, adapters, modules) and GGUF files."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from launch.fuzzing.execute import Parser
from launch.fuzzing.mutate import Files, in_json, in_safetensors, some_of

_LLAMA = {
  "model_type": "llama",
  "hidden_size": 4,
  "intermediate_size": 4,
  "num_hidden_layers": 1,
  "num_attention_heads": 2,
  "num_key_value_heads": 1,
  "vocab_size": 6,
  "max_position_embeddings": 16,
  "rms_norm_eps": 1e-6,
  "rope_theta": 10000.0,
  "rope_scaling": {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8,
  },
  "tie_word_embeddings": True,
  "bos_token_id": 1,
  "eos_token_id": [2, 3],
  "hidden_act": "silu",
}
_GEMMA = {
  **{name: _LLAMA[name] for name in list(_LLAMA)[1:9] if name != "rope_scaling"},
  "model_type": "gemma3_text",
  "head_dim": 4,
  "layer_types": ["sliding_attention"],
  "sliding_window": 8,
  "query_pre_attn_scalar": 4,
  "rope_parameters": {"sliding_attention": {"rope_theta": 10.0, "rope_type": "default"}},
}
_SMOLLM = _LLAMA | {
  "model_type": "smollm3",
  "no_rope_layers": [1],
  "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4},
}
_BERT = {
  "model_type": "bert",
  "vocab_size": 6,
  "hidden_size": 4,
  "num_hidden_layers": 1,
  "num_attention_heads": 2,
  "intermediate_size": 4,
  "max_position_embeddings": 8,
  "type_vocab_size": 2,
  "hidden_act": "gelu",
  "layer_norm_eps": 1e-12,
}


def _bytes(tree: Any) -> bytes:
  return json.dumps(tree).encode()


def _tensors(shapes: dict[str, tuple[int, ...]]) -> bytes:
  from safetensors.numpy import save

  return save({name: np.ones(shape, np.float32) for name, shape in shapes.items()})


@functools.cache
def _weights() -> bytes:
  from gatrec_jax.lm.decoder.config import decoder_config
  from gatrec_jax.lm.decoder.weights import weight_rules

  return _tensors(dict(rule.sources[0] for rule in weight_rules(decoder_config(_LLAMA))))


def _configs() -> list[Files]:
  trees = (_LLAMA, _GEMMA, _SMOLLM, {"model_type": "gemma3", "text_config": _GEMMA})
  return [
    {"config.json": _bytes(tree), "model.safetensors": _weights(), "readme": b""} for tree in trees
  ]


def _check_model(folder: Path) -> None:
  """What loading does before it allocates: config.json, and the weights' headers against it."""
  from gatrec_jax.lm.decoder.config import read_decoder_config
  from gatrec_jax.lm.decoder.weights import RENAMES, unused_names, weight_rules
  from gatrec_jax.lm.folders.weights import matched_rules, open_tensors

  config = read_decoder_config(folder)
  with open_tensors(folder, RENAMES) as tensors:
    matched_rules(folder, tensors, weight_rules(config), unused_names(config))


def _generation() -> list[Files]:
  tree = {"eos_token_id": [2, 3], "bos_token_id": 1, "temperature": 0.6, "do_sample": True}
  return [{"config.json": _bytes(_LLAMA), "generation_config.json": _bytes(tree)}]


def _read_decoder(folder: Path) -> None:
  from gatrec_jax.lm.decoder.config import read_decoder_config

  read_decoder_config(folder)


def _safetensors() -> list[Files]:
  index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
  return [
    {"model.safetensors": _tensors({"a": (2, 2), "b": (3,)})},
    {
      "model-1.safetensors": _tensors({"a": (2, 2)}),
      "model-2.safetensors": _tensors({"b": (3,)}),
      "model.safetensors.index.json": _bytes(index),
    },
  ]


def _load_tensors(folder: Path) -> None:
  from gatrec_jax.lm.folders.weights import Rule, load_params

  rules = [Rule("x/a", (("a", (2, 2)),)), Rule("x/b", (("b", (3,)),))]
  load_params(folder, rules, dtype="float32", place=lambda _, array: array)


def _encoders() -> list[Files]:
  modules = [
    {"type": "sentence_transformers.models.Transformer", "path": ""},
    {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
    {"type": "sentence_transformers.models.Normalize", "path": "2_Normalize"},
  ]
  return [
    {"config.json": _bytes(_BERT)},
    {
      "config.json": _bytes(_BERT | {"model_type": "roberta", "pad_token_id": 1}),
      "modules.json": _bytes(modules),
      "1_Pooling/config.json": _bytes({"pooling_mode_mean_tokens": True}),
      "config_sentence_transformers.json": _bytes(
        {"prompts": {"query": "q: "}, "default_prompt_name": "query"}
      ),
      "sentence_bert_config.json": _bytes({"do_lower_case": False}),
    },
  ]


def _read_encoder(folder: Path) -> None:
  from gatrec_jax.lm.encoder import bert, pooling

  modules = pooling.read_modules(folder)
  bert.weight_rules(bert.read_config(modules.transformer))


@functools.cache
def _tokenizer() -> bytes:
  from gatrec_jax.lm.finetune.from_scratch import train_tokenizer

  return train_tokenizer(["a film, a book"] * 3, vocabulary=264).to_str().encode()


def _tokenizers() -> list[Files]:
  words = {
    "version": "1.0",
    "added_tokens": [{"id": 0, "content": "[UNK]", "special": True}],
    "normalizer": {"type": "BertNormalizer", "lowercase": True},
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "post_processor": None,
    "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
    "model": {
      "type": "WordPiece",
      "unk_token": "[UNK]",
      "continuing_subword_prefix": "##",
      "max_input_chars_per_word": 100,
      "vocab": {"[UNK]": 0, "a": 1, "film": 2, "##s": 3},
    },
  }
  unigram = {
    "version": "1.0",
    "added_tokens": [],
    "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"},
    "model": {
      "type": "Unigram",
      "unk_id": 0,
      "vocab": [["<unk>", 0.0], ["▁a", -1.5], ["film", -2]],
    },
  }
  return [{"tokenizer.json": one} for one in (_tokenizer(), _bytes(words), _bytes(unigram))]


def _load_tokenizer(folder: Path) -> None:
  from gatrec_jax.lm.encoder.load import load_tokenizer

  load_tokenizer(folder)


def _chat_tokenizers() -> list[Files]:
  config = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "model_max_length": 16,
    "chat_template": "{% for m in messages %}{{ m['content'] }}{% endfor %}",
  }
  return [
    {
      "config.json": _bytes(_LLAMA),
      "tokenizer.json": _tokenizer(),
      "tokenizer_config.json": _bytes(config),
    }
  ]


def _load_chat_tokenizer(folder: Path) -> None:
  from gatrec_jax.lm.tokens.chat import load_chat_tokenizer

  load_chat_tokenizer(folder)


def _adapters() -> list[Files]:
  config = {
    "peft_type": "LORA",
    "r": 2,
    "lora_alpha": 4.0,
    "lora_dropout": 0.1,
    "bias": "none",
    "target_modules": ["q_proj"],
  }
  prefix = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
  tensors = _tensors({f"{prefix}A.weight": (2, 4), f"{prefix}B.weight": (4, 2)})
  return [{"adapter_config.json": _bytes(config), "adapter_model.safetensors": tensors}]


def _load_adapter(folder: Path) -> None:
  from gatrec_jax.lm.decoder.config import decoder_config
  from gatrec_jax.lm.finetune.lora import load_lora

  load_lora(folder, decoder_config(_LLAMA))


@functools.cache
def _gguf(kind: str) -> bytes:
  """A llama file of a layer, with a tokenizer. Args: kind: `gpt2` or `llama`."""
  import gguf

  with tempfile.TemporaryDirectory() as folder:
    writer = gguf.GGUFWriter(path := Path(folder) / "model.gguf", "llama")
    writer.add_block_count(1)
    writer.add_context_length(16)
    writer.add_embedding_length(4)
    writer.add_feed_forward_length(4)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(2.0)
    writer.add_tokenizer_model(kind)
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(["<s>", "</s>", "a", "b", "ab", "<x>"])
    writer.add_token_types([3, 3, 1, 1, 1, 4])
    if kind == "gpt2":
      writer.add_token_merges(["a b"])
    else:
      writer.add_token_scores([0.0, 0.0, -1.0, -2.0, -3.0, 0.0])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    square, norm = np.ones((4, 4), np.float32), np.ones(4, np.float32)
    writer.add_tensor("token_embd.weight", np.ones((6, 4), np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
      writer.add_tensor(f"blk.0.{name}.weight", square)
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
      writer.add_tensor(f"{name}.weight", norm)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def _ggufs() -> list[Files]:
  return [{"model.gguf": _gguf("gpt2")}, {"model.gguf": _gguf("llama")}]


def _check_gguf(folder: Path) -> None:
  """What loading does before it allocates: metadata, tokenizer, and the tensors' headers."""
  from gatrec_jax.lm.decoder.config import decoder_config
  from gatrec_jax.lm.decoder.gguf import config_fields, named_tensors
  from gatrec_jax.lm.decoder.weights import unused_names, weight_rules
  from gatrec_jax.lm.folders.gguf import read_gguf
  from gatrec_jax.lm.folders.weights import matched_rules
  from gatrec_jax.lm.tokens.gguf import gguf_tokenizer

  path = folder / "model.gguf"
  file = read_gguf(path)
  config = decoder_config(config_fields(file), where=str(path))
  gguf_tokenizer(file.fields, where=str(path))
  matched_rules(path, named_tensors(file, config), weight_rules(config), unused_names(config))


_change = some_of({".json": in_json, ".safetensors": in_safetensors})

PARSERS = (
  Parser("model_config", _configs, _change, _check_model),
  Parser("generation_config", _generation, _change, _read_decoder),
  Parser("safetensors", _safetensors, _change, _load_tensors),
  Parser("encoder_config", _encoders, _change, _read_encoder),
  Parser("tokenizer", _tokenizers, _change, _load_tokenizer),
  Parser("chat_tokenizer", _chat_tokenizers, _change, _load_chat_tokenizer),
  Parser("lora", _adapters, _change, _load_adapter),
  Parser("gguf", _ggufs, _change, _check_gguf),
)
