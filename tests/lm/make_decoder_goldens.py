"""Makes tests/lm/goldens/decoders with torch and transformers (not needed by the tests).

  python3 -m venv /tmp/torchenv
  /tmp/torchenv/bin/pip install torch==2.13.0 transformers==5.23.0 safetensors
  /tmp/torchenv/bin/python tests/lm/make_decoder_goldens.py
  /tmp/torchenv/bin/python tests/lm/make_generation_goldens.py ../shared/models/stories260K

A folder holds a tiny random decoder: `config.json` in the spelling named in `FOLDERS`,
`config_old.json` or `config_v5.json` the same in the other spelling, and `golden.npz` with
`tokens` [B, T], `lengths` [B] and `logits` [B, T, V] float32 of every row alone, without padding,
from the stored weights in float32 arithmetic; padding is zero. Nothing is written where a feature
of the folder does not change its logits, where attention is nearly uniform, or where transformers
reads the two spellings differently. The second script adds tokenizers and what needs them.
"""

import copy
import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

HERE = Path(__file__).parent / "goldens" / "decoders"
LENGTHS = (36, 20, 9)
WINDOW = 8
ORIGINAL = 16  # positions before the context was stretched
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
    family: model_type. fields: of its config, beside `SIZES`.
    off: name -> fields that switch a feature off; each must change the logits.
    neutral: parts of weight names whose weights must matter (biases, head norms).
    old: config.json is in the spelling before transformers 5.
    dtype: of the stored weights. shards: files they are split into.
    extra: entries of an old config.json that a reader must not act upon.
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
  # As google/gemma-3-4b-it: what equals the default (8 heads of queries, 4 of keys) is left out.
  "gemma3_multimodal": Folder(
    "gemma3_text",
    GEMMA3 | dict(num_attention_heads=8, num_key_value_heads=4),
    off=GEMMA3_OFF,
    old=True,
  ),
}
KINDS = {"full": "full_attention", "sliding": "sliding_attention"}


def make_config(folder: Folder, **changes) -> transformers.PreTrainedConfig:
  fields = copy.deepcopy(SIZES | folder.fields | changes)
  if "layer_types" in fields:
    fields["layer_types"] = [KINDS.get(kind, kind) for kind in fields["layer_types"]]
  return CONFIG_MAPPING[folder.family](**fields)


def make_model(config, state: dict[str, torch.Tensor]) -> torch.nn.Module:
  model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
  model.load_state_dict(state, strict=not config.tie_word_embeddings)
  model.tie_weights()
  return model.eval()


def draw(model: torch.nn.Module, folder: Folder, seed: int) -> dict[str, torch.Tensor]:
  """Weights that make attention uneven and logits wide, rounded to the stored dtype."""
  generator = torch.Generator().manual_seed(seed)
  gemma, tied = "gemma" in folder.family, model.config.tie_word_embeddings
  state = {}
  for name, value in model.named_parameters():
    noise = torch.randn(value.shape, generator=generator)
    if "norm" in name:
      center = 1.5 if "q_norm" in name or "k_norm" in name else 1.0
      drawn = center - gemma + 0.3 * noise
    elif value.ndim == 1:
      drawn = 0.5 * noise
    elif "embed_tokens" in name:
      drawn = (0.4 if tied else 1.0) * noise
    elif "lm_head" in name:
      drawn = 0.4 * noise
    else:
      gain = 1.6 if "q_proj" in name or "k_proj" in name else 1.0
      if tied and ("o_proj" in name or "down_proj" in name):
        gain = 3.0  # Else a tied head mostly repeats the token that came in.
      drawn = gain * noise / math.sqrt(value.shape[1])
    state[name] = drawn.to(folder.dtype).float()
  return state


@torch.no_grad()
def row_logits(model: torch.nn.Module, tokens: np.ndarray) -> np.ndarray:
  """[B, T, V] logits of every row alone; zero past its length."""
  rows = [model(input_ids=torch.tensor(row[None, :n])) for row, n in zip(tokens, LENGTHS)]
  logits = np.zeros((*tokens.shape, rows[0].logits.shape[-1]), np.float32)
  for row, output in enumerate(rows):
    logits[row, : LENGTHS[row]] = output.logits[0].numpy()
  return logits


