"""Small decoders trained from scratch: complete folders, reproducible, resumable."""

import json
import signal

import numpy as np
import pytest
from helpers.tiny_decoder import leaves_by_path, mean_target_loss

from gatrec_jax.errors import InputError, Interrupted
from gatrec_jax.lm.decoder.model import forward
from gatrec_jax.lm.finetune.from_scratch import (
  BOS,
  EOS,
  build_small,
  text_examples,
  train_tokenizer,
)
from gatrec_jax.lm.finetune.packing import one_per_row
from gatrec_jax.lm.folders.load import load_decoder
from gatrec_jax.lm.tokens.chat import render_chat
from gatrec_jax.runs.log import Recorder

TEXTS = [
  f"User {user} liked {film} ({1950 + user}). Answer:<|yes|>"
  for user in range(12)
  for film in ("Green River", "Paper Moon", "Night Train — Zürich")
]
QUICK = dict(
  vocabulary=320,
  width=16,
  layers=1,
  heads=2,
  kv_heads=1,
  inner=24,
  context=32,
  extra_tokens=("<|yes|>", "<|no|>", "A"),
  steps=24,
  batch_size=4,
  learning_rate=2e-2,
)


def files(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
  folder = tmp_path_factory.mktemp("small") / "model"
  return build_small(TEXTS, folder, **QUICK), folder


def test_the_folder_is_an_ordinary_model_folder(built):
  model, folder = built
  assert sorted(path.name for path in folder.parent.iterdir()) == ["model"]
  fields = json.loads((folder / "config.json").read_text())
  assert fields["model_type"] == "llama" and fields["architectures"] == ["LlamaForCausalLM"]
  assert (fields["hidden_size"], fields["num_hidden_layers"]) == (16, 1)
  assert 259 < fields["vocab_size"] == len(model.tokenizer) <= 320
  again = load_decoder(folder)
  assert again.config == model.config
  ours, theirs = leaves_by_path(model.params), leaves_by_path(again.params)
  assert all(np.array_equal(ours[path], theirs[path]) for path in ours)
  assert (again.bos, again.eos, again.config.pad) == (0, (1,), 2)


def test_the_tokenizer_encodes_any_text(built):
  model, _ = built
  for text in (*TEXTS[:3], "日本 🎬\n\ttabs  and  spaces", "A Apple<|no|>"):
    ids = model.tokenizer.encode(text)
    assert ids[0] == model.bos
    assert model.tokenizer.decode(ids[1:]) == text
    assert model.tokenizer.decode(ids, skip_special_tokens=True) == text
  for token in QUICK["extra_tokens"]:
    assert len(model.tokenizer.encode(token, add_special_tokens=False)) == 1
  yes = model.tokenizer.convert_tokens_to_ids("<|yes|>")
  assert model.tokenizer.encode("moon<|yes|>ship").count(yes) == 1


def test_the_chat_template_begins_with_the_bos_token(built):
  model, _ = built
  messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Which?"}]
  rendered = render_chat(model.tokenizer, messages)
  assert rendered == "<|bos|>system:\nBe brief.\nuser:\nWhich?\nassistant:\n"
  assert model.tokenizer.encode(rendered, add_special_tokens=False).count(model.bos) == 1
  turns = [*messages, {"role": "assistant", "content": "A"}]
  assert model.tokenizer.apply_chat_template(turns, tokenize=False).endswith("assistant:\nA<|eos|>")


def test_the_model_has_learned(built):
  model, _ = built
  examples = text_examples(model.tokenizer.backend_tokenizer, TEXTS, context=32)
  rows, _ = one_per_row(examples, row_tokens=32, pad=model.config.pad)
  logits = forward(model.params, rows.tokens, config=model.config)
  loss = mean_target_loss(logits, rows.tokens, rows.where).mean()
  assert loss < 0.7 * np.log(model.config.vocabulary)


def test_stopped_and_resumed_gives_the_same_folder(built, tmp_path):
  _, folder = built
  stale = tmp_path / ".model.0000aaaa.training"
  stale.mkdir()
  calls = iter(range(1, 100))
  with pytest.raises(Interrupted):
    build_small(
      TEXTS, tmp_path / "model", stop=lambda: signal.SIGINT * (next(calls) == 13), **QUICK
    )
  assert not (tmp_path / "model").exists() and not stale.exists()
  assert len(list(tmp_path.iterdir())) == 1
  said = []
  build_small(TEXTS, tmp_path / "model", log=Recorder(said), **QUICK)
  assert any("resumed from the checkpoint of step 13" in line for line in said)
  assert files(tmp_path / "model") == files(folder)
  assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_long_texts_are_split():
  tokenizer = train_tokenizer(["ab"] * 8, vocabulary=259)
  first, second = text_examples(tokenizer, ["abcde"], context=4)
  ids = tokenizer.encode("abcde", add_special_tokens=False).ids
  assert (first.prompt, first.completion) == ([0], ids[:3])
  assert (second.prompt, second.completion) == ([0], [*ids[3:], 1])


@pytest.mark.parametrize(
  ("texts", "fields", "message"),
  [
    ([], {}, "got 0 texts that are not empty; at least 8"),
    (["one", " "] * 7, {}, "got 7 texts that are not empty; at least 8"),
    (TEXTS, {"vocabulary": 261}, "vocabulary=261: must be at least 262"),
    (TEXTS, {"heads": 3}, "heads=3 .*width must be a multiple of 2·heads"),
    (TEXTS, {"kv_heads": 0}, "kv_heads=0"),
    (TEXTS, {"extra_tokens": ("<|x|>", "<|x|>")}, "extra token '<|x|>': cannot be a single token"),
    (TEXTS, {"extra_tokens": ("",)}, "extra token '': cannot be a single token"),
    (TEXTS, {"extra_tokens": ("<|eos|>",)}, "extra token '<|eos|>': cannot be a single token"),
  ],
)
def test_invalid_input_is_reported(tmp_path, texts, fields, message):
  with pytest.raises(InputError, match=message.replace("|", r"\|")):
    build_small(texts, tmp_path / "model", **(QUICK | fields))
  assert not any(tmp_path.iterdir())


def test_a_folder_with_other_files_is_not_touched(tmp_path):
  (tmp_path / "notes.txt").write_text("mine")
  with pytest.raises(InputError, match="not empty and not an earlier export"):
    build_small(TEXTS, tmp_path, **QUICK)
  assert files(tmp_path) == {"notes.txt": b"mine"}


def test_texts_that_spell_special_tokens_do_not_get_them():
  tokenizer = train_tokenizer(["Film: drama."] * 8, vocabulary=300, extra_tokens=[": Heat\n"])
  text = f"a {EOS} b {BOS}: Heat\nliked: Heat\n"
  heat = tokenizer.token_to_id(": Heat\n")
  (one,) = text_examples(tokenizer, [text], context=99)
  assert set(one.completion[:-1]).isdisjoint({0, 1, 2}) and one.completion.count(heat) == 2
  data = [(0, text.index("liked") + 5)]
  (one,) = text_examples(tokenizer, [text], context=99, data_of=lambda _: data)
  assert set(one.completion[:-1]).isdisjoint({0, 1, 2}) and one.completion.count(heat) == 1
  assert tokenizer.decode(one.completion[:-1], skip_special_tokens=False) == text
