"""Makes tests/lm/goldens/decoders with torch and transformers (not needed by the tests).

  python3 -m venv /tmp/torchenv
  /tmp/torchenv/bin/pip install torch==2.13.0 transformers==5.23.0 safetensors
  /tmp/torchenv/bin/python tests/lm/make_decoder_goldens.py
  /tmp/torchenv/bin/python tests/lm/make_generation_goldens.py ../shared/models/stories260K

Each folder contains a tiny random decoder: `config.json` in the form chosen in `FOLDERS` (see
decoder_golden_folders.py), `config_old.json` or `config_v5.json` with the same in the other form,
and `golden.npz` with `tokens` [B, T], `lengths` [B] and `logits` [B, T, V] float32. Logits are
computed for each row alone, without padding, from the stored weights in float32; padding is zero.
The script fails if a feature of a folder does not change its logits, if attention is nearly
uniform, or if transformers reads the two forms differently. The second script adds tokenizers,
chats and generated tokens.
"""

import copy
import json
import math
import shutil
from pathlib import Path

import numpy as np
import torch
import transformers
from decoder_golden_folders import FOLDERS, LENGTHS, ORIGINAL, SIZES, WINDOW, Folder
from safetensors.torch import save_file
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

HERE = Path(__file__).parent / "goldens" / "decoders"
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
  """Draws weights with uneven attention and a wide range of logits, rounded to the stored dtype."""
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
        gain = 3.0  # Otherwise a tied head mostly repeats the input token.
      drawn = gain * noise / math.sqrt(value.shape[1])
    state[name] = drawn.to(folder.dtype).float()
  return state


@torch.no_grad()
def row_logits(model: torch.nn.Module, tokens: np.ndarray) -> np.ndarray:
  """[B, T, V] logits of each row alone; zero beyond its length."""
  rows = [model(input_ids=torch.tensor(row[None, :n])) for row, n in zip(tokens, LENGTHS)]
  logits = np.zeros((*tokens.shape, rows[0].logits.shape[-1]), np.float32)
  for row, output in enumerate(rows):
    logits[row, : LENGTHS[row]] = output.logits[0].numpy()
  return logits


@torch.no_grad()
def evenness(model: torch.nn.Module, tokens: np.ndarray) -> float:
  """Entropy of attention relative to uniform attention, averaged over queries with many keys."""
  ratios = []
  for weights in model(input_ids=torch.tensor(tokens[:1]), output_attentions=True).attentions:
    entropy = -(weights * (weights + 1e-30).log()).sum(-1)[0, :, WINDOW:]
    ratios.append((entropy / (weights[0, :, WINDOW:] > 0).sum(-1).log()).mean())
  return float(torch.stack(ratios).mean())


def old_spelling(fields: dict, family: str, extra: dict) -> dict:
  """The same config in the form of transformers 4, without the family's defaults."""
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
    # Files from before 4.43 use `type`.
    key = "type" if family == "llama" and rope["rope_type"] == "linear" else "rope_type"
    kept["rope_scaling"] = {key: rope.pop("rope_type")} | rope
  kept["torch_dtype"] = kept.pop("dtype", "float32")
  kept |= {"model_type": family, "transformers_version": "4.51.0"} | extra
  return dict(sorted(kept.items()))


def multimodal(fields: dict) -> dict:
  """Wraps the config of a text model in one with vision."""
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
  if name == "llama_linear":  # Llama 2 files from before 4.3x contain this buffer.
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
  """Asserts that each feature of the folder changes its logits."""
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
