"""Scores labels and continuations of prompts with a common prefix, evaluating each prefix once.

Re-ranking queries a model about a user many times: with the candidates in another order, or for one
candidate after another. A batch holds several users; each has one cached row for the common prefix
of their prompts, and the queries of all their suffixes are folded into one product with that row.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.errors import InputError
from gatrec_jax.lm.decoder.cache import EMPTY, Cache
from gatrec_jax.lm.decoder.config import DecoderConfig
from gatrec_jax.lm.decoder.model import Batch, Lora, Params, logits_of, run_decoder
from gatrec_jax.lm.folders.load import LanguageModel
from gatrec_jax.lm.inference.batching import (
  SMALLEST_BUCKET,
  bucket,
  common_length,
  require_finite,
  rows_sharding,
)
from gatrec_jax.lm.inference.decode import prompt_cache
from gatrec_jax.lm.inference.generate import Speed
from gatrec_jax.lm.inference.scoring import LOGIT_BYTES, Prompt, fitting, label_ids
from gatrec_jax.lm.tokens.chat import require_list

# Suffixes are processed in parts, so that the arrays of one layer stay below this size.
PART_BYTES = 256 * 2**20
FINE_ROOMS = 128  # up to this many tokens, suffixes are padded to a multiple of 8


_Arrays = tuple[jax.Array | np.ndarray, ...]


class _User(NamedTuple):
  """A user's prompts: the [P] tokens that they share, and the rest of each."""

  prefix: list[int]
  suffixes: list[list[int]]


class _Shape(NamedTuple):
  """Shape of a compiled program: B users, P prefix tokens, C suffixes of S tokens each."""

  batch: int
  width: int
  count: int
  room: int


def score_labels_shared(
  model: LanguageModel,
  prompts: Sequence[Sequence[Prompt]],
  labels: Sequence[str] | np.ndarray,
  *,
  leading_space: bool = False,
  special_tokens: bool = True,
  batch_size: int = 8,
  lora: Lora | None = None,
  speed: Speed | None = None,
) -> list[np.ndarray]:
  """Computes the logits of label tokens as `score_labels`, for prompts with common prefixes.

  Args:
    model: the decoder.
    prompts: for each of N users, C_n texts or lists of token ids of any length; their common
      prefix is found automatically.
    labels: L texts of one token each, or their ids from `label_tokens`.
    leading_space: whether the labels follow a space.
    special_tokens: as in `generate`.
    batch_size: most users per batch.
    lora: adapters.
    speed: prompt tokens (shared ones counted once) and seconds are added to it.
  Returns: for each user [C_n, L] float32.
  Raises: InputError for a prompt that does not fit into the context, or labels of several tokens.
  """
  require_list(prompts, "prompts", "a list of prompts for each user")
  begun = time.perf_counter()
  ids = label_ids(model, labels, leading_space=leading_space)
  users = []
  for several in prompts:
    require_list(several, "prompts", "a list of prompts for each user")
    users.append(_cut([fitting(model, one, special_tokens=special_tokens) for one in several]))

  def logits(arrays: _Arrays, shape: _Shape) -> jax.Array:
    return _label_logits(
      model.params,
      *arrays,
      ids,
      config=model.config,
      lora=lora,
      attention=model.attention,
      parts=_parts(model, shape),
    )

  scores = [np.zeros((len(user.suffixes), len(ids)), np.float32) for user in users]
  _fill(scores, model, users, logits, batch_size=batch_size)
  _count(speed, users, begun)
  return scores


