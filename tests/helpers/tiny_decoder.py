"""Decoders that are small enough to train within a test, and their losses in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.lm.decoder.config import DecoderConfig, Layer
from gatrec_jax.lm.decoder.model import init_params
from gatrec_jax.lm.decoder.rope import Rope
from gatrec_jax.lm.folders.load import LanguageModel


def tiny_config(**fields):
  """A llama layout of width 16 with two layers."""
  return DecoderConfig(
    **{
      "family": "llama",
      "vocabulary": 24,
      "width": 16,
      "inner": 24,
      "heads": 4,
      "kv_heads": 2,
      "head_size": 4,
      "layers": (Layer(window=None, rope=Rope()),) * 2,
      "context": 32,
      "tied": True,
      "query_scale": 0.5,
      "bos": 1,
      "eos": (2,),
      "pad": 0,
      **fields,
    }
  )


def random_params(config, dtype="float32"):
  """Random parameters, drawn on the host so that nothing is compiled."""
  random = np.random.default_rng(7)

  def draw(shape):
    noise = random.normal(size=shape.shape)
    value = noise / shape.shape[-1] ** 0.5 if noise.ndim > 1 else 1 + 0.1 * noise
    return value.astype(np.float32).astype(jnp.dtype(dtype))

  shapes = jax.eval_shape(lambda key: init_params(key, config), jax.random.key(0))
  return jax.device_put(jax.tree.map(draw, shapes))


def tiny_model(dtype="float32", **fields):
  """A model with random weights and without a tokenizer."""
  config = tiny_config(**fields)
  return LanguageModel("tiny", None, config, random_params(config, dtype), None, dtype)


def mean_target_loss(logits, tokens, where):
  """[B] mean of −log p over the targets of each row; 0 for a row without targets.

  Args: logits: [B, T, V]; those at t − 1 predict token t. tokens: [B, T]. where: [B, T] bool.
  """
  logits, where = np.asarray(logits, np.float64)[:, :-1], np.asarray(where)[:, 1:]
  chosen = np.take_along_axis(logits, np.asarray(tokens)[:, 1:, None], axis=-1)[..., 0]
  highest = logits.max(axis=-1)
  losses = np.log(np.exp(logits - highest[..., None]).sum(axis=-1)) + highest - chosen
  return np.where(where, losses, 0).sum(axis=1) / np.maximum(where.sum(axis=1), 1)


def leaves_by_path(tree):
  """{"a/b/c": array}."""
  return {
    "/".join(key.key for key in path): np.asarray(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }
