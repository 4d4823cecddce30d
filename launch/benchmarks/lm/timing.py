"""Single measurements of a language model: compile time, prefill, decoding, shared prefixes.

The caller repeats them and alternates them with those of another implementation.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.lm.decoder.cache import cache_bytes
from gatrec_jax.lm.decoder.config import DecoderConfig
from gatrec_jax.lm.decoder.model import Params, hidden_states, logits_of
from gatrec_jax.lm.folders.load import LanguageModel
from gatrec_jax.lm.inference.generate import Speed, generate, warm_up
from gatrec_jax.lm.inference.scoring import score_continuations

_COMPILE_EVENTS = "/jax/core/compile/"  # tracing, lowering, and the compiler
_CACHE_HIT = "/jax/compilation_cache/cache_hits"


@dataclasses.dataclass(frozen=True)
class Generated:
  """One measured run of generation.

  Attributes:
    prefill_seconds: to the first token of every row. decode_seconds: for all other tokens.
    tokens: ids of every row.
  """

  prefill_seconds: float
  decode_seconds: float
  tokens: tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True)
class Scored:
  """One measured run of scoring. Attributes: seconds. values: [C] float32 log-likelihoods."""

  seconds: float
  values: np.ndarray


def endless(model: LanguageModel) -> LanguageModel:
  """The model without end tokens and tokenizer, so that every row has full length."""
  config = dataclasses.replace(model.config, eos=())
  return dataclasses.replace(model, config=config, tokenizer=None)


def random_rows(vocabulary: int, rows: int, tokens: int, *, seed: int) -> list[list[int]]:
  """Rows of random token ids."""
  return np.random.default_rng(seed).integers(0, vocabulary, (rows, tokens)).tolist()


def spread(values: Sequence[float]) -> dict[str, float]:
  """Median, minimum and maximum."""
  return {"median": statistics.median(values), "min": min(values), "max": max(values)}


@dataclasses.dataclass
class Compiled:
  """Time spent compiling.

  Attributes: seconds: of tracing and compiling. from_cache: programs found in JAX's persistent
    cache.
  """

  seconds: float = 0.0
  from_cache: int = 0


@contextmanager
def compile_clock() -> Iterator[Compiled]:
  """Measures the time in which JAX traces and compiles, and counts hits of its cache.

  Yields: the figures, which are complete when the block ends. Nested spans (functions traced within
    functions) count once.
  """
  spans: list[tuple[float, float]] = []
  found = Compiled()

  def on_span(event: str, begun: float, ended: float, **_: str | int) -> None:
    if event.startswith(_COMPILE_EVENTS):
      spans.append((begun, ended))

  def on_event(event: str, **_: str | int) -> None:
    found.from_cache += event == _CACHE_HIT

  jax.monitoring.register_event_time_span_listener(on_span)
  jax.monitoring.register_event_listener(on_event)
  try:
    yield found
  finally:
    jax.monitoring.unregister_event_time_span_listener(on_span)
    jax.monitoring.unregister_event_listener(on_event)
    found.seconds = _covered(spans)


def time_compiling(
  model: LanguageModel, prompts: Sequence[Sequence[int]], *, max_tokens: int
) -> dict[str, float]:
  """Compiles generation for these prompts, and runs their prefill once.

  Returns: `compile_seconds` of tracing and compiling, `first_call_seconds` in total, and
    `programs_from_cache`, the number of programs found in JAX's persistent cache.
  """
  with compile_clock() as compiled:
    first = warm_up(model, prompts, max_tokens=max_tokens, batch_size=len(prompts))
  return {
    "compile_seconds": compiled.seconds,
    "first_call_seconds": first,
    "programs_from_cache": compiled.from_cache,
  }


def time_generation(
  model: LanguageModel, prompts: Sequence[Sequence[int]], *, max_tokens: int
) -> Generated:
  """Continues all prompts in one batch, greedily."""
  speed = Speed()
  answers = generate(model, prompts, max_tokens=max_tokens, batch_size=len(prompts), speed=speed)
  tokens = tuple(answer.tokens for answer in answers)
  return Generated(speed.prefill_seconds, speed.decode_seconds, tokens)


def time_shared_prefix(
  model: LanguageModel, prefix: Sequence[int], continuations: Sequence[Sequence[int]]
) -> Scored:
  """Scores continuations with the prefix evaluated once."""
  begun = time.perf_counter()
  scores = score_continuations(model, [prefix], [continuations])[0]
  return Scored(time.perf_counter() - begun, scores[:, 0])


def time_separate(
  model: LanguageModel, prefix: Sequence[int], continuations: Sequence[Sequence[int]]
) -> Scored:
  """Scores continuations one by one, each with a forward pass over all its tokens.

  Logits are computed only for the continuation, and nothing is padded.
  """
  begun = time.perf_counter()
  values = [
    _log_likelihood(
      model.params,
      jnp.array([[*prefix, *continuation]], jnp.int32),
      config=model.config,
      count=len(continuation),
      attention=model.attention,
    )
    for continuation in continuations
  ]
  scores = np.array([float(value) for value in values], np.float32)  # waits for all of them
  return Scored(time.perf_counter() - begun, scores)


def prefill_flops(config: DecoderConfig, *, rows: int, tokens: int) -> float:
  """FLOPs of a prefill: products with the weights (the head's for the last token only) and causal
  attention."""
  query, key = config.heads * config.head_size, config.kv_heads * config.head_size
  block = config.width * (2 * query + 2 * key + 3 * config.inner)
  attention = sum(2 * query * _pairs(tokens, layer.window) for layer in config.layers)
  head = config.width * config.vocabulary
  return 2.0 * rows * (len(config.layers) * block * tokens + attention + head)


def decode_bytes(model: LanguageModel, *, rows: int, slots: float) -> float:
  """Bytes that a decoding step must read: all weights, and a cache of `slots` tokens per row.

  An embedding table that is not also the head is read in only a few rows, and is not counted.
  """
  read = {name: tree for name, tree in model.params.items() if name != "embed" or model.config.tied}
  weights = sum(leaf.nbytes for leaf in jax.tree.leaves(read))
  return weights + slots * cache_bytes(model.config, rows=rows, slots=1, dtype=model.dtype)


@functools.partial(jax.jit, static_argnames=("config", "count", "attention"))
def _log_likelihood(
  params: Params, tokens: jax.Array, *, config: DecoderConfig, count: int, attention: str
) -> jax.Array:
  """[] float32: log-likelihood of the last `count` of `tokens` [1, T] int32 given the others."""
  hidden = hidden_states(params, tokens, config=config, attention=attention)
  logits = logits_of(params, hidden[0, -count - 1 : -1], config=config)
  chosen = jnp.take_along_axis(logits, tokens[0, -count:, None], axis=-1)[:, 0]
  return (chosen - jax.nn.logsumexp(logits, axis=-1)).sum()


def _pairs(tokens: int, window: int | None) -> int:
  """The number of (query, visible key) pairs."""
  seen = tokens if window is None else min(window, tokens)
  return math.comb(seen + 1, 2) + (tokens - seen) * seen


def _covered(spans: Sequence[tuple[float, float]]) -> float:
  """The length of the union of intervals."""
  total, reached = 0.0, -math.inf
  for begun, ended in sorted(spans):
    total += max(0.0, ended - max(begun, reached))
    reached = max(reached, ended)
  return total
