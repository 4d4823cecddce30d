"""All device programs lower for GPU and TPU, on a machine that has neither."""

import jax
import jax.numpy as jnp
import pytest
from helpers.paths import DECODER_GOLDENS as GOLDENS
from jax import export

from gatrec_jax.lm.decoder.config import read_decoder_config
from gatrec_jax.lm.decoder.model import forward, init_params
from gatrec_jax.lm.inference.decode import decode, prefill
from gatrec_jax.lm.inference.sampling import Sampling, make_sampler

PLATFORMS = ("cuda", "tpu")


@pytest.mark.parametrize("family", ["qwen2", "gemma2"])
def test_programs_lower(family):
  config = read_decoder_config(GOLDENS / family)
  params = jax.eval_shape(lambda key: init_params(key, config, "bfloat16"), jax.random.key(0))

  def shape(dims, dtype=jnp.int32):
    return jax.ShapeDtypeStruct(dims, dtype)

  sampler = make_sampler(Sampling(temperature=0.7, top_p=0.9, repetition_penalty=1.1))
  keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 4))
  shared = {"config": config, "sampler": sampler, "constraint": None, "eos": jnp.array([1])}

  def start(params, prompts, lengths, limits, keys):
    return prefill(params, prompts, lengths, limits, keys, node=None, slots=48, room=16, **shared)

  arguments = (params, shape((4, 32)), shape((4,)), shape((4,)), keys)
  state = jax.eval_shape(start, *arguments)

  def go_on(params, state, until):
    return decode(params, state, until, prompt_slots=32, **shared)

  def logits(params, tokens):
    return forward(params, tokens, config=config)

  for function, inputs in ((start, arguments), (go_on, (params, state, shape(())))):
    lowered = jax.jit(function).trace(*inputs).lower(lowering_platforms=PLATFORMS)
    assert "stablehlo" in lowered.as_text()
    del lowered
  exported = export.export(jax.jit(logits), platforms=PLATFORMS)(params, shape((4, 160)))
  assert exported.platforms == PLATFORMS
