"""The decoders of tests/lm/goldens/decoders: their configurations and the features they cover.

Used by make_decoder_goldens.py, which needs torch; not needed by the tests.
"""

import dataclasses

import torch

LENGTHS = (36, 20, 9)
WINDOW = 8
ORIGINAL = 16  # positions before the context was extended
SIZES = dict(
  vocab_size=96,
  hidden_size=32,
  intermediate_size=24,
  num_hidden_layers=2,
  num_attention_heads=4,
  num_key_value_heads=2,
  max_position_embeddings=128,
)
LLAMA3 = dict(
  rope_type="llama3",
  rope_theta=500.0,
  factor=8.0,
  low_freq_factor=1.0,
  high_freq_factor=4.0,
  original_max_position_embeddings=ORIGINAL,
)
YARN = dict(
  rope_type="yarn",
  rope_theta=10_000.0,
  factor=4.0,
  beta_fast=2.0,
  beta_slow=0.25,
  original_max_position_embeddings=ORIGINAL,
)
LOCAL = {"rope_type": "default", "rope_theta": 10_000.0}
GLOBAL = {"rope_type": "linear", "rope_theta": 50_000.0, "factor": 4.0}
GEMMA3 = dict(
  head_dim=8,
  num_hidden_layers=3,
  query_pre_attn_scalar=4,
  sliding_window=WINDOW,
  sliding_window_pattern=3,
  rope_parameters={"full_attention": GLOBAL, "sliding_attention": LOCAL},
)
GEMMA3_OFF = {
  "window": {"sliding_window": 1000},
  "pattern": {"layer_types": ["sliding_attention"] * 3},
  "scaling": {
    "rope_parameters": {
      "full_attention": {"rope_type": "default", "rope_theta": 50_000.0},
      "sliding_attention": LOCAL,
    }
  },
  "local rope": {"rope_parameters": {"full_attention": GLOBAL, "sliding_attention": GLOBAL}},
  "query scale": {"query_pre_attn_scalar": 8},
}
PLAIN_ROPE = {"rope": {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}}}


@dataclasses.dataclass(frozen=True)
class Folder:
  """A decoder to make.

  Attributes:
    family: model_type. fields: of its config, in addition to `SIZES`.
    off: name -> fields that turn a feature off; each must change the logits.
    neutral: parts of names of weights that must matter (biases, head norms).
    old: whether config.json has the form before transformers 5.
    dtype: of the stored weights. shards: number of files.
    extra: entries of an old config.json that a reader must ignore.
  """

  family: str
  fields: dict
  off: dict = dataclasses.field(default_factory=dict)
  neutral: tuple[str, ...] = ()
  old: bool = False
  dtype: torch.dtype = torch.bfloat16
  shards: int = 1
  extra: dict = dataclasses.field(default_factory=dict)


FOLDERS = {
  "llama_default": Folder(
    "llama",
    dict(bos_token_id=1, eos_token_id=2, pad_token_id=0, rms_norm_eps=1e-3),
    off={"epsilon": {"rms_norm_eps": 1e-6}},
    dtype=torch.float32,
  ),
  "llama3_rope": Folder(
    "llama",
    dict(tie_word_embeddings=True, rope_parameters=LLAMA3),
    off={"llama3": {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}},
  ),
  "llama_linear": Folder(
    "llama",
    dict(
      attention_bias=True,
      mlp_bias=True,
      rope_parameters={"rope_type": "linear", "rope_theta": 10_000.0, "factor": 3.0},
    ),
    off=PLAIN_ROPE,
    neutral=("q_proj.bias", "o_proj.bias", "gate_proj.bias", "down_proj.bias"),
    old=True,
    dtype=torch.float16,
  ),
  "llama_sharded_bf16": Folder("llama", dict(num_hidden_layers=3, eos_token_id=[2, 5]), shards=3),
  "mistral": Folder(
    "mistral",
    dict(head_dim=16, sliding_window=WINDOW),
    off={"window": {"sliding_window": None}},
    dtype=torch.float16,
  ),
  "qwen2": Folder(
    "qwen2",
    dict(vocab_size=128, tie_word_embeddings=True, bos_token_id=None, eos_token_id=2),
    neutral=("q_proj.bias", "k_proj.bias", "v_proj.bias"),
    old=True,
    extra={"sliding_window": WINDOW, "max_window_layers": 1, "use_sliding_window": False},
  ),
  "qwen2_window": Folder(
    "qwen2",
    dict(num_hidden_layers=3, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1),
    off={"window": {"use_sliding_window": False}, "full layers": {"max_window_layers": 0}},
  ),
  "qwen2_yarn": Folder(
    "qwen2",
    dict(rope_parameters={k: v for k, v in YARN.items() if not k.startswith("beta")}),
    off=PLAIN_ROPE,
  ),
  "qwen3": Folder(
    "qwen3",
    dict(head_dim=16, tie_word_embeddings=True, rms_norm_eps=1e-3),
    off={"epsilon": {"rms_norm_eps": 1e-6}},
    neutral=("q_norm", "k_norm"),
  ),
  "qwen3_yarn": Folder(
    "qwen3",
    dict(head_dim=16, attention_bias=True, rope_parameters=YARN | {"truncate": False}),
    off=PLAIN_ROPE
    | {
      "truncate": {"rope_parameters": YARN},
      "attention factor": {"rope_parameters": YARN | {"truncate": False, "attention_factor": 1.0}},
    },
    neutral=("q_norm", "o_proj.bias"),
    old=True,
  ),
  "smollm3": Folder(
    "smollm3",
    dict(
      num_hidden_layers=4,
      no_rope_layer_interval=2,
      use_sliding_window=True,
      sliding_window=WINDOW,
      pad_token_id=3,
      bos_token_id=1,
      eos_token_id=2,
    ),
    off={
      "no rope": {"no_rope_layers": [1, 1, 1, 1], "layer_types": ["full", "sliding"] * 2},
      "window": {"use_sliding_window": False},
    },
    old=True,
  ),
  "gemma2": Folder(
    "gemma2",
    dict(
      head_dim=8,
      rms_norm_eps=1e-3,
      query_pre_attn_scalar=4,
      attn_logit_softcapping=2.0,
      final_logit_softcapping=5.0,
      sliding_window=WINDOW,
    ),
    off={
      "scores' cap": {"attn_logit_softcapping": None},
      "logits' cap": {"final_logit_softcapping": None},
      "window": {"sliding_window": 1000},
      "order": {"layer_types": ["full_attention", "sliding_attention"]},
      "query scale": {"query_pre_attn_scalar": 8},
    },
    old=True,
  ),
  "gemma3_text": Folder("gemma3_text", GEMMA3, off=GEMMA3_OFF, neutral=("q_norm", "k_norm")),
  # Like google/gemma-3-4b-it, which omits the defaults (8 query heads, 4 key heads).
  "gemma3_multimodal": Folder(
    "gemma3_text",
    GEMMA3 | dict(num_attention_heads=8, num_key_value_heads=4),
    off=GEMMA3_OFF,
    old=True,
  ),
}
