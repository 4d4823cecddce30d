"""Decoding with a cache against transformers and against full passes, for every model family."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.paths import DECODER_GOLDENS as GOLDENS

from gatrec_jax.lm.decoder.cache import Cache, with_room
from gatrec_jax.lm.decoder.model import Batch, forward, logits_of, run_decoder
from gatrec_jax.lm.folders.load import load_decoder
from gatrec_jax.lm.inference.decode import prompt_cache
from gatrec_jax.lm.inference.generate import generate

FOLDERS = sorted(path.name for path in GOLDENS.iterdir() if path.is_dir())
# Soft-caps and windows; two ropes and windows in some layers; layers without rope.
VARIED = ("gemma2", "gemma3_text", "smollm3")
ORIGINAL = 16  # positions before the contexts of the goldens were extended; windows are 8
# Lengths on both sides of a window of 8.
PROMPTS = [[1, 5, 9], [1, *range(20, 33)], [4, 4, 8, 17, 10], [7], [9, 8, 7, 6, 3, 60, 2, 11, 90]]


@functools.cache
def load(name):
  return load_decoder(GOLDENS / name)


# Run once a shape: quickly compiled is better than fast.
@functools.partial(
  jax.jit,
  static_argnames=("config", "prompt"),
  compiler_options={"xla_backend_optimization_level": 0},
)
def cached_logits(params, tokens, lengths, *, config, prompt):
  """Logits [B, N, V] of every token after the first `lengths` of each row, one token at a time.

  The first `prompt` columns are run as padded prompts; from there on every row writes its next
  token into the same slot, as `decode` does.
  """
  hidden, cache = prompt_cache(params, tokens[:, :prompt], lengths, config=config)
  steps = tokens.shape[1] - prompt
  cache = with_room(cache, prompt + steps)

  def step(cache, number):
    positions = (lengths + number)[:, None]
    token = jnp.take_along_axis(tokens, positions, axis=1)
    slot = prompt + number
    filled = jax.lax.dynamic_update_slice(cache.positions, positions, (0, slot))
    batch = Batch(positions, jnp.ones_like(lengths), None, slot, filled)
    hidden, present = run_decoder(params, token, batch, config=config, past=cache)
    cache = Cache(*map(tuple, zip(*present, strict=True)), filled)
    return cache, logits_of(params, hidden[:, 0], config=config)

  first = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)[:, 0]
  _, rest = jax.lax.scan(step, cache, jnp.arange(steps))
  return jnp.concatenate([logits_of(params, first, config=config)[None], rest]).swapaxes(0, 1)


@pytest.mark.parametrize("name", FOLDERS)
def test_every_cached_step_equals_transformers(name):
  model = load(name)
  with np.load(GOLDENS / name / "golden.npz", allow_pickle=False) as golden:
    tokens, expected, lengths = golden["tokens"], golden["logits"], golden["lengths"]
  assert lengths[0] == tokens.shape[1] == 36 > 2 * ORIGINAL  # and more than four windows
  starts = np.array([12, 16, 3], np.int32)
  logits = cached_logits(model.params, tokens, starts, config=model.config, prompt=16)
  assert logits.dtype == jnp.float32
  for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
    # The step after `start + k` tokens has the logits of position `start + k - 1`.
    count = min(length - start + 1, logits.shape[1])
    np.testing.assert_allclose(
      logits[row, :count], expected[row, start - 1 : start - 1 + count], rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("name", VARIED)
def test_greedy_batches_equal_full_passes_of_each_row(name):
  model = load(name)
  answers = generate(model, PROMPTS, max_tokens=16)
  rows, lengths = np.zeros((6, 36), np.int32), np.ones(6, np.int32)
  for place, (prompt, answer) in enumerate(zip(PROMPTS, answers, strict=True)):
    lengths[place] = len(prompt) + len(answer.tokens)
    rows[place, : lengths[place]] = [*prompt, *answer.tokens]
  best = np.concatenate(
    [
      forward(model.params, rows[part], config=model.config, lengths=lengths[part]).argmax(axis=-1)
      for part in (slice(3), slice(3, 6))
    ]
  )
  for prompt, answer, row in zip(PROMPTS, answers, best, strict=False):
    following = row[len(prompt) - 1 : len(prompt) + len(answer.tokens)].tolist()
    assert tuple(following[:-1]) == answer.tokens
    assert answer.finish in ("eos", "length")
    if answer.finish == "eos":
      assert following[-1] in model.eos
    else:
      assert len(answer.tokens) == 16
    assert not set(answer.tokens) & set(model.eos)
  assert len({answer.tokens for answer in answers}) >= 4
