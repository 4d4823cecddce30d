"""Strategies with a tiny decoder: their queries, truncation and cost."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny_decoder import random_params, tiny_config

from gatrec_jax.errors import InputError
from gatrec_jax.lm.decoder.model import forward
from gatrec_jax.lm.folders.load import LanguageModel
from gatrec_jax.lm.inference.scoring import label_tokens, score_labels
from gatrec_jax.lm.tokens.plain_text import PlainText
from gatrec_jax.lm.tokens.token_bytes import spell
from gatrec_jax.rerank.prompting import prompts
from gatrec_jax.rerank.prompting.prompts import Context, choice_prompt, pointwise_prompt, prompt_ids
from gatrec_jax.rerank.prompting.queries import Queries, Usage, log_softmax
from gatrec_jax.rerank.prompting.truncation import PromptEncoder, fit_prompts
from gatrec_jax.rerank.strategies.registry import (
  STRATEGIES,
  Options,
  make_strategy,
  unrelated_order,
)

TITLES = ["Heat (1995)", "Alien (1979)", "Up (2009)", "Amélie (2001)", "Se7en (1995)", "M (1931)"]
OLD = [f"Old film {n} (19{n + 10})" for n in range(30)]
WORDS = [prompts.BEST, prompts.FITS, prompts.RANK_TITLES, prompts.RANK_LABELS, prompts.RATE]
CONTEXT = Context("Genres: Drama.", (("Old film 1 (1911)", True), ("Old film 2 (1912)", False)))


@functools.cache
def model(context=96, own=True):
  """Random weights. Args: own: whether the ends of lines with a title are single tokens."""
  from transformers import PreTrainedTokenizerFast

  from gatrec_jax.lm.finetune.from_scratch import BOS, EOS, train_tokenizer

  lines = [prompts.line_end(title) for title in (*TITLES, *OLD, prompts.UNKNOWN)]
  texts = [*WORDS, prompts.HISTORY, prompts.CANDIDATES, prompts.PROFILE, CONTEXT.profile] * 4
  backend = train_tokenizer(texts, vocabulary=560, extra_tokens=["yes", "no", *lines * own])
  tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=BOS, eos_token=EOS)
  config = tiny_config(
    vocabulary=len(tokenizer),
    bos=0,
    eos=(1,),
    pad=2,
    context=context,
    layers=tiny_config().layers[:1],
  )
  return LanguageModel("tiny", None, config, random_params(config), tokenizer)


def users():
  """Four users, one of them without candidates and one with a single candidate."""
  return (
    [CONTEXT, Context(), dataclasses.replace(CONTEXT, history=()), CONTEXT],
    [TITLES, [], TITLES[:1], TITLES[3::-1]],
  )


def test_label_equals_separate_forward_passes():
  decoder = model(512, own=False)
  (scores,) = make_strategy("label", decoder, options=Options(permutations=3))([CONTEXT], [TITLES])
  order = unrelated_order(TITLES)
  letters = label_tokens(decoder, list("ABCDEF"))

  def query(context, titles):
    return log_softmax(
      score_labels(decoder, [prompt_ids(decoder, choice_prompt(context, titles))], letters)[0]
    )

  empty = query(prompts.CONTENT_FREE, [prompts.UNKNOWN] * 6)
  total = np.zeros(6)
  for start in (0, 2, 4):
    turned = np.roll(order, -start)
    total[turned] += query(CONTEXT, [TITLES[place] for place in turned]) - empty
  np.testing.assert_allclose(scores, total / 3, rtol=0, atol=1e-4)
  assert scores.std() > 0.01


def test_titles_that_are_single_tokens_serve_as_labels():
  contexts = [CONTEXT, dataclasses.replace(CONTEXT, history=())]
  found = make_strategy("label", model())(contexts, [TITLES, TITLES[:3]])
  for context, titles, scores in zip(contexts, (TITLES, TITLES[:3]), found, strict=True):
    prompt = prompts.describe(context) + ("" if context.history else prompts.HISTORY) + "liked"
    own = prompts.title_tokens(model(), titles)
    expected = log_softmax(score_labels(model(), [prompt_ids(model(), prompt)], own)[0])
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-4)
    assert scores.std() > 0.01


def test_pointwise_equals_separate_forward_passes():
  (scores,) = make_strategy("pointwise", model())([CONTEXT], [TITLES])
  ids = [prompt_ids(model(), pointwise_prompt(CONTEXT, title)) for title in TITLES]
  logits = score_labels(model(), ids, ["yes", "no"])
  np.testing.assert_allclose(scores, logits[:, 0] - logits[:, 1], rtol=0, atol=1e-4)


def test_title_is_the_likelihood_that_the_history_adds():
  decoder = model(256, own=False)
  (scores,) = make_strategy("title", decoder)([CONTEXT], [TITLES])

  def likelihood(start, title):
    head = prompt_ids(decoder, start)
    ids = head + spell(decoder.spelling, prompts.line_end(title))
    logits = forward(decoder.params, jnp.array([ids]), config=decoder.config)[0]
    log_p = jax.nn.log_softmax(logits, axis=-1)
    return sum(float(log_p[n - 1, ids[n]]) for n in range(len(head), len(ids)))

  lines = "liked: Old film 1 (1911)\ndisliked: Old film 2 (1912)\n"
  for title, score in zip(TITLES[:2], scores, strict=False):
    with_user = likelihood(f"{prompts.HISTORY}{lines}liked", title)  # the profile is left out
    assert score == pytest.approx(
      with_user - likelihood(f"{prompts.HISTORY}liked", title), abs=1e-3
    )
  assert scores.std() > 0.01


@pytest.mark.parametrize("name", STRATEGIES)
def test_scores_depend_neither_on_the_given_order_nor_on_the_batch(name):
  contexts, candidates = users()
  usage = Usage()
  scores = make_strategy(name, model(256), batch_size=4)(contexts, candidates, usage=usage)
  assert [len(one) for one in scores] == [6, 0, 1, 4]
  assert all(one.dtype == np.float32 and np.isfinite(one).all() for one in scores)
  assert usage.users == 4 and usage.shortened == 0 and usage.seconds > 0
  assert usage.prompt_tokens > 50
  assert (usage.new_tokens > 0) == (name in ("listwise", "batchwise", "relevancy"))
  assert usage.forward_tokens == usage.prompt_tokens + usage.new_tokens
  # Batches of one user, for one strategy by logits and one by generation: each is compiled.
  batch_size = 1 if name in ("label", "listwise") else 4
  turned = make_strategy(name, model(256), batch_size=batch_size)(
    contexts[::-1], [titles[::-1] for titles in candidates[::-1]]
  )
  for one, other in zip(scores, turned[::-1], strict=True):
    np.testing.assert_allclose(one, other[::-1], rtol=0, atol=1e-4)


def test_lists_without_a_choice_are_not_queried():
  usage = Usage()
  for name in STRATEGIES:
    scores = make_strategy(name, model())([CONTEXT, CONTEXT], [[], TITLES[:1]], usage=usage)
    assert [len(one) for one in scores] == [0, 1]
  assert usage.queries == usage.forward_tokens == 0
  assert make_strategy("label", model())([], []) == []


def test_invalid_candidates_are_refused():
  strategy = make_strategy("label", model())
  with pytest.raises(InputError, match=r"candidate 'Heat \(1995\)' occurs twice"):
    strategy([CONTEXT], [["Heat (1995)", "Up (2009)", "Heat (1995)"]])
  with pytest.raises(InputError, match="1 contexts for 2 lists"):
    strategy([CONTEXT], [[], []])
  many = [f"{n}" for n in range(53)]
  for name in ("label", "listwise"):
    with pytest.raises(InputError, match="top_candidates=53: only 52 letters"):
      make_strategy(name, model(8192))([CONTEXT], [many])


def test_a_long_history_loses_its_oldest_lines():
  long = Context("Genres: Drama.", tuple((title, True) for title in OLD))
  usage = Usage()
  (scores,) = make_strategy("pointwise", model())([long], [TITLES[:3]], usage=usage)
  assert usage.shortened == 1
  # The longest history for which every prompt fits, by brute force.
  for first in range(len(OLD)):
    short = Context(long.profile, long.history[first:])
    ids = [prompt_ids(model(), pointwise_prompt(short, title)) for title in TITLES[:3]]
    if max(map(len, ids)) <= model().config.context:
      break
  assert 0 < first < len(OLD)
  logits = score_labels(model(), ids, ["yes", "no"])
  np.testing.assert_allclose(scores, logits[:, 0] - logits[:, 1], rtol=0, atol=1e-4)


def test_the_profile_is_dropped_last_and_then_the_prompt_is_refused():
  wordy = Context("Genres: Drama. " * 40, (("Old film 1 (1911)", True),))

  def make(context):
    return [choice_prompt(context, TITLES)]

  (((ids,),), (kept,)) = fit_prompts(PromptEncoder(model()), [wordy], [make], [4])
  assert kept == Context() and ids == prompt_ids(model(), choice_prompt(kept, TITLES))
  with pytest.raises(InputError, match="a prompt may have 12 tokens.*`top_candidates`"):
    fit_prompts(PromptEncoder(model()), [CONTEXT], [make], [84])
  unchanged = fit_prompts(PromptEncoder(model()), [CONTEXT], [make], [0])[1]
  assert unchanged[0] is CONTEXT


def test_prompts_encoded_in_pieces_have_the_ids_of_the_whole():
  several = [
    [pointwise_prompt(CONTEXT, title) for title in (*TITLES, *OLD)],
    [choice_prompt(CONTEXT, [one, other]) for one in TITLES for other in TITLES if one != other],
    [pointwise_prompt(Context(), "x"), pointwise_prompt(Context(), "y")],
    ["same\n"] * 5,
    # A profile that ends like a line, titles that end like another one, and control tokens.
    [choice_prompt(Context("x: Heat (1995)", CONTEXT.history), TITLES[:3], by_title=True)] * 2,
    [pointwise_prompt(CONTEXT, f"{bad} and: Heat (1995)") for bad in ("<|eos|>", "<|bos|> no")],
    [],
  ]
  for texts in several:
    assert PromptEncoder(model())(texts) == [prompt_ids(model(), text) for text in texts]


def test_titles_and_profiles_are_no_tokens_beyond_their_lines():
  added = model().added_tokens
  hostile = Context("x <|eos|>: Heat (1995)", (("Foo: Heat (1995)", True), ("Heat (1995)", True)))
  (ids,) = PromptEncoder(model())([pointwise_prompt(hostile, "<|eos|>")])
  assert [token for token in ids if token in added.values()] == [0, added[": Heat (1995)\n"]]
  assert model().spelling.plain.ids("a", special_tokens=True)[0] == 0


def test_orders_of_the_model_are_permutations():
  queries = Queries(PromptEncoder(model(256)), [CONTEXT] * 2)
  for order in queries.orders_of_titles([0, 1], [TITLES, TITLES[:3]]):
    assert sorted(order) == list(range(len(order)))
  orders = queries.orders_of_letters([1], [[TITLES[:5], TITLES[2:]]])
  assert [sorted(order) for order in orders[0]] == [[0, 1, 2, 3, 4], [0, 1, 2, 3]]
  (ratings,) = queries.ratings([0], [[TITLES[:2], TITLES[:4]]])
  assert [len(one) for one in ratings] == [2, 4]
  assert all(0 <= rating <= 100 for one in ratings for rating in one)


def test_a_chat_template_frames_the_prompt():
  tokenizer = model().tokenizer
  framed = type(tokenizer)(
    tokenizer_object=tokenizer.backend_tokenizer,
    bos_token=tokenizer.bos_token,
    eos_token=tokenizer.eos_token,
  )
  framed.chat_template = "{{ bos_token }}Q {{ messages[0]['content'] }}{{ eos_token }}A "
  chatty = dataclasses.replace(model(), tokenizer=framed)
  (scores,) = make_strategy("pointwise", chatty)([CONTEXT], [TITLES[:2]])
  texts = [f"Q {pointwise_prompt(CONTEXT, title)}" for title in TITLES[:2]]

  def ids(text):  # behind a template, the whole message is data: its lines are no tokens
    return PlainText(tokenizer.backend_tokenizer).ids(text, special_tokens=False)

  logits = score_labels(model(), [[0, *ids(text), 1, *ids("A ")] for text in texts], ["yes", "no"])
  np.testing.assert_allclose(scores, logits[:, 0] - logits[:, 1], rtol=0, atol=1e-4)
