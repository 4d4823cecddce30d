"""Scores labels and continuations by their likelihood, without generating text.

A prompt that several continuations share is evaluated once: its cache has a single row, the
continuations form a batch, and their queries are folded into one product with that row.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.errors import InputError
from gatrec_jax.lm.decoder.cache import Cache
from gatrec_jax.lm.decoder.config import DecoderConfig
from gatrec_jax.lm.decoder.model import Batch, Lora, Params, hidden_states, logits_of, run_decoder
from gatrec_jax.lm.folders.load import LanguageModel
from gatrec_jax.lm.inference.batching import (
  bucket,
  plan,
  require_finite,
  require_ids,
  rows_sharding,
  truncated_left,
)
from gatrec_jax.lm.inference.decode import prompt_cache
from gatrec_jax.lm.tokens.chat import encode_prompt, require_list
from gatrec_jax.lm.tokens.token_bytes import spell

Prompt = str | Sequence[int]
# Most bytes of logits (B · T · V floats) at once.
LOGIT_BYTES = 256 * 2**20


def label_tokens(
  model: LanguageModel, labels: Sequence[str], *, leading_space: bool = False
) -> np.ndarray:
  """Returns the token id of each label, such as A, B, C, or yes, no.

  Args:
    model: a decoder with a tokenizer.
    labels: texts.
    leading_space: whether the label follows a space, as after "Answer:".
  Returns: [L] int32.
  Raises: InputError that lists all labels that are not a single token, or share a token.
  """
  require_list(labels, "labels", "a list of texts")
  if not labels:
    raise InputError("no labels given")
  found: dict[int, str] = {}
  ids, problems = [], []
  for label in labels:
    tokens = spell(model.spelling, (" " if leading_space else "") + label)
    if len(tokens) != 1:
      problems.append(f"{label!r} is {len(tokens)} tokens")
    elif tokens[0] in found:
      problems.append(f"{label!r} is the same token as {found[tokens[0]]!r}")
    else:
      found[tokens[0]] = label
    ids.append(tokens[0] if tokens else 0)
  if problems:
    how = "with" if leading_space else "without"
    raise InputError(
      f"labels must be a single token each {how} a leading space: {'; '.join(problems)}; try "
      f"leading_space={not leading_space}, or labels from single_token_labels"
    )
  return np.array(ids, np.int32)


def single_token_labels(model: LanguageModel, candidates: Sequence[str]) -> tuple[list[str], bool]:
  """Selects the candidates that are a single token, with or without a leading space.

  Returns: the labels, in order, in the form that gives more of them (without a space if equal), and
    whether that form has a leading space.
  """
  forms: list[list[str]] = []
  for space in (False, True):
    kept, seen = [], set()
    for label in candidates:
      tokens = tuple(spell(model.spelling, (" " if space else "") + label))
      if len(tokens) == 1 and tokens not in seen:
        kept.append(label)
        seen.add(tokens)
    forms.append(kept)
  return (forms[1], True) if len(forms[1]) > len(forms[0]) else (forms[0], False)


def score_labels(
  model: LanguageModel,
  prompts: Sequence[Prompt],
  labels: Sequence[str] | np.ndarray,
  *,
  leading_space: bool = False,
  special_tokens: bool = True,
  truncate_left: bool = False,
  batch_size: int = 8,
  lora: Lora | None = None,
) -> np.ndarray:
  """Computes the logits of label tokens after each prompt, in one forward pass.

  Args:
    model: the decoder.
    prompts: N texts or lists of token ids.
    labels: L texts of one token each, or their ids from `label_tokens`.
    leading_space: whether the labels follow a space.
    special_tokens: as in `generate`.
    truncate_left: cuts prompts that are longer than the context instead of rejecting them.
    batch_size: most prompts per batch.
    lora: adapters.
  Returns: [N, L] float32 logits; their softmax over L gives probabilities among the labels.
  """
  require_list(prompts, "prompts", "a list of prompts")
  ids = label_ids(model, labels, leading_space=leading_space)
  sequences = [
    fitting(model, prompt, special_tokens=special_tokens, truncate_left=truncate_left)
    for prompt in prompts
  ]
  scores = np.zeros((len(sequences), len(ids)), np.float32)
  found = []
  for group in plan(list(map(len, sequences)), [1] * len(sequences), batch_size=batch_size):
    rows = list(group.rows)
    tokens, counts = _padded([sequences[row] for row in rows], group.batch, group.length, model)
    out = _label_logits(
      model.params, tokens, counts, ids, config=model.config, lora=lora, attention=model.attention
    )
    found.append((rows, out))
  # Results are fetched at the end, so that a batch is prepared while the previous one runs.
  for rows, out in found:
    scores[rows] = np.asarray(out)[: len(rows)]
  require_finite(model, scores)
  return scores


def label_ids(
  model: LanguageModel, labels: Sequence[str] | np.ndarray, *, leading_space: bool = False
) -> np.ndarray:
  """Returns the ids of labels given as texts or ids, [L] int32. Raises: InputError for bad ids."""
  if not isinstance(labels, np.ndarray):
    return label_tokens(model, labels, leading_space=leading_space)
  require_ids(model, labels.tolist(), what="labels")
  return labels.astype(np.int32)


def fitting(
  model: LanguageModel, prompt: Prompt, *, special_tokens: bool = True, truncate_left: bool = False
) -> list[int]:
  """Returns the token ids of a prompt. Raises: InputError if they do not fit into the context."""
  ids = encode_prompt(model.tokenizer, prompt, bos=model.bos, special_tokens=special_tokens)
  require_ids(model, ids, what="a prompt")
  most = model.config.context
  if len(ids) > most and not truncate_left:
    raise InputError(
      f"a prompt has {len(ids)} tokens, but the model's context is {most}; shorten it"
    )
  return truncated_left(ids, most, bos=model.bos)


def score_continuations(
  model: LanguageModel,
  prompts: Sequence[Prompt],
  continuations: Sequence[Sequence[Prompt]],
  *,
  special_tokens: bool = True,
  lora: Lora | None = None,
) -> list[np.ndarray]:
  """Computes the log-likelihoods of continuations, evaluating each prompt once.

  Args:
    model: the decoder.
    prompts: N texts or lists of token ids.
    continuations: for each prompt, a list of C texts or lists of token ids, none empty. A space
      between prompt and continuation belongs to the continuation.
    special_tokens: as in `generate`.
    lora: adapters.
  Returns: for each prompt [C, 2] float32: log-likelihood in nats, and number of tokens. Divide the
    first by the second to compare continuations of different lengths.
  Raises: InputError for an empty continuation, or one that does not fit into the context.
  """
  require_list(prompts, "prompts", "a list of prompts")
  for several in continuations:
    require_list(several, "continuations", "a list of texts for each prompt")
  if len(prompts) != len(continuations):
    raise InputError(f"got {len(continuations)} lists of continuations for {len(prompts)} prompts")
  results = []
  for number, (prompt, texts) in enumerate(zip(prompts, continuations, strict=True), 1):
    prefix = encode_prompt(model.tokenizer, prompt, bos=model.bos, special_tokens=special_tokens)
    ids = [spell(model.spelling, text) if isinstance(text, str) else list(text) for text in texts]
    for one in (prefix, *ids):
      require_ids(model, one, what=f"prompt {number}")
    if not all(ids):
      raise InputError(f"prompt {number}: a continuation is empty")
    longest = len(prefix) + max(map(len, ids), default=0)
    if longest > model.config.context:
      raise InputError(
        f"prompt {number}: has {longest} tokens with its longest continuation, but the model's "
        f"context is {model.config.context}"
      )
    results.append(_behind_prefix(model, prefix, ids, lora))
  return results


def _behind_prefix(
  model: LanguageModel, prefix: Sequence[int], ids: Sequence[Sequence[int]], lora: Lora | None
) -> np.ndarray:
  """Scores of the continuations of one prompt, [C, 2] float32 as in `score_continuations`."""
  out = np.zeros((len(ids), 2), np.float32)
  if not ids:
    return out
  tokens, lengths = _padded([prefix], 1, bucket(len(prefix)), model)
  shared = {"config": model.config, "lora": lora}
  last, cache = _prefix(model.params, tokens, lengths, attention=model.attention, **shared)
  longest = max(map(len, ids))
  width = bucket(longest)
  size = max(1, LOGIT_BYTES // (4 * model.config.vocabulary * width))
  for start in range(0, len(ids), size):
    part = ids[start : start + size]
    # For few shapes: a full batch, or the next power of two.
    rows = min(size, 1 << (len(part) - 1).bit_length())
    suffixes, counts = _padded(part, rows, width, model)
    nll = _suffixes(model.params, cache, last, suffixes, counts, lengths, **shared)
    out[start : start + len(part), 0] = np.asarray(nll)[: len(part)]
  require_finite(model, out)
  out[:, 1] = list(map(len, ids))
  return out


@functools.partial(jax.jit, static_argnames=("config", "attention"))
def _label_logits(
  params: Params,
  tokens: jax.Array,
  lengths: jax.Array,
  labels: jax.Array,
  *,
  config: DecoderConfig,
  lora: Lora | None,
  attention: str,
) -> jax.Array:
  """Logits [B, L] float32 of `labels` [L] after rows of `tokens` [B, T]."""
  last = hidden_states(
    params, tokens, config=config, lengths=lengths, only=lengths - 1, lora=lora, attention=attention
  )
  return logits_of(params, last[:, 0], config=config, tokens=labels)


@functools.partial(jax.jit, static_argnames=("config", "attention"))
def _prefix(
  params: Params,
  tokens: jax.Array,
  lengths: jax.Array,
  *,
  config: DecoderConfig,
  lora: Lora | None,
  attention: str,
) -> tuple[jax.Array, Cache]:
  """Returns the last hidden state of a prefix, [1, D], and its cache."""
  hidden, cache = prompt_cache(
    params, tokens, lengths, config=config, lora=lora, attention=attention
  )
  return jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)[:, 0], cache


@functools.partial(jax.jit, static_argnames=("config",))
def _suffixes(
  params: Params,
  cache: Cache,
  last: jax.Array,
  tokens: jax.Array,
  lengths: jax.Array,
  prefix_length: jax.Array,
  *,
  config: DecoderConfig,
  lora: Lora | None,
) -> jax.Array:
  """Log-likelihoods [C] of continuations.

  Args:
    cache, last: of the prefix, one row. tokens: [C, S] int32. lengths: [C] int32.
    prefix_length: [1] int32.
  """
  rows, width = tokens.shape
  positions = jnp.broadcast_to(jnp.arange(width, dtype=jnp.int32), tokens.shape) + prefix_length
  batch = Batch(positions, lengths, None, None, cache.positions)
  hidden, _ = run_decoder(
    params, tokens, batch, config=config, past=cache, lora=lora, attention="xla"
  )
  # A token is predicted by the hidden state before it, which for the first is the prefix's last.
  before = jnp.broadcast_to(last[:, None], (rows, 1, last.shape[-1]))
  before = jnp.concatenate([before, hidden[:, :-1]], axis=1)
  logits = logits_of(params, before, config=config)
  chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
  log_probability = chosen - jax.nn.logsumexp(logits, axis=-1)
  return jnp.where(jnp.arange(width) < lengths[:, None], log_probability, 0.0).sum(axis=1)


def _padded(
  sequences: Sequence[Sequence[int]], rows: int, width: int, model: LanguageModel
) -> tuple[jax.Array, jax.Array]:
  """Pads sequences on the right. Returns: [rows, width] int32, and lengths [rows], 1 if empty."""
  tokens = np.full((rows, width), model.config.pad, np.int32)
  lengths = np.ones(rows, np.int32)
  for place, sequence in enumerate(sequences):
    tokens[place, : len(sequence)] = sequence
    lengths[place] = len(sequence)
  spread = rows_sharding(model, rows)
  return jax.device_put(tokens, spread), jax.device_put(lengths, spread)