@torch.no_grad()
def evenness(model: torch.nn.Module, tokens: np.ndarray) -> float:
  """Entropy of attention over that of even attention, averaged over queries that see much."""
  ratios = []
  for weights in model(input_ids=torch.tensor(tokens[:1]), output_attentions=True).attentions:
    entropy = -(weights * (weights + 1e-30).log()).sum(-1)[0, :, WINDOW:]
    ratios.append((entropy / (weights[0, :, WINDOW:] > 0).sum(-1).log()).mean())
  return float(torch.stack(ratios).mean())


def old_spelling(fields: dict, family: str, extra: dict) -> dict:
  """The same config as versions 4 wrote it, less what equals the family's defaults."""
  fields = copy.deepcopy(fields)
  defaults = CONFIG_MAPPING[family]().to_dict()
  rope = fields.pop("rope_parameters")
  fields.pop("layer_types", None)
  fields.pop("no_rope_layers", None)
  pattern = fields.pop("_sliding_window_pattern", None)
  kept = {name: value for name, value in fields.items() if value != defaults.get(name)}
  if family == "gemma3_text":
    kept["sliding_window_pattern"] = pattern
    kept["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
    rope = rope["full_attention"]
  kept["rope_theta"] = rope.pop("rope_theta")
  if rope["rope_type"] == "default":
    kept["rope_scaling"] = None
  else:
    # Files of before 4.43 say `type`.
    key = "type" if family == "llama" and rope["rope_type"] == "linear" else "rope_type"
    kept["rope_scaling"] = {key: rope.pop("rope_type")} | rope
  kept["torch_dtype"] = kept.pop("dtype", "float32")
  kept |= {"model_type": family, "transformers_version": "4.51.0"} | extra
  return dict(sorted(kept.items()))


def multimodal(fields: dict) -> dict:
  """A config with vision around that of the text model."""
  dtype = "torch_dtype" if "torch_dtype" in fields else "dtype"
  return {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "boi_token_index": 93,
    "eoi_token_index": 94,
    "image_token_index": 95,
    "eos_token_id": [1, 7],
    "mm_tokens_per_image": 4,
    "model_type": "gemma3",
    "text_config": {k: v for k, v in fields.items() if k not in ("architectures", dtype)},
    dtype: fields[dtype],
    "transformers_version": fields["transformers_version"],
    "vision_config": {
      "hidden_size": 8,
      "image_size": 28,
      "intermediate_size": 8,
      "model_type": "siglip_vision_model",
      "num_attention_heads": 1,
      "num_hidden_layers": 1,
      "patch_size": 14,
      "vision_use_head": False,
    },
  }


def write_json(path: Path, value: object, indent: int | None = 1) -> None:
  path.write_text(json.dumps(value, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")


def write_weights(root: Path, name: str, folder: Folder, state: dict[str, torch.Tensor]) -> None:
  tensors = {key: value.to(folder.dtype) for key, value in state.items()}
  if name == "gemma3_multimodal":
    tensors = {f"language_model.{key}": value for key, value in tensors.items()}
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(8, SIZES["hidden_size"], generator=generator).to(folder.dtype)
    tensors |= {
      "multi_modal_projector.mm_input_projection_weight": noise,
      "multi_modal_projector.mm_soft_emb_norm.weight": noise[:, 0].clone(),
      "vision_tower.vision_model.embeddings.position_embedding.weight": noise[:4, :8].clone(),
      "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight": noise[:, :8].clone(),
      "vision_tower.vision_model.encoder.layers.0.layer_norm1.weight": noise[:, 1].clone(),
    }
  if name == "llama_linear":  # Llama 2 files from before 4.3x hold this buffer.
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
  names = sorted(tensors)
  parts = np.array_split(np.array(names), folder.shards)
  files = [f"model-{i + 1:05}-of-{len(parts):05}.safetensors" for i in range(len(parts))]
  if folder.shards == 1:
    files = ["model.safetensors"]
  else:
    size = sum(value.numel() * value.element_size() for value in tensors.values())
    where = {str(key): file for part, file in zip(parts, files) for key in part}
    index = {"metadata": {"total_size": size}, "weight_map": where}
    write_json(root / "model.safetensors.index.json", index, indent=None)
  for part, file in zip(parts, files):
    save_file({str(key): tensors[key] for key in part}, root / file, metadata={"format": "pt"})
    (root / file).chmod(0o644)


def check_features(folder: Folder, state: dict, tokens: np.ndarray, logits: np.ndarray) -> None:
  """Every feature of the folder shows in its logits."""
  for feature, changes in folder.off.items():
    without = row_logits(make_model(make_config(folder, **changes), state), tokens)
    difference = np.abs(without - logits).max()
    assert difference > 1e-2, f"{feature} changes logits by {difference} only"
  for part in folder.neutral:
    neutral = 1.0 if "norm" in part and "gemma" not in folder.family else 0.0
    changed = {k: torch.full_like(v, neutral) if part in k else v for k, v in state.items()}
    without = row_logits(make_model(make_config(folder), changed), tokens)
    difference = np.abs(without - logits).max()
    assert difference > 1e-2, f"{part} changes logits by {difference} only"


def make_folder(name: str, seed: int) -> None:
  folder, root = FOLDERS[name], HERE / name
  shutil.rmtree(root, ignore_errors=True)
  root.mkdir(parents=True)
  config = make_config(folder)
  drawn = transformers.AutoModelForCausalLM.from_config(config)
  state = draw(drawn, folder, seed)
  rng = np.random.default_rng(seed)
  tokens = rng.integers(0, config.vocab_size, (len(LENGTHS), max(LENGTHS)), dtype=np.int32)
  for row, length in enumerate(LENGTHS):
    tokens[row, length:] = 0
  model = make_model(config, state)
  logits = row_logits(model, tokens)
  check_features(folder, state, tokens, logits)
  uneven = evenness(model, tokens)
  real = np.concatenate([logits[row, :n] for row, n in enumerate(LENGTHS)])
  assert real.std() >= 1 and uneven < 0.85 and max(LENGTHS) > 2 * max(WINDOW, ORIGINAL)

  config.dtype = folder.dtype
  config.architectures = [type(model).__name__]
  new = json.loads(config.to_json_string()) | {"transformers_version": transformers.__version__}
  old = old_spelling(new, folder.family, folder.extra)
  if name == "gemma3_multimodal":
    new, old = multimodal(new), multimodal(old)
  write_weights(root, name, folder, state)
  for file, fields in (("config_old", old), ("config_v5", new)):
    same = transformers.AutoConfig.for_model(**copy.deepcopy(fields)).get_text_config()
    same.dtype = torch.float32
    again = row_logits(make_model(same, state), tokens)
    np.testing.assert_array_equal(again, logits)
    preferred = file == ("config_old" if folder.old else "config_v5")
    write_json(root / f"{'config' if preferred else file}.json", fields)
  # The folder as transformers reads it, weights' names and shards included.
  loaded = transformers.AutoModelForCausalLM.from_pretrained(
    root, dtype=torch.float32, attn_implementation="eager"
  )
  np.testing.assert_array_equal(row_logits(loaded.eval(), tokens), logits)
  lengths = np.array(LENGTHS, np.int32)
  np.savez_compressed(root / "golden.npz", tokens=tokens, lengths=lengths, logits=logits)
  size = sum(path.stat().st_size for path in root.iterdir()) / 1e3
  print(f"{name}: logits' std {real.std():.2f}, evenness {uneven:.2f}, {size:.0f} kB")


if __name__ == "__main__":
  transformers.utils.logging.set_verbosity_error()
  transformers.utils.logging.disable_progress_bar()
  for number, folder_name in enumerate(FOLDERS):
    make_folder(folder_name, number)
