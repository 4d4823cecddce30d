"""Decoders with known answers: each token has a single successor."""

import jax
import numpy as np
from helpers.tiny_decoder import random_params, tiny_config

from gatrec_jax.lm.folders.load import LanguageModel


def scripted_model(tokenizer, *scripts, vocabulary=None, **fields):
  """A model that continues each of `scripts`: token lists in which a token has one successor.

  The successor has a logit of about 80, all other tokens 0.
  """
  vocabulary = vocabulary or len(tokenizer)
  own = {"vocabulary": vocabulary, "width": vocabulary, "tied": False}
  config = tiny_config(**own, **{"layers": tiny_config().layers[:1], **fields})
  params = random_params(config)
  for layer in range(len(config.layers)):
    for block, name in (("attention", "o"), ("mlp", "down")):
      kernel = params[f"layer_{layer}"][block][name]["kernel"]
      params[f"layer_{layer}"][block][name]["kernel"] = np.zeros_like(kernel)
  head = np.zeros((vocabulary, vocabulary), np.float32)
  for script in scripts:
    for token, following in zip(script, script[1:], strict=False):
      assert head[:, token].sum() == head[following, token], f"{token} has two successors"
      head[following, token] = 4.0
  params["embed"]["embedding"] = np.eye(vocabulary, dtype=np.float32)
  params["final_norm"]["scale"] = np.ones(vocabulary, np.float32)
  params["head"]["kernel"] = head
  params = jax.device_put(params)
  return LanguageModel("scripted", None, config, params, tokenizer)
