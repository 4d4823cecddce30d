"""Draws the next token from logits: repetition penalty, no repeated n-grams, temperature, cuts.

The values are arguments of the compiled program, which depends only on which of them are in use.
"""

from __future__ import annotations

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from gatrec_jax.errors import InputError

MASKED = -1e30  # a logit that is never drawn; finite, so that sums stay finite
COLDEST = 1e-6  # below this, dividing logits by the temperature would overflow float32


@dataclasses.dataclass(frozen=True)
class Sampling:
  """How tokens are drawn.

  Attributes:
    temperature: divides the logits; 0 always takes the most likely token.
    top_k: keeps only the k most likely tokens; 0 keeps all.
    top_p: keeps only the most likely tokens that together reach this probability (Holtzman et al.
      2020); 1 keeps all.
    min_p: keeps only tokens with at least this share of the highest probability; 0 keeps all.
    repetition_penalty: divides the positive and multiplies the negative logits of tokens that
      already occur in prompt or answer (Keskar et al. 2019); 1 for none.
    no_repeat: the answer contains no sequence of so many tokens twice (Paulus et al. 2018); 0 for
      any. The prompt does not count. Where a constraint allows nothing else, it is followed.
  """

  temperature: float = 0.0
  top_k: int = 0
  top_p: float = 1.0
  min_p: float = 0.0
  repetition_penalty: float = 1.0
  no_repeat: int = 0

  def __post_init__(self) -> None:
    rules = (
      (self.temperature >= 0, "temperature", "0 or above"),
      (self.top_k >= 0, "top_k", "0 (all) or above"),
      (0 < self.top_p <= 1, "top_p", "above 0 and at most 1"),
      (0 <= self.min_p <= 1, "min_p", "between 0 and 1"),
      (self.repetition_penalty > 0, "repetition_penalty", "above 0"),
      (self.no_repeat >= 0, "no_repeat", "0 (off) or above"),
    )
    for holds, name, wanted in rules:
      if not holds:
        raise InputError(f"must be {wanted}", field=name, value=getattr(self, name))


@flax.struct.dataclass
class Sampler:
  """A `Sampling` on the device: its values as scalars, and static flags for what is in use."""

  temperature: jax.Array
  top_k: jax.Array
  top_p: jax.Array
  min_p: jax.Array
  repetition_penalty: jax.Array
  no_repeat: jax.Array
  greedy: bool = flax.struct.field(pytree_node=False)
  cuts: bool = flax.struct.field(pytree_node=False)
  penalizes: bool = flax.struct.field(pytree_node=False)
  bans: bool = flax.struct.field(pytree_node=False)


def make_sampler(sampling: Sampling) -> Sampler:
  """Converts a `Sampling` to its form on the device."""
  return Sampler(
    temperature=jnp.float32(sampling.temperature or 1.0),
    top_k=jnp.int32(sampling.top_k or jnp.iinfo(jnp.int32).max),
    # Cumulative probabilities may round to 1 before the last token.
    top_p=jnp.float32(sampling.top_p if sampling.top_p < 1 else jnp.inf),
    min_p=jnp.float32(sampling.min_p),
    repetition_penalty=jnp.float32(sampling.repetition_penalty),
    no_repeat=jnp.int32(sampling.no_repeat),
    greedy=sampling.temperature < COLDEST,
    cuts=sampling.top_k > 0 or sampling.top_p < 1 or sampling.min_p > 0,
    penalizes=sampling.repetition_penalty != 1,
    bans=sampling.no_repeat > 0,
  )


def penalize(logits: jax.Array, seen: jax.Array, penalty: jax.Array) -> jax.Array:
  """Applies the repetition penalty to [B, V] float32 logits. seen: [B, V] bool."""
  return jnp.where(seen, jnp.where(logits > 0, logits / penalty, logits * penalty), logits)


