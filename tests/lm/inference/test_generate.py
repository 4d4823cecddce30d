"""Generation: the cache against full passes, batches, budgets, ends, seeds, compiled programs."""

import dataclasses
import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers.paths import DECODER_GOLDENS as GOLDENS
from helpers.tiny_decoder import random_params, tiny_config, tiny_model

from gatrec_jax.errors import InputError
from gatrec_jax.lm.constraints.choices import token_trie
from gatrec_jax.lm.decoder.cache import Cache, with_room
from gatrec_jax.lm.decoder.model import Batch, forward, logits_of, run_decoder
from gatrec_jax.lm.folders.load import LanguageModel, load_decoder
from gatrec_jax.lm.inference.batching import bucket, plan
from gatrec_jax.lm.inference.decode import decode, prefill, prompt_cache
from gatrec_jax.lm.inference.generate import Speed, generate, warm_up
from gatrec_jax.lm.inference.sampling import Sampling

FOLDERS = sorted(path.name for path in GOLDENS.iterdir() if path.is_dir())
ORIGINAL = 16  # positions before the contexts of the goldens were stretched; windows are 8
# Lengths on both sides of a window of 8.
PROMPTS = [[1, 5, 9], [1, *range(20, 33)], [4, 4, 8, 17, 10], [7], [9, 8, 7, 6, 3, 60, 2, 11, 90]]
SAMPLED = Sampling(temperature=1.3, top_k=40, top_p=0.95)


@functools.cache
def load(name):
  return load_decoder(GOLDENS / name)


@functools.cache
def endless():
  """A random model of 24 tokens with a context of 32 and no end token."""
  return tiny_model(eos=(), tied=False)


def tokens_of(answers):
  return [answer.tokens for answer in answers]


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


@pytest.mark.parametrize("name", FOLDERS)
def test_greedy_batches_equal_full_passes_of_each_row(name):
  model = load(name)
  answers = generate(model, PROMPTS, max_tokens=16)
  # In the shape of the goldens, for which `forward` is compiled by other tests too.
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
  assert len(set(tokens_of(answers))) >= 4


def test_batch_size_does_not_change_answers():
  settings = {"max_tokens": 16, "sampling": SAMPLED, "seed": 4}
  together = generate(endless(), PROMPTS_24, **settings)
  assert generate(endless(), PROMPTS_24, **settings, batch_size=1) == together


def test_order_of_prompts_is_kept():
  prompts = [[3, 4, 5, 6] * n for n in (6, 1, 5, 2)]
  settings = {"max_tokens": 4, "batch_size": 2}
  answers = generate(endless(), prompts, **settings)
  assert [answer.prompt_tokens for answer in answers] == [24, 4, 20, 8]
  assert answers == generate(endless(), prompts[::-1], **settings)[::-1]


def test_each_row_has_its_own_max_tokens():
  model = endless()
  limits = [1, 7, 16, 2, 5]
  full = tokens_of(generate(model, PROMPTS_24, max_tokens=16))
  short = generate(model, PROMPTS_24, max_tokens=limits)
  assert tokens_of(short) == [row[:n] for row, n in zip(full, limits, strict=True)]
  assert {answer.finish for answer in short} == {"length"}
  with pytest.raises(InputError, match="2 limits of max_tokens for 5 prompts"):
    generate(model, PROMPTS_24, max_tokens=[1, 2])
  with pytest.raises(InputError, match="max_tokens=0: must be at least 1"):
    generate(model, PROMPTS_24, max_tokens=[1, 2, 0, 4, 5])


PROMPTS_24 = [[1, 5, 9], [1, 3, 20, 23], [4, 4, 8], [7], [9, 8, 7, 6, 3]]


def test_a_row_ends_at_an_end_token_and_the_others_go_on():
  model = endless()
  full = tokens_of(generate(model, PROMPTS_24, max_tokens=16))
  eos = (full[1][2], full[3][5])
  ending = dataclasses.replace(model, config=dataclasses.replace(model.config, eos=eos))
  answers = generate(ending, PROMPTS_24, max_tokens=16)
  for answer, row in zip(answers, full, strict=True):
    place = min((row.index(token) for token in eos if token in row), default=None)
    assert answer.tokens == row[:place]
    assert answer.finish == ("length" if place is None else "eos")
  assert len({len(answer.tokens) for answer in answers}) >= 3


def test_the_context_is_a_limit():
  model = endless()
  (answer,) = generate(model, [[5] * 28], max_tokens=16)
  assert len(answer.tokens) == 4 and answer.finish == "length"
  with pytest.raises(InputError, match="prompt 2 has 32 tokens, the model's context is 32"):
    generate(model, [[5], [5] * 32], max_tokens=16)
  with pytest.raises(InputError, match="truncate=right: not one of error, left"):
    generate(model, [[5]], truncate="right")


