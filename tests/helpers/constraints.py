"""Support for tests of constrained decoding: tiny tokenizers, random runs on the device."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from gatrec_jax.lm.constraints.choices import advance, allowed_tokens, finished, start_state

CORPUS = [
  "The café's naïve hero, Zoë, meets 黒澤明 in 東京; drama, comedy and a crime thriller.",
  'He likes the slow films of the 1960s: 七人の侍, Amélie, "La Haine", Ужасы, 😀 and horror.',
  "drama comedy action horror 10 100 1000 1999 2024 true false the the and of in a",
  '{"genres": ["drama", "comedy"], "score": 12, "likes": "slow films", "name": "x"}, [1, 2]',
] * 3
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


@functools.cache
def byte_level(vocabulary=420, **options):
  """A byte-level BPE tokenizer (GPT-2, Qwen, Llama 3) with `</s>` as token 1."""
  backend = tokenizers.Tokenizer(models.BPE())
  backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  backend.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=vocabulary,
    special_tokens=["<s>", "</s>"],
    show_progress=False,
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
  )
  backend.train_from_iterator(CORPUS, trainer)
  if options.get("nfc"):
    backend.normalizer = normalizers.NFC()
  return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")


@functools.cache
def sentence_piece(vocabulary=160):
  """A BPE tokenizer with `▁`, a dummy space and byte fallback (Llama 2); `</s>` is token 2."""
  trained = tokenizers.Tokenizer(models.BPE())
  trained.pre_tokenizer = pre_tokenizers.Metaspace()
  corpus = [line.encode("ascii", "ignore").decode() for line in CORPUS]
  trained.train_from_iterator(
    corpus, trainers.BpeTrainer(vocab_size=vocabulary, show_progress=False)
  )
  model = json.loads(trained.to_str())["model"]
  words = ["<unk>", "<s>", "</s>", *BYTES, *sorted(model["vocab"], key=model["vocab"].get)]
  merges = [tuple(pair) for pair in model["merges"]]
  backend = tokenizers.Tokenizer(
    models.BPE(
      {word: token for token, word in enumerate(words)},
      merges,
      unk_token="<unk>",
      byte_fallback=True,
      fuse_unk=True,
    )
  )
  backend.pre_tokenizer = pre_tokenizers.Metaspace()
  backend.decoder = decoders.Sequence(
    [
      decoders.Replace("▁", " "),
      decoders.ByteFallback(),
      decoders.Fuse(),
      decoders.Strip(" ", 1, 0),
    ]
  )
  return PreTrainedTokenizerFast(
    tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
  )


@functools.partial(jax.jit, static_argnames="steps")
def sample(automaton, starts, budget, logits, key, *, steps):
  """Samples one run per row.

  Args: starts, budget: [B] int32. logits: [B, V], or [V, V] by the last token (0 at first).
  Returns: tokens [B, steps] int32, -1 after the end; the last state.
  """
  rows = starts.shape[0]
  by_token = logits.shape[0] != rows
  weights = jnp.exp(logits)

  def step(carry):
    at, state, tokens, key, last = carry
    key, noise_key = jax.random.split(key)
    going = ~finished(automaton, state) & (at < budget)
    mask = allowed_tokens(automaton, state, budget - at)
    # One uniform number per row: Gumbel noise for every token takes ten times as long on a CPU.
    mass = jnp.cumsum(jnp.where(mask, weights[last] if by_token else weights, 0.0), axis=-1)
    point = mass[:, -1:] * (1.0 - jax.random.uniform(noise_key, (rows, 1)))
    choice = jnp.argmax(mass >= point, axis=-1).astype(jnp.int32)
    moved = advance(automaton, state, choice)
    state = jax.tree.map(lambda new, old: jnp.where(going, new, old), moved, state)
    tokens = tokens.at[:, at].set(jnp.where(going, choice, -1))
    return at + 1, state, tokens, key, choice

  def going_on(carry):
    at, state = carry[:2]
    return (at < steps) & jnp.any(~finished(automaton, state) & (at < budget))

  tokens = jnp.full((rows, steps), -1, jnp.int32)
  state = start_state(starts)
  first = (0, state, tokens, key, jnp.zeros(rows, jnp.int32))
  _, state, tokens, _, _ = jax.lax.while_loop(going_on, step, first)
  return tokens, state


def runs(automaton, starts, budget, *, seed=0, spread=2.0, logits=None):
  """Random runs, by default with random logits in each row: token lists, and the last state."""
  budget = np.asarray(budget, np.int32)
  starts = np.broadcast_to(np.asarray(starts, np.int32), budget.shape)
  logits_key, key = jax.random.split(jax.random.key(seed))
  if logits is None:
    logits = spread * jax.random.normal(logits_key, (len(budget), automaton.vocabulary))
  tokens, state = sample(automaton, starts, budget, logits, key, steps=int(budget.max()))
  return [row[row >= 0].tolist() for row in np.asarray(tokens)], state
