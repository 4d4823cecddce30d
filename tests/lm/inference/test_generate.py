"""Generation: batches, token limits, ends of answers, constraints, seeds, compiled programs."""

import dataclasses
import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers.tiny_decoder import tiny_config, tiny_model

from gatrec_jax.errors import InputError
from gatrec_jax.lm.constraints.choices import token_trie
from gatrec_jax.lm.decoder.model import forward
from gatrec_jax.lm.inference.decode import decode, prefill
from gatrec_jax.lm.inference.generate import Speed, generate, warm_up
from gatrec_jax.lm.inference.sampling import Sampling

PROMPTS = [[1, 5, 9], [1, 3, 20, 23], [4, 4, 8], [7], [9, 8, 7, 6, 3]]
SAMPLED = Sampling(temperature=1.3, top_k=40, top_p=0.95)
# Cuts nothing off, but runs the programs that `SAMPLED` has compiled.
UNCUT = Sampling(temperature=1.0, top_k=24)
ONE_LAYER = tiny_config().layers[:1]


@functools.cache
def endless():
  """A random model of 24 tokens with a context of 32 and no EOS token."""
  return tiny_model(eos=(), tied=False, layers=ONE_LAYER)


@functools.cache
def ending():
  """The same model with EOS token 2."""
  model = endless()
  return dataclasses.replace(model, config=dataclasses.replace(model.config, eos=(2,)))


def tokens_of(answers):
  return [answer.tokens for answer in answers]


def test_batch_size_does_not_change_answers():
  settings = {"max_tokens": 16, "sampling": SAMPLED, "seed": 4}
  together = generate(endless(), PROMPTS, **settings)
  assert generate(endless(), PROMPTS, **settings, batch_size=1) == together


def test_order_of_prompts_is_kept():
  prompts = [[3, 4, 5, 6, 7, 8][:n] for n in (6, 1, 5, 2)]
  settings, done = {"max_tokens": 4, "batch_size": 1}, []
  answers = generate(endless(), prompts, **settings, on_done=done.append)
  assert [answer.prompt_tokens for answer in answers] == [6, 1, 5, 2] and done == [1] * 4
  assert answers == generate(endless(), prompts[::-1], **settings)[::-1]


def test_each_row_has_its_own_max_tokens():
  model = endless()
  limits = [1, 7, 16, 2, 5]
  full = tokens_of(generate(model, PROMPTS, max_tokens=16))
  short = generate(model, PROMPTS, max_tokens=limits)
  assert tokens_of(short) == [row[:n] for row, n in zip(full, limits, strict=True)]
  assert {answer.finish for answer in short} == {"length"}
  with pytest.raises(InputError, match="got 2 values of max_tokens for 5 prompts"):
    generate(model, PROMPTS, max_tokens=[1, 2])
  with pytest.raises(InputError, match="max_tokens=0: must be at least 1"):
    generate(model, PROMPTS, max_tokens=[1, 2, 0, 4, 5])


def test_a_row_ends_at_an_eos_token_and_the_others_continue():
  model = endless()
  full = tokens_of(generate(model, PROMPTS, max_tokens=16))
  eos = (full[1][2], full[3][5])
  ends = dataclasses.replace(model, config=dataclasses.replace(model.config, eos=eos))
  answers = generate(ends, PROMPTS, max_tokens=16)
  for answer, row in zip(answers, full, strict=True):
    place = min((row.index(token) for token in eos if token in row), default=None)
    assert answer.tokens == row[:place]
    assert answer.finish == ("length" if place is None else "eos")
  assert len({len(answer.tokens) for answer in answers}) >= 3


def test_the_context_is_a_limit():
  model = endless()
  (answer,) = generate(model, [[5] * 24], max_tokens=16)
  assert len(answer.tokens) == 8 and answer.finish == "length"
  with pytest.raises(InputError, match="prompt 2 has 32 tokens, but the model's context of 32"):
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


def test_truncation_leaves_short_prompts_alone():
  model = endless()
  (answer,) = generate(model, [[5, 6, 7]], max_tokens=16, truncate="left")
  assert (answer.prompt_tokens, answer.truncated) == (3, 0)
  # A large max_tokens does not displace the prompt.
  (answer,) = generate(model, [[5] * 16], max_tokens=1000, truncate="left")
  assert (answer.prompt_tokens, answer.truncated, len(answer.tokens)) == (16, 0, 16)


def test_an_empty_prompt_is_the_bos_token():
  model = endless()
  bare, empty, given, *_ = generate(model, ["", [], [1], [2], [3]], max_tokens=4)
  assert bare == empty == given and given.prompt_tokens == 1
  without = dataclasses.replace(model, config=dataclasses.replace(model.config, bos=None))
  with pytest.raises(InputError, match="the prompt is empty and the model has no BOS token"):
    generate(without, [""], max_tokens=4)