def score_continuations_shared(
  model: LanguageModel,
  prompts: Sequence[Prompt],
  continuations: Sequence[Sequence[Sequence[int]]],
  *,
  special_tokens: bool = True,
  batch_size: int = 8,
  lora: Lora | None = None,
  speed: Speed | None = None,
) -> list[np.ndarray]:
  """Log-likelihoods of continuations as `score_continuations`, for several prompts at a time.

  Args:
    model: the decoder.
    prompts: N texts or lists of token ids, none empty.
    continuations: for each, C_n lists of token ids, none empty.
    special_tokens, batch_size, lora, speed: as in `score_labels_shared`.
  Returns: for each prompt [C_n] float32, in nats.
  Raises: InputError for an empty continuation, or one that does not fit into the context.
  """
  begun = time.perf_counter()
  users = []
  for prompt, several in zip(prompts, continuations, strict=True):
    ids = fitting(model, prompt, special_tokens=special_tokens)
    if not ids or not all(map(len, several)):
      raise InputError("a prompt or a continuation is empty")
    for one in several:
      fitting(model, [*ids, *one])
    # The last token of the prompt predicts the first of each continuation.
    users.append(_User(ids[:-1], [[ids[-1], *one] for one in several]))

  def likelihoods(arrays: _Arrays, shape: _Shape) -> jax.Array:
    logits = 4 * model.config.vocabulary * shape.batch * shape.count * shape.room
    return _likelihoods(
      model.params,
      *arrays,
      config=model.config,
      lora=lora,
      attention=model.attention,
      parts=min(shape.count, max(_parts(model, shape), -(-logits // LOGIT_BYTES))),
    )

  scores = [np.zeros(len(user.suffixes), np.float32) for user in users]
  _fill(scores, model, users, likelihoods, batch_size=batch_size, one_room=True)
  _count(speed, users, begun)
  return scores


def _fill(
  scores: Sequence[np.ndarray],
  model: LanguageModel,
  users: Sequence[_User],
  program: Callable[[_Arrays, _Shape], jax.Array],
  *,
  batch_size: int,
  one_room: bool = False,
) -> None:
  """Writes the results of `program`, [B, C, …] for a batch, to the users' `scores`, [C_n, …]."""
  found = []
  for rows, shape in _groups(users, batch_size, one_room=one_room):
    found.append((rows, program(_arrays(model, [users[row] for row in rows], shape), shape)))
  # Results are fetched at the end, so that a batch is prepared while the previous one runs.
  for rows, out in found:
    for row, values in zip(rows, np.asarray(out), strict=False):
      scores[row][:] = values[: len(scores[row])]
      require_finite(model, scores[row])


def _count(speed: Speed | None, users: Sequence[_User], begun: float) -> None:
  if speed is not None:
    speed.prompt_tokens += sum(len(user.prefix) + sum(map(len, user.suffixes)) for user in users)
    speed.prefill_seconds += time.perf_counter() - begun


def _cut(sequences: list[list[int]]) -> _User:
  """Splits sequences within their common prefix, so that the fewest padded tokens are evaluated.

  Each suffix keeps at least one token, whose logits are the labels'.
  """
  if not sequences:
    return _User([], [])
  shared, longest = common_length(sequences), max(map(len, sequences))
  sizes, size = {0, shared}, SMALLEST_BUCKET
  while size < shared:
    sizes.add(size)
    size = bucket(size + 1)

  def cost(place: int) -> int:
    return bucket(place) + len(sequences) * _room(longest - place)

  place = min(sorted(sizes, reverse=True), key=cost)
  return _User(sequences[0][:place], [sequence[place:] for sequence in sequences])


def _groups(
  users: Sequence[_User], batch_size: int, *, one_room: bool = False
) -> list[tuple[list[int], _Shape]]:
  """Assigns users to batches: similar ones together, few different shapes.

  Args: one_room: whether all suffixes are padded alike, for lengths that differ within users only.
  """
  if batch_size < 1:
    raise InputError("must be at least 1", field="batch_size", value=batch_size)
  filled = [row for row, user in enumerate(users) if user.suffixes]
  counts = {len(users[row].suffixes) for row in filled}
  # If all users have the same number of suffixes, none need padding.
  size = int if len(counts) == 1 else _rounded
  filled.sort(key=lambda row: (size(len(users[row].suffixes)), len(users[row].prefix), row))
  groups = []
  for start in range(0, len(filled), batch_size):
    rows = filled[start : start + batch_size]
    several = [users[row] for row in rows]
    padded = users if one_room else several
    groups.append(
      (
        rows,
        _Shape(
          batch=min(batch_size, 1 << (len(rows) - 1).bit_length()),
          width=bucket(max(len(user.prefix) for user in several)),
          count=size(max(len(user.suffixes) for user in several)),
          room=_room(max(len(suffix) for user in padded for suffix in user.suffixes)),
        ),
      )
    )
  return groups


def _room(length: int) -> int:
  """Padded length of suffixes: finer than `bucket`, as there are several per prefix."""
  return max(SMALLEST_BUCKET, -(-length // 8) * 8) if length <= FINE_ROOMS else bucket(length)


def _rounded(count: int) -> int:
  """Rounds up to 1, 2, 4, 8, 16, 24, 32, …"""
  return -(-count // 8) * 8 if count > 8 else 1 << (count - 1).bit_length()


def _arrays(model: LanguageModel, users: Sequence[_User], shape: _Shape) -> _Arrays:
  """Pads a batch: prefixes [B, P], their lengths [B], suffixes [B, C, S], lengths [B, C]; int32."""
  batch, width, count, room = shape
  prefixes = np.full((batch, width), model.config.pad, np.int32)
  suffixes = np.full((batch, count, room), model.config.pad, np.int32)
  prefix_lengths, lengths = np.zeros(batch, np.int32), np.ones((batch, count), np.int32)
  for row, user in enumerate(users):
    prefixes[row, : len(user.prefix)] = user.prefix
    prefix_lengths[row] = len(user.prefix)
    for place, suffix in enumerate(user.suffixes):
      suffixes[row, place, : len(suffix)] = suffix
      lengths[row, place] = len(suffix)
  arrays = (prefixes, prefix_lengths, suffixes, lengths)
  spread = rows_sharding(model, batch)
  return arrays if spread is None else tuple(jax.device_put(array, spread) for array in arrays)


def _parts(model: LanguageModel, shape: _Shape) -> int:
  """Returns into how many parts to split the suffixes of a batch, by the memory of one layer."""
  config = model.config
  # Inputs, queries, keys and MLP are in the model's dtype; scores and weights in float32.
  features = 4 * config.width + 3 * config.heads * config.head_size + 3 * config.inner
  one = shape.room * (
    features * jnp.dtype(model.dtype).itemsize + 8 * config.heads * (shape.width + shape.room)
  )
  return min(shape.count, -(-shape.batch * shape.count * one // PART_BYTES))


@functools.partial(jax.jit, static_argnames=("config", "attention", "parts"))
def _label_logits(
  params: Params,
  prefixes: jax.Array,
  prefix_lengths: jax.Array,
  suffixes: jax.Array,
  lengths: jax.Array,
  labels: jax.Array,
  *,
  config: DecoderConfig,
  lora: Lora | None,
  attention: str,
  parts: int,
) -> jax.Array:
  """Logits [B, C, L] float32 of `labels` [L].

  Args: prefixes: [B, P] int32, padded on the right. prefix_lengths: [B] int32, 0 without a common
    prefix. suffixes: [B, C, S] int32. lengths: [B, C] int32. parts: how many to split C into.
  """
  shared = {"config": config, "lora": lora}
  cache = _prefix_cache(params, prefixes, prefix_lengths, attention=attention, **shared)

  def one_part(suffixes: jax.Array, lengths: jax.Array) -> jax.Array:
    hidden = _suffix_hidden(
      params, cache, prefix_lengths, suffixes, lengths, only=lengths.reshape(-1) - 1, **shared
    )
    logits = logits_of(params, hidden[:, 0], config=config, tokens=labels)
    return logits.reshape(*lengths.shape, -1)

  return _in_parts(one_part, suffixes, lengths, parts)


@functools.partial(jax.jit, static_argnames=("config", "attention", "parts"))
def _likelihoods(
  params: Params,
  prefixes: jax.Array,
  prefix_lengths: jax.Array,
  suffixes: jax.Array,
  lengths: jax.Array,
  *,
  config: DecoderConfig,
  lora: Lora | None,
  attention: str,
  parts: int,
) -> jax.Array:
  """Log-likelihoods [B, C] float32 of suffixes without their first tokens; see `_label_logits`."""
  shared = {"config": config, "lora": lora}
  cache = _prefix_cache(params, prefixes, prefix_lengths, attention=attention, **shared)

  def one_part(suffixes: jax.Array, lengths: jax.Array) -> jax.Array:
    hidden = _suffix_hidden(params, cache, prefix_lengths, suffixes, lengths, only=None, **shared)
    logits = logits_of(params, hidden[:, :-1], config=config).reshape(*suffixes[..., 1:].shape, -1)
    chosen = jnp.take_along_axis(logits, suffixes[..., 1:, None], axis=-1)[..., 0]
    log_p = chosen - jax.nn.logsumexp(logits, axis=-1)
    return jnp.where(jnp.arange(log_p.shape[-1]) < lengths[..., None] - 1, log_p, 0.0).sum(axis=-1)

  return _in_parts(one_part, suffixes, lengths, parts)


def _prefix_cache(
  params: Params,
  prefixes: jax.Array,
  prefix_lengths: jax.Array,
  *,
  config: DecoderConfig,
  lora: Lora | None,
  attention: str,
) -> Cache:
  """The cache of the prefixes [B, P], in which padding is empty."""
  _, cache = prompt_cache(
    params, prefixes, jnp.maximum(prefix_lengths, 1), config=config, lora=lora, attention=attention
  )
  real = jnp.arange(prefixes.shape[1]) < prefix_lengths[:, None]
  return cache._replace(positions=jnp.where(real, cache.positions, EMPTY))


def _in_parts(
  one_part: Callable[[jax.Array, jax.Array], jax.Array],
  suffixes: jax.Array,
  lengths: jax.Array,
  parts: int,
) -> jax.Array:
  """Maps suffixes [B, c, S] and lengths [B, c] to [B, c, …], with C split into `parts`."""
  batch, count, room = suffixes.shape
  size = -(-count // parts)
  more = parts * size - count
  suffixes = jnp.pad(suffixes, ((0, 0), (0, more), (0, 0)))
  lengths = jnp.pad(lengths, ((0, 0), (0, more)), constant_values=1)
  by_part = (
    suffixes.reshape(batch, parts, size, room).swapaxes(0, 1),
    lengths.reshape(batch, parts, size).swapaxes(0, 1),
  )
  if parts == 1:
    return one_part(by_part[0][0], by_part[1][0])
  values = jax.lax.map(lambda part: one_part(*part), by_part).swapaxes(0, 1)
  return values.reshape(batch, parts * size, *values.shape[3:])[:, :count]


def _suffix_hidden(
  params: Params,
  cache: Cache,
  prefix_lengths: jax.Array,
  suffixes: jax.Array,
  lengths: jax.Array,
  *,
  only: jax.Array | None,
  config: DecoderConfig,
  lora: Lora | None,
) -> jax.Array:
  """Hidden states [B · c, S or 1, D] of `suffixes` [B, c, S] of `lengths` [B, c] after B cached
  rows. Args: only: [B · c] int32, the one position that is wanted; None for all."""
  _, count, room = suffixes.shape
  positions = prefix_lengths[:, None, None] + jnp.arange(room, dtype=jnp.int32)
  positions = jnp.broadcast_to(positions, suffixes.shape).reshape(-1, room)
  seen = jnp.repeat(cache.positions, count, axis=0)
  hidden, _ = run_decoder(
    params,
    suffixes.reshape(-1, room),
    Batch(positions, lengths.reshape(-1), None, None, seen, only),
    config=config,
    past=cache,
    lora=lora,
    attention="xla",
  )
  return hidden
