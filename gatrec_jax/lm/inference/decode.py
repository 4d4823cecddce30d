"""The compiled programs of generation: one pass over the prompts, then a loop of single tokens.

Prompts of different lengths are padded on the right. Each new token is written into the same cache
slot in all rows, and `positions` records which token is in which slot. All shapes are therefore
fixed, and the loop is one compiled program that updates its cache in place.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from gatrec_jax.lm.constraints.choices import advance, allowed_tokens, closing_tokens, finished
from gatrec_jax.lm.constraints.permutation import Constraint, Progress
from gatrec_jax.lm.decoder.cache import EMPTY, Cache, with_room
from gatrec_jax.lm.decoder.config import DecoderConfig
from gatrec_jax.lm.decoder.model import Batch, Lora, Params, logits_of, run_decoder
from gatrec_jax.lm.inference.sampling import Sampler, draw, extend_matches, repeats


@flax.struct.dataclass
class Decoding:
  """State of a batch during generation.

  Attributes:
    cache: of the prompts and tokens so far, except the last token.
    lengths: [B] int32, prompt tokens, with those of a prefix.
    limits: [B] int32, most new tokens of each row.
    tokens: [B, N] int32, drawn so far. step: scalar int32, how many were drawn.
    emitted: [B] int32, tokens of each row until it was done. done: [B] bool.
    finite: [B] bool, whether all logits of a row were finite until it was done.
    keys: [B] PRNG keys of the rows.
    seen: [B, V] bool, tokens in prompt and answer; None without a repetition penalty.
    matches: [B, N] int32, see `sampling.extend_matches`; None where n-grams may repeat.
    node: state of each row in its constraint; None without one.
  """

  cache: Cache
  lengths: jax.Array
  limits: jax.Array
  tokens: jax.Array
  step: jax.Array
  emitted: jax.Array
  done: jax.Array
  finite: jax.Array
  keys: jax.Array
  seen: jax.Array | None
  matches: jax.Array | None
  node: Progress | None


class Prefix(NamedTuple):
  """Tokens before all prompts of a batch: tokens [1, P] int32, and length, a scalar int32."""

  tokens: jax.Array
  length: jax.Array


@functools.partial(jax.jit, static_argnames=("config", "slots", "room", "attention"))
def prefill(
  params: Params,
  prompts: jax.Array,
  lengths: jax.Array,
  limits: jax.Array,
  keys: jax.Array,
  *,
  config: DecoderConfig,
  sampler: Sampler,
  constraint: Constraint | None,
  node: Progress | None,
  eos: jax.Array,
  slots: int,
  room: int,
  prefix: Prefix | None = None,
  lora: Lora | None = None,
  attention: str = "xla",
) -> Decoding:
  """Runs the prompts and draws the first token of every row.

  Args:
    params, config: of the model. lora, attention: as in `model.forward`.
    prompts: [B, T] int32, padded on the right. lengths: [B] int32, at least 1.
    limits: [B] int32, most new tokens of each row; 0 for rows that pad the batch.
    keys: [B] PRNG keys; are consumed.
    sampler: how tokens are drawn. constraint, node: which tokens are allowed, and the start state
      of each row.
    eos: [E] int32, tokens that end a row.
    slots: of the cache, at least T + room - 1, and P more with a prefix.
    room: N, most new tokens of any row. prefix: what stands before all prompts.
  """
  run = {"config": config, "lora": lora, "attention": attention}
  if prefix is None:
    hidden, cache = prompt_cache(params, prompts, lengths, **run)
  else:
    hidden, cache = _cache_after(params, prefix, prompts, lengths, **run)
  last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)[:, 0]
  rows = prompts.shape[0]
  seen = None
  if sampler.penalizes:
    real = jnp.arange(prompts.shape[1]) < lengths[:, None]
    empty = jnp.zeros((rows, config.vocabulary), bool)
    seen = empty.at[jnp.arange(rows)[:, None], prompts].max(real)
    if prefix is not None:
      shared = jnp.arange(prefix.tokens.shape[1]) < prefix.length
      seen = seen.at[:, prefix.tokens[0]].max(shared)
  start = Decoding(
    cache=with_room(cache, slots),
    lengths=lengths if prefix is None else prefix.length + lengths,
    limits=limits,
    tokens=jnp.zeros((rows, room), jnp.int32),
    step=jnp.int32(0),
    emitted=jnp.zeros((rows,), jnp.int32),
    done=limits <= 0,
    finite=jnp.ones((rows,), bool),
    keys=keys,
    seen=seen,
    matches=jnp.zeros((rows, room), jnp.int32) if sampler.bans else None,
    node=node,
  )
  return _draw(start, logits_of(params, last, config=config), sampler, constraint, eos)


@functools.partial(
  jax.jit, static_argnames=("config", "prompt_slots"), donate_argnames=("decoding",)
)
def decode(
  params: Params,
  decoding: Decoding,
  until: jax.Array,
  *,
  config: DecoderConfig,
  sampler: Sampler,
  constraint: Constraint | None,
  eos: jax.Array,
  prompt_slots: int,
  lora: Lora | None = None,
) -> Decoding:
  """Draws tokens until all rows are done or `until` tokens have been drawn.

  Args:
    decoding: from `prefill` or an earlier call; is donated. until: scalar int32.
    prompt_slots: the first slot of new tokens: T of the prompts, and P more with a prefix.
    The rest as in `prefill`.
  """

  def body(state: Decoding) -> Decoding:
    last = jax.lax.dynamic_slice_in_dim(state.tokens, state.step - 1, 1, axis=1)
    slot = prompt_slots + state.step - 1
    positions = (state.lengths + state.step - 1)[:, None]
    cache = state.cache
    filled = jax.lax.dynamic_update_slice(cache.positions, positions, (0, slot))
    batch = Batch(positions, jnp.ones_like(state.lengths), None, slot, filled)
    hidden, present = run_decoder(
      params, last, batch, config=config, past=cache, lora=lora, attention="xla"
    )
    cache = Cache(tuple(key for key, _ in present), tuple(value for _, value in present), filled)
    logits = logits_of(params, hidden[:, 0], config=config)
    return _draw(state.replace(cache=cache), logits, sampler, constraint, eos)

  def going(state: Decoding) -> jax.Array:
    return (state.step < until) & ~state.done.all()

  return jax.lax.while_loop(going, body, decoding)


def prompt_cache(
  params: Params,
  prompts: jax.Array,
  lengths: jax.Array,
  *,
  config: DecoderConfig,
  lora: Lora | None = None,
  attention: str = "xla",
) -> tuple[jax.Array, Cache]:
  """Returns the hidden states of prompts, [B, T, D], and a cache of T slots per row."""
  slots = jnp.arange(prompts.shape[1], dtype=jnp.int32)
  positions = jnp.broadcast_to(slots, prompts.shape)
  batch = Batch(positions, lengths, None, None, None)
  hidden, present = run_decoder(
    params, prompts, batch, config=config, lora=lora, attention=attention
  )
  filled = jnp.where(slots < lengths[:, None], positions, EMPTY)
  return hidden, Cache(tuple(k for k, _ in present), tuple(v for _, v in present), filled)


def _cache_after(
  params: Params,
  prefix: Prefix,
  prompts: jax.Array,
  lengths: jax.Array,
  *,
  config: DecoderConfig,
  lora: Lora | None,
  attention: str,
) -> tuple[jax.Array, Cache]:
  """As `prompt_cache` of prefix and prompts together, but the prefix is evaluated once."""
  run = {"config": config, "lora": lora}
  _, first = prompt_cache(params, prefix.tokens, prefix.length[None], attention=attention, **run)
  slots = jnp.arange(prompts.shape[1], dtype=jnp.int32)
  positions = jnp.broadcast_to(prefix.length + slots, prompts.shape)
  batch = Batch(positions, lengths, None, None, first.positions)
  hidden, present = run_decoder(params, prompts, batch, past=first, attention="xla", **run)
  filled = jnp.where(slots < lengths[:, None], positions, EMPTY)

  def joined(shared: jax.Array, own: jax.Array) -> jax.Array:
    every = jnp.broadcast_to(shared, (own.shape[0], *shared.shape[1:]))
    return jnp.concatenate([every, own], axis=2 if own.ndim == 4 else 1)

  return hidden, Cache(
    tuple(joined(old, new) for old, (new, _) in zip(first.keys, present, strict=True)),
    tuple(joined(old, new) for old, (_, new) in zip(first.values, present, strict=True)),
    joined(first.positions, filled),
  )


def _draw(
  state: Decoding,
  logits: jax.Array,
  sampler: Sampler,
  constraint: Constraint | None,
  eos: jax.Array,
) -> Decoding:
  """Draws a token for every row that is not done. logits: [B, V] float32."""
  keys = jax.vmap(lambda key: jax.random.fold_in(key, state.step))(state.keys)
  changes: dict[str, Any] = {}
  allowed = None
  if constraint is not None:
    allowed = allowed_tokens(constraint, state.node, state.limits - state.step)
    logits = _with_own_end(logits, closing_tokens(constraint, state.node), eos)
  banned = None
  if sampler.bans:
    banned = repeats(
      state.matches, state.tokens, state.step, sampler.no_repeat, vocabulary=logits.shape[1]
    )
  token = draw(keys, logits, sampler, seen=state.seen, banned=banned, allowed=allowed)
  token = jnp.where(state.done, 0, token)
  ended = (token[:, None] == eos).any(axis=1)
  if constraint is not None:
    node = advance(constraint, state.node, token)
    changes["node"] = node
    ended |= finished(constraint, node)
  if sampler.penalizes:
    changes["seen"] = state.seen.at[jnp.arange(token.shape[0]), token].set(True)
  tokens = jax.lax.dynamic_update_slice(state.tokens, token[:, None], (0, state.step))
  if sampler.bans:
    changes["matches"] = extend_matches(state.matches, tokens, state.step + 1)
  emitted = state.emitted + ~state.done
  finite = state.finite & (state.done | jnp.isfinite(logits).all(axis=1))
  return state.replace(
    tokens=tokens,
    step=state.step + 1,
    emitted=emitted,
    finite=finite,
    done=state.done | ended | (emitted >= state.limits),
    **changes,
  )


def _with_own_end(logits: jax.Array, closing: jax.Array | None, eos: jax.Array) -> jax.Array:
  """Where free text may be closed, closing it is at least as likely as that the model stops.

  A model that is forbidden to stop would go on with whatever comes next in likelihood.

  Args: logits: [B, V] float32. closing: [B, V] bool, or None. eos: [E] int32; -1 is no token.
  """
  if closing is None:
    return logits
  stop = jnp.where(eos >= 0, logits[:, eos], -jnp.inf).max(axis=1, keepdims=True)
  return jnp.where(closing, jnp.maximum(logits, stop), logits)