def test_ids_work_without_a_tokenizer():
  model = endless()
  (answer,) = generate(model, [[1, 4]], max_tokens=4, on_text=lambda row, text: 1 / 0)
  assert answer.text == "" and len(answer.tokens) == 4
  with pytest.raises(InputError, match="has no tokenizer, which text prompts need"):
    generate(model, ["text"])
  with pytest.raises(InputError, match="stop strings need a tokenizer"):
    generate(model, [[1]], stop=["."])
  for token in (-1, 24):
    with pytest.raises(InputError, match="prompt 2: a token id is not in 0 … 23"):
      generate(model, [[1], [3, token]])


def test_no_prompts():
  assert generate(endless(), []) == []


def test_constrained_answers_are_complete():
  model = ending()
  wanted = [(3, 4, 5), (3, 4), (6,), (7, 8, 9, 10), (11, 3, 3)]
  trie = token_trie(wanted, vocabulary=24, eos=(2,))
  answers = generate(model, PROMPTS * 3, max_tokens=4, sampling=SAMPLED, constraint=trie)
  assert {answer.finish for answer in answers} == {"complete"}
  assert set(tokens_of(answers)) <= set(wanted)
  # One answer has one token, and one has two.
  short = generate(model, PROMPTS, max_tokens=[1, 2, 1, 2, 2], sampling=SAMPLED, constraint=trie)
  assert {answer.tokens for answer in short} <= {(6,), (3, 4)}
  assert short[0].tokens == short[2].tokens == (6,)


def test_each_row_has_its_own_constraint():
  model = ending()
  wanted = [[(3, 5)], [(6,)], [(7, 7), (8, 8)], [(9,), (10,)], [(3, 5)]]
  tries = [token_trie(one, vocabulary=24, eos=(2,)) for one in wanted]
  answers = generate(model, PROMPTS, max_tokens=4, constraint=tries)
  for answer, allowed in zip(answers, wanted, strict=True):
    assert answer.tokens in allowed and answer.finish == "complete"
  with pytest.raises(InputError, match="got 2 constraints for 5 prompts"):
    generate(model, PROMPTS, constraint=tries[:2])
  with pytest.raises(
    InputError, match="prompt 3: the constraint needs at least 2 tokens, but 1 are"
  ):
    generate(model, PROMPTS, max_tokens=[2, 1, 1, 1, 2], constraint=tries)
  other = token_trie([(3,)], vocabulary=30, eos=(2,))
  with pytest.raises(InputError, match="made for 30 tokens, but the model has 24"):
    generate(model, PROMPTS, constraint=other)


def test_seeds():
  model = endless()

  def draw(seed):
    return tokens_of(generate(model, PROMPTS, max_tokens=16, sampling=SAMPLED, seed=seed))

  first = draw(0)
  assert first == draw(0)
  assert all(a != b for a, b in zip(first, draw(1), strict=True))


def test_every_step_and_row_has_a_fresh_key():
  head = {"kernel": jnp.zeros_like(endless().params["head"]["kernel"])}
  uniform = dataclasses.replace(endless(), params=endless().params | {"head": head})
  answers = tokens_of(generate(uniform, [[1]] * 8, max_tokens=16, sampling=UNCUT))
  assert len(set(answers)) == 8
  drawn = np.array(answers)
  # 16 draws from 24 tokens give 11.9 different ones on average, and the 8 of a column 6.9.
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
  model, count = endless(), 1024
  logits = np.asarray(forward(model.params, np.array([[1, 9, 4]]), config=model.config))[0, -1]
  weights = np.exp((logits - logits.max()) / sampling.temperature).astype(np.float64)
  order = np.argsort(-weights)
  weights[order[sampling.top_k or 24 :]] = 0
  before = np.cumsum(weights[order]) - weights[order]
  weights[order[before >= sampling.top_p * weights.sum()]] = 0
  answers = generate(
    model, [[1, 9, 4]] * count, max_tokens=1, sampling=sampling, batch_size=1024, seed=3
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


def test_calls_of_similar_shapes_compile_nothing_new(caplog):
  model = endless()

  def trie(token):
    return token_trie([(3, token), (5, 6)], vocabulary=24, eos=(2,))

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
    lambda n: generate(
      ending(), [[4] * n] * n, max_tokens=[n] * n, sampling=SAMPLED, constraint=trie(n)
    ),
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
  kinds = {"max_tokens": 20, "batch_size": 4}  # batches of 4 and 1
  before = sizes()
  assert warm_up(model, PROMPTS, **kinds) > 0
  after = sizes()
  assert after == (before[0] + 2, before[1] + 2)
  generate(model, PROMPTS, **kinds)
  assert sizes() == after


def test_speed_and_progress_count_real_tokens():
  speed, done = Speed(), []
  limits = [1, 7, 16, 2, 5]
  generate(endless(), PROMPTS, max_tokens=limits, speed=speed, on_done=done.append)
  assert speed.prompt_tokens == sum(map(len, PROMPTS)) and speed.new_tokens == 31 - 5
  assert done == [5]
  assert speed.prefill_seconds > 0 and speed.decode_seconds > 0
  assert f"decode {speed.new_tokens} tokens" in speed.line()