def extend_matches(matches: jax.Array, tokens: jax.Array, step: jax.Array) -> jax.Array:
  """Updates, for every place of the answers, how far the tokens before it repeat their ends.

  `matches[b, p]` is the largest m for which the m tokens before place p equal the last m tokens of
  row b. One more token needs one comparison per place, whatever the length of the n-grams.

  Args: matches: [B, N] int32, before token `step - 1`; 0 at first. tokens: [B, N] int32.
    step: scalar int32, number of tokens drawn, at least 1.
  Returns: [B, N] int32.
  """
  last = jax.lax.dynamic_slice_in_dim(tokens, step - 1, 1, axis=1)
  longer = jnp.where(tokens[:, :-1] == last, matches[:, :-1] + 1, 0)
  return jnp.pad(longer, ((0, 0), (1, 0)))


def repeats(
  matches: jax.Array, tokens: jax.Array, step: jax.Array, size: jax.Array, *, vocabulary: int
) -> jax.Array:
  """The tokens that would end a second n-gram. Returns: [B, V] bool.

  Args: matches, tokens, step: as in `extend_matches`, after it. size: scalar int32, n.
  """
  place = jnp.arange(tokens.shape[1])
  banned = (matches >= size - 1) & (place < step)
  rows = jnp.arange(tokens.shape[0])[:, None]
  return jnp.zeros((tokens.shape[0], vocabulary), bool).at[rows, tokens].max(banned)


def cut(logits: jax.Array, sampler: Sampler) -> jax.Array:
  """Masks the tokens excluded by top-k, top-p and min-p, in this order. logits: [B, V] float32.

  Ties at the boundary of top-k and top-p are kept. At least one token is kept.
  """
  ordered = jnp.sort(logits, axis=-1, descending=True)
  rank = jnp.arange(logits.shape[-1])
  kept = jnp.where(rank < sampler.top_k, ordered, MASKED)
  probability = jax.nn.softmax(kept, axis=-1)
  before = jnp.cumsum(probability, axis=-1) - probability
  kept = jnp.where((before < sampler.top_p) | (rank == 0), kept, MASKED)
  # min-p compares with the most likely token, regardless of the sum.
  floor = ordered[:, :1] + jnp.log(sampler.min_p)
  kept = jnp.where(kept >= floor, kept, MASKED)
  lowest = jnp.where(kept > MASKED, kept, jnp.inf).min(axis=-1, keepdims=True)
  return jnp.where(logits >= lowest, logits, MASKED)


def draw(
  keys: jax.Array,
  logits: jax.Array,
  sampler: Sampler,
  *,
  seen: jax.Array | None = None,
  banned: jax.Array | None = None,
  allowed: jax.Array | None = None,
) -> jax.Array:
  """Draws the next token of every row.

  Args:
    keys: [B] PRNG keys; are consumed.
    logits: [B, V] float32.
    sampler: how tokens are drawn.
    seen: [B, V] bool, tokens that occurred already; required with a repetition penalty.
    banned: [B, V] bool, tokens that are drawn only where no other is allowed; None for none.
    allowed: [B, V] bool, tokens that may be drawn; None for all.
  Returns: [B] int32.
  """
  if sampler.penalizes:
    logits = penalize(logits, seen, sampler.repetition_penalty)
  if banned is not None:
    free = ~banned if allowed is None else allowed & ~banned
    rest = jnp.ones_like(banned) if allowed is None else allowed
    allowed = jnp.where(free.any(axis=-1, keepdims=True), free, rest)
  if allowed is not None:
    # A large penalty must not push allowed tokens below forbidden ones.
    logits = jnp.where(allowed, jnp.maximum(logits, MASKED / 2), MASKED)
  if sampler.greedy:
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)
  logits = logits / sampler.temperature
  if sampler.cuts:
    logits = cut(logits, sampler)
  return jax.vmap(jax.random.categorical)(keys, logits).astype(jnp.int32)