def test_truncation_keeps_the_end_and_the_bos_token():
  model = endless()
  prompt = [1, *np.random.default_rng(0).integers(3, 24, 40).tolist()]
  for given, kept in ((prompt, [1, *prompt[-21:]]), (prompt[1:], prompt[-22:])):
    (answer,) = generate(model, [given], max_tokens=10, truncate="left")
    (expected,) = generate(model, [kept], max_tokens=10)
    assert answer == dataclasses.replace(expected, truncated=len(given) - 22)
    assert len(answer.tokens) == 10 and answer.prompt_tokens == 22


def test_truncation_leaves_what_fits_alone():
  model = endless()
  (answer,) = generate(model, [[5, 6, 7]], max_tokens=16, truncate="left")
  assert (answer.prompt_tokens, answer.truncated) == (3, 0)
  # An answer without bounds does not eat the prompt.
  (answer,) = generate(model, [[5] * 16], max_tokens=1000, truncate="left")
  assert (answer.prompt_tokens, answer.truncated, len(answer.tokens)) == (16, 0, 16)


def test_an_empty_prompt_is_the_bos_token():
  model = endless()
  bare, empty, given = generate(model, ["", [], [1]], max_tokens=4)
  assert bare == empty == given and given.prompt_tokens == 1
  without = dataclasses.replace(model, config=dataclasses.replace(model.config, bos=None))
  with pytest.raises(InputError, match="the prompt is empty and the model has no BOS token"):
    generate(without, [""], max_tokens=4)


def test_without_a_tokenizer_ids_work():
  model = endless()
  (answer,) = generate(model, [[1, 4]], max_tokens=4, on_text=lambda row, text: 1 / 0)
  assert answer.text == "" and len(answer.tokens) == 4
  with pytest.raises(InputError, match="has no tokenizer, which texts need"):
    generate(model, ["text"])
  with pytest.raises(InputError, match="stop strings need a tokenizer"):
    generate(model, [[1]], stop=["."])
  for token in (-1, 24):
    with pytest.raises(InputError, match="prompt 2: a token id is not in 0 … 23"):
      generate(model, [[1], [3, token]])


def test_no_prompts():
  assert generate(endless(), []) == []


ENDED = dataclasses.replace(endless(), config=tiny_config(tied=False, eos=(2,)))


def test_constrained_answers_end_whole():
  model = ENDED
  wanted = [(3, 4, 5), (3, 4), (6,), (7, 8, 9, 10), (11, 3, 3)]
  trie = token_trie(wanted, vocabulary=24, eos=(2,))
  answers = generate(model, PROMPTS_24 * 3, max_tokens=4, sampling=SAMPLED, constraint=trie)
  assert {answer.finish for answer in answers} == {"complete"}
  assert set(tokens_of(answers)) <= set(wanted)
  # One token left is one token long, and of two tokens there is one only.
  short = generate(model, PROMPTS_24, max_tokens=[1, 2, 1, 2, 2], sampling=SAMPLED, constraint=trie)
  assert {answer.tokens for answer in short} <= {(6,), (3, 4)}
  assert short[0].tokens == short[2].tokens == (6,)


def test_each_row_has_its_own_constraint():
  model = ENDED
  wanted = [[(3, 5)], [(6,)], [(7, 7), (8, 8)], [(9,), (10,)], [(3, 5)]]
  tries = [token_trie(one, vocabulary=24, eos=(2,)) for one in wanted]
  answers = generate(model, PROMPTS_24, max_tokens=4, constraint=tries)
  for answer, allowed in zip(answers, wanted, strict=True):
    assert answer.tokens in allowed and answer.finish == "complete"
  with pytest.raises(InputError, match="2 constraints for 5 prompts"):
    generate(model, PROMPTS_24, constraint=tries[:2])
  with pytest.raises(InputError, match="prompt 3: the constraint needs at least 2 tokens, 1 are"):
    generate(model, PROMPTS_24, max_tokens=[2, 1, 1, 1, 2], constraint=tries)
  other = token_trie([(3,)], vocabulary=30, eos=(2,))
  with pytest.raises(InputError, match="made for 30 tokens, the model has 24"):
    generate(model, PROMPTS_24, constraint=other)


def test_seeds():
  model = endless()

  def draw(seed):
    return tokens_of(
      generate(model, PROMPTS_24, max_tokens=16, sampling=Sampling(temperature=1.0), seed=seed)
    )

  first = draw(0)
  assert first == draw(0)
  assert all(a != b for a, b in zip(first, draw(1), strict=True))


def test_every_step_and_row_has_a_fresh_key():
  config = tiny_config(eos=(), tied=False)
  params = random_params(config)
  params["head"]["kernel"] = jnp.zeros_like(params["head"]["kernel"])
  uniform = LanguageModel("uniform", None, config, params, None)
  answers = tokens_of(
    generate(uniform, [[1]] * 8, max_tokens=16, sampling=Sampling(temperature=1.0))
  )
  assert len(set(answers)) == 8
  drawn = np.array(answers)
  # 16 draws out of 24 hit 11.9 different ones on average, in each row and in each column of 8: 6.9.
  assert min(len(set(row)) for row in drawn.tolist()) >= 7
  assert min(len(set(column)) for column in drawn.T.tolist()) >= 4


