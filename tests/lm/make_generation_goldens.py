"""Adds tokenizers, chats, continuations and distributions to tests/lm/goldens/decoders.

Run after make_decoder_goldens.py, which says how; not needed by the tests.

`qwen2` and `llama_default` get a tokenizer and `chat.json`, chats rendered by transformers with the
chat template. `qwen2/generate.npz` has a `prompt` [P] and the token ids with which `generate` of
transformers continues it: `greedy` [12], and `penalised` [12] with a repetition `penalty`.
`sampling.npz` has `probabilities` [S, B, V] that its processors compute from `logits` [B, V] and
the tokens seen before, `ids` [B, P], for each of the S `settings` (JSON). `stories260K.npz` has
`tokens` [2, T] and `logits` [2, T, V] of the real model, whose weights are not committed.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from make_decoder_goldens import HERE, write_json
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import generation

CHATML = """{%- if messages[0].role != 'system' %}
{{- '<|im_start|>system\\nYou recommend films.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content | trim + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
INST = (
  "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
  "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
  "{{ ' ' + message['content'] + eos_token }}{% else %}"
  "{{ raise_exception('only user and assistant turns') }}{% endif %}{% endfor %}"
)
TEXTS = [
  "Led by a quiet astronomer, four strangers cross the frozen strait to find the last keeper.",
  "I liked slow films: drama, mystery. Die Brücke, 1945 – kein Weg zurück…",
]
CHATS = [
  [{"role": "user", "content": "I liked slow films. "}],
  [
    {"role": "user", "content": "a mystery,\nor a drama?"},
    {"role": "assistant", "content": "Die Brücke, 1945"},
    {"role": "user", "content": "  find the last"},
  ],
]
SYSTEM = [{"role": "system", "content": "four strangers"}, {"role": "user", "content": "find"}]


def write_tokenizer(root: Path, *, chatml: bool) -> None:
  """A tokenizer with its chat template: in a file of its own (chatml), or in the config."""
  if chatml:
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fields = {"eos_token": specials[2], "pad_token": specials[0]}
    (root / "chat_template.jinja").write_text(CHATML, encoding="utf-8")
  else:
    specials = ["<unk>", "<s>", "</s>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    fields = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    fields["chat_template"] = INST
  size = 128 if chatml else 96
  added = [AddedToken(token, special=True, normalized=False) for token in specials]
  trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=added, show_progress=False)
  letters = ["\n"] if chatml else ["[/INST]\n"]
  tokenizer.train_from_iterator(TEXTS + letters, trainer)
  if not chatml:
    tokenizer.post_processor = processors.TemplateProcessing(
      single="<s> $A", special_tokens=[("<s>", 1)]
    )
  tokenizer.save(str(root / "tokenizer.json"))
  fields |= {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
  write_json(root / "tokenizer_config.json", fields | {"model_max_length": 128})
  assert tokenizer.get_vocab_size() <= size
  loaded = transformers.AutoTokenizer.from_pretrained(root)
  cases = []
  for messages in CHATS + ([SYSTEM] if chatml else []):
    for prompt in (False, True):
      arguments = dict(tokenize=False, add_generation_prompt=prompt)
      text = loaded.apply_chat_template(messages, **arguments)
      ids = loaded(text, add_special_tokens=False).input_ids
      cases.append(dict(messages=messages, add_generation_prompt=prompt, text=text, ids=ids))
  write_json(root / "chat.json", cases, indent=None)


def load_model(root: Path) -> transformers.PreTrainedModel:
  model = transformers.AutoModelForCausalLM.from_pretrained(
    root, dtype=torch.float32, attn_implementation="eager"
  )
  return model.eval()


@torch.no_grad()
def make_generate(root: Path) -> None:
  """Greedy continuations of a prompt, one with a repetition penalty."""
  model = load_model(root)
  prompt = np.random.default_rng(14).integers(3, 128, 9, dtype=np.int32)
  arrays = {"prompt": prompt, "penalty": np.float32(1.3)}
  for name, penalty in (("greedy", 1.0), ("penalised", 1.3)):
    output = model.generate(
      torch.tensor(prompt[None]),
      attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
      max_new_tokens=12,
      do_sample=False,
      repetition_penalty=penalty,
      eos_token_id=-1,  # never drawn, so that there are 12 tokens
      pad_token_id=0,
      output_scores=True,
      return_dict_in_generate=True,
    )
    best = torch.stack(output.scores)[:, 0].topk(2).values
    margin = float((best[:, 0] - best[:, 1]).min())
    assert margin > 1e-2, margin
    arrays[name] = output.sequences[0, len(prompt) :].numpy().astype(np.int32)
    print("generate", name, arrays[name].tolist(), f"margin {margin:.3f}")
  assert (arrays["greedy"] != arrays["penalised"]).any()
  np.savez_compressed(root / "generate.npz", **arrays)


SETTINGS = [
  dict(temperature=0.3),
  dict(temperature=1.7),
  dict(top_k=1),
  dict(top_k=7),
  dict(top_p=0.3),
  dict(top_p=0.9),
  dict(min_p=0.05),
  dict(min_p=0.5),
  dict(repetition_penalty=1.3),
  dict(repetition_penalty=0.7),
  dict(temperature=0.7, top_k=20, top_p=0.8),
  dict(temperature=1.4, top_p=0.95, min_p=0.02),
  dict(temperature=0.9, top_k=12, top_p=0.85, min_p=0.1, repetition_penalty=1.2),
]


def make_sampling() -> None:
  """Distributions after the processors, in the order in which `generate` applies them."""
  kinds = {
    "repetition_penalty": generation.RepetitionPenaltyLogitsProcessor,
    "temperature": generation.TemperatureLogitsWarper,
    "top_k": generation.TopKLogitsWarper,
    "top_p": generation.TopPLogitsWarper,
    "min_p": generation.MinPLogitsWarper,
  }
  rng = np.random.default_rng(2)
  scale = np.array([[0.1], [1.0], [2.0], [4.0], [8.0]])
  logits = (scale * rng.standard_normal((5, 50))).astype(np.float32)
  ids = rng.integers(0, 50, (5, 12), dtype=np.int32)
  probabilities = []
  for setting in SETTINGS:
    scores = torch.tensor(logits)
    for name, kind in kinds.items():
      if name in setting:
        scores = kind(setting[name])(torch.tensor(ids).long(), scores)
    probabilities.append(scores.softmax(-1).numpy())
  np.savez_compressed(
    HERE / "sampling.npz",
    settings=np.array(json.dumps(SETTINGS)),
    logits=logits,
    ids=ids,
    probabilities=np.stack(probabilities),
  )


@torch.no_grad()
def make_stories(folder: Path) -> None:
  """Logits of the real model, whose weights are not committed."""
  tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
  texts = [
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park.",
    "The old dog sat by the door and waited. Then he heard a big noise and ran to the tree.",
  ]
  tokens = np.array([tokenizer(text).input_ids[:24] for text in texts], np.int32)
  logits = load_model(folder)(input_ids=torch.tensor(tokens)).logits.numpy()
  np.savez_compressed(HERE / "stories260K.npz", tokens=tokens, logits=logits)


if __name__ == "__main__":
  transformers.utils.logging.set_verbosity_error()
  transformers.utils.logging.disable_progress_bar()
  write_tokenizer(HERE / "qwen2", chatml=True)
  write_tokenizer(HERE / "llama_default", chatml=False)
  make_generate(HERE / "qwen2")
  make_sampling()
  make_stories(Path(sys.argv[1]))
