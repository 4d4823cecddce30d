"""Packed matrices, and models whose weights stay packed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.gguf_files import bpe_fields, write_gguf
from helpers.packed_matrices import inputs, matrix_of
from helpers.paths import DECODER_GOLDENS as GOLDENS

from gatrec_jax.errors import InputError
from gatrec_jax.lm.decoder import packed
from gatrec_jax.lm.decoder.model import forward, logits_of
from gatrec_jax.lm.decoder.packed import Packed
from gatrec_jax.lm.finetune.examples import text_example
from gatrec_jax.lm.finetune.lora import merge_lora
from gatrec_jax.lm.finetune.run import FinetuneConfig, finetune
from gatrec_jax.lm.folders.export import export_folder
from gatrec_jax.lm.folders.gguf import read_gguf
from gatrec_jax.lm.folders.gguf_blocks import _READERS
from gatrec_jax.lm.folders.load import load_decoder, weight_bytes
from gatrec_jax.lm.inference.generate import generate

TOKENS = np.arange(24, dtype=np.int32).reshape(2, 12)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
  """The same file, dequantized and packed; embedding and head are packed, too."""
  path = tmp_path_factory.mktemp("gguf") / "qwen.gguf"
  fields = bpe_fields(GOLDENS / "qwen2", cut="qwen2") | {"tokenizer.ggml.eos_token_id": 2}
  write_gguf(GOLDENS / "qwen2", path, kind="Q4_0", more=fields)
  return load_decoder(path), load_decoder(path, quantize="keep")


@pytest.mark.parametrize("kind", _READERS)
def test_values_are_those_of_the_file(kind):
  matrix, values = matrix_of(kind)
  assert matrix.shape == values.shape and matrix.size == values.size
  np.testing.assert_array_equal(packed.dequantized(matrix), values.T)
  np.testing.assert_array_equal(packed.dequantized(matrix.rows(np.array([5, 0]))), values[[5, 0]].T)


def test_logits_equal_those_of_dequantized_weights(models):
  plain, kept = models
  run = functools.partial(forward, config=plain.config)
  expected, found = run(plain.params, TOKENS), run(kept.params, TOKENS)
  np.testing.assert_allclose(found, expected, atol=2e-5)
  hidden = inputs(2, plain.config.width)
  some = jnp.array([7, 1])
  np.testing.assert_allclose(
    logits_of(kept.params, hidden, config=kept.config, tokens=some),
    logits_of(plain.params, hidden, config=plain.config)[:, [7, 1]],
    atol=2e-5,
  )


def test_answers_equal_those_of_dequantized_weights(models):
  expected, found = (generate(model, ["A film."], max_tokens=8)[0] for model in models)
  assert found.tokens == expected.tokens


def test_the_size_of_kept_weights(models):
  plain, kept = models
  leaves = jax.tree.leaves(kept.params, is_leaf=lambda leaf: isinstance(leaf, Packed))
  matrices = [leaf for leaf in leaves if isinstance(leaf, Packed)]
  # Rows of `down` have 24 numbers, which make no block.
  assert len(matrices) == 1 + 6 * len(kept.config.layers) and kept.config.tied
  assert kept.parameters == plain.parameters
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(kept.params))
  assert size < 0.4 * sum(leaf.nbytes for leaf in jax.tree.leaves(plain.params))


def test_the_size_is_known_before(tmp_path):
  path = write_gguf(GOLDENS / "gemma2", tmp_path / "gemma.gguf", kind="Q5_1")
  kept = load_decoder(path, quantize="keep")
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(kept.params))
  for dtype in ("float32", "bfloat16"):
    known = weight_bytes(kept.config, dtype=dtype, quantize="keep", file=read_gguf(path))
    assert known <= size and (known == size) == (dtype == "float32")


@pytest.mark.parametrize("name", ["llama_default", "gemma3_text", "smollm3"])
def test_rows_in_another_order_and_other_norms(tmp_path, name):
  # The rows of llamas are reordered; of gemmas the norms change, and matrices of 48 stay floats.
  path = write_gguf(GOLDENS / name, tmp_path / "model.gguf", kind="Q5_0")
  plain, kept = load_decoder(path), load_decoder(path, quantize="keep")
  tokens = TOKENS % plain.config.vocabulary
  run = functools.partial(forward, config=plain.config)
  np.testing.assert_allclose(run(kept.params, tokens), run(plain.params, tokens), atol=5e-5)


def test_adapters_are_trained_on_packed_weights(models, tmp_path):
  plain, kept = models
  config = FinetuneConfig(mode="lora", steps=3, batch_size=2, learning_rate=1e-2)
  losses = []
  for number, model in enumerate((plain, kept)):
    examples = [text_example(model, "A film", " is good."), text_example(model, "the", " end")]
    tuned = finetune(model, examples, config, workdir=tmp_path / str(number))
    leaves = jax.tree.leaves(tuned.lora.params)
    losses.append(np.concatenate([np.ravel(leaf) for leaf in leaves]))
  np.testing.assert_allclose(losses[1], losses[0], atol=2e-4)
  with pytest.raises(InputError, match="adapters cannot be merged into quantized weights"):
    merge_lora(kept.params, tuned.lora)


def test_what_needs_other_weights_says_so(models, tmp_path):
  kept = models[1]
  with pytest.raises(InputError, match="its weights are packed; load it with `quantize=none`"):
    export_folder(kept, tmp_path / "out")
  assert not (tmp_path / "out").exists()
  full = FinetuneConfig(mode="full", steps=1, batch_size=1)
  with pytest.raises(InputError, match="mode=full: packed weights cannot be trained"):
    finetune(kept, [text_example(kept, "A film", " is")], full, workdir=tmp_path / "full")
  with pytest.raises(InputError, match="quantize=keep: is for GGUF files"):
    load_decoder(GOLDENS / "qwen2", quantize="keep")