@pytest.mark.parametrize(
  "sampling",
  (
    Sampling(temperature=0.7),
    Sampling(temperature=1.5, top_k=6),
    Sampling(temperature=1, top_p=0.8),
  ),
  ids=("temperature", "top_k", "top_p"),
)
def test_frequencies_are_those_of_the_softmax(sampling):
  model, count = endless(), 2048
  logits = np.asarray(forward(model.params, np.array([[1, 9, 4]]), config=model.config))[0, -1]
  weights = np.exp((logits - logits.max()) / sampling.temperature).astype(np.float64)
  order = np.argsort(-weights)
  weights[order[sampling.top_k or 24 :]] = 0
  before = np.cumsum(weights[order]) - weights[order]
  weights[order[before >= sampling.top_p * weights.sum()]] = 0
  answers = generate(
    model, [[1, 9, 4]] * count, max_tokens=1, sampling=sampling, batch_size=512, seed=3
  )
  seen = np.bincount([answer.tokens[0] for answer in answers], minlength=24)
  expected = count * weights / weights.sum()
  assert seen[expected == 0].sum() == 0
  rare = expected < 5
  pooled = [np.append(array[~rare], array[rare].sum()) for array in (seen, expected)]
  if pooled[1][-1] == 0:
    pooled = [array[:-1] for array in pooled]
  assert len(pooled[0]) >= 4
  assert scipy.stats.chisquare(*pooled).pvalue > 1e-3


def sizes():
  return prefill._cache_size(), decode._cache_size()


def test_calls_of_like_shapes_compile_nothing_new(caplog):
  model = endless()

  def trie(token):
    return token_trie([(3, token), (5, 6)], vocabulary=24, eos=())

  runs = [
    lambda n: generate(model, [[n]] * n, max_tokens=15 + n % 2, seed=n),
    lambda n: generate(
      model,
      [[4] * n],
      max_tokens=16 - n,
      sampling=Sampling(
        temperature=0.5 + 0.1 * n, top_k=n, top_p=0.9 - 0.01 * n, repetition_penalty=1 + 0.1 * n
      ),
    ),
    lambda n: generate(model, [[4] * n], max_tokens=[n], constraint=trie(n)),
  ]
  for run in runs:
    run(7)
  before = sizes()
  with jax.log_compiles(), caplog.at_level(logging.WARNING):
    for run in runs:
      run(8)
  assert sizes() == before
  slow = [line.getMessage() for line in caplog.records if "Compiling" in line.getMessage()]
  assert not [line for line in slow if "prefill" in line or "decode" in line]


def test_after_warming_up_nothing_is_compiled():
  model = endless()
  kinds = {"max_tokens": 20, "batch_size": 3}  # batches of 3 and 2
  before = sizes()
  assert warm_up(model, PROMPTS_24, **kinds) > 0
  after = sizes()
  assert after == (before[0] + 2, before[1] + 2)
  generate(model, PROMPTS_24, **kinds)
  assert sizes() == after


def test_buckets():
  assert [bucket(n) for n in (1, 16, 17, 24, 25, 33, 49, 64, 65, 97, 129)] == [
    16,
    16,
    24,
    24,
    32,
    48,
    64,
    64,
    96,
    128,
    192,
  ]
  for length in range(1, 3000):
    assert length <= bucket(length) <= max(16, 1.5 * length)


def test_plans_hold_every_prompt_once():
  lengths, limits = [3, 40, 17, 5, 90, 16, 41], [5, 1, 30, 2, 2, 9, 1]
  groups = plan(lengths, limits, batch_size=3)
  assert sorted(row for group in groups for row in group.rows) == list(range(7))
  for group in groups:
    assert len(group.rows) <= group.batch <= 3
    assert max(lengths[row] for row in group.rows) <= group.length
    assert max(limits[row] for row in group.rows) <= group.room
    assert group.slots >= group.length + group.room - 1
  # Prompts of like lengths stand beside each other.
  assert [group.rows for group in groups] == [(0, 3, 5), (2, 1, 6), (4,)]
  with pytest.raises(InputError, match="batch_size=0: must be at least 1"):
    plan(lengths, limits, batch_size=0)


def test_speed_and_progress_count_real_tokens():
  speed, done = Speed(), []
  generate(
    endless(),
    PROMPTS_24,
    max_tokens=[1, 7, 16, 2, 5],
    speed=speed,
    on_done=done.append,
    batch_size=2,
  )
  assert speed.prompt_tokens == sum(map(len, PROMPTS_24)) and speed.new_tokens == 31 - 5
  assert done == [2, 2, 1]
  assert speed.prefill_seconds > 0 and speed.decode_seconds > 0
  assert f"decode {speed.new_tokens} tokens" in speed.line()
