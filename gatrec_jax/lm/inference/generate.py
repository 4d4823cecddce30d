"""Generates text from prompts: batching, stop strings, streaming, throughput."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gatrec_jax.errors import InputError
from gatrec_jax.lm.constraints.permutation import Constraint, Progress
from gatrec_jax.lm.decoder.model import Lora
from gatrec_jax.lm.folders.load import LanguageModel
from gatrec_jax.lm.inference.batching import (
  Group,
  common_length,
  joined,
  plan,
  require_cache,
  require_finite,
  require_ids,
  rows_sharding,
  truncated_left,
)
from gatrec_jax.lm.inference.decode import Decoding, Prefix, decode, prefill
from gatrec_jax.lm.inference.sampling import Sampler, Sampling, make_sampler
from gatrec_jax.lm.tokens.chat import encode_prompt, require_list
from gatrec_jax.lm.tokens.detokenize import TextTail, cut_at_stop
from gatrec_jax.sharding.placement import to_device

# Decoding steps between two checks of the text, with streaming or stop strings.
STEPS_AT_ONCE = 16
TRUNCATIONS = ("error", "left")
# Called as on_text(index of the prompt, new text of its answer).
OnText = Callable[[int, str], None]


@dataclasses.dataclass(frozen=True)
class Generation:
  """The answer to one prompt.

  Attributes:
    text: without the prompt, special tokens and stop string; "" without a tokenizer.
    tokens: generated ids, without the EOS token.
    finish: why the answer ended: `eos` (an EOS token), `stop` (a stop string), `length` (max_tokens
      or the end of the context), or `complete` (constrained answers, which are always complete).
    prompt_tokens: ids of the prompt that the model was given.
    truncated: ids that were cut off the left of the prompt.
  """

  text: str
  tokens: tuple[int, ...]
  finish: str
  prompt_tokens: int
  truncated: int = 0


@dataclasses.dataclass
class Speed:
  """Token counts and times of generation, summed over batches. `generate` adds to it.

  Attributes:
    prompt_tokens, prefill_seconds: of the prompts, including the first new token of each.
    new_tokens, decode_seconds: of the tokens after the first of each row.
  """

  prompt_tokens: int = 0
  prefill_seconds: float = 0.0
  new_tokens: int = 0
  decode_seconds: float = 0.0

  def line(self) -> str:
    """Formats counts, times and tokens/s as one line."""
    prefill_rate = self.prompt_tokens / max(self.prefill_seconds, 1e-9)
    decode_rate = self.new_tokens / max(self.decode_seconds, 1e-9)
    return (
      f"prefill {self.prompt_tokens} tokens in {self.prefill_seconds:.3f} s "
      f"({prefill_rate:.1f} tokens/s), decode {self.new_tokens} tokens in "
      f"{self.decode_seconds:.3f} s ({decode_rate:.1f} tokens/s)"
    )


def generate(
  model: LanguageModel,
  prompts: Sequence[str | Sequence[int]],
  *,
  max_tokens: int | Sequence[int] = 128,
  sampling: Sampling = Sampling(),  # noqa: B008  (frozen)
  seed: int = 0,
  stop: Sequence[str] = (),
  constraint: Constraint | Sequence[Constraint] | None = None,
  truncate: str = "error",
  special_tokens: bool = True,
  batch_size: int = 8,
  share_prefix: bool = False,
  lora: Lora | None = None,
  on_text: OnText | None = None,
  on_done: Callable[[int], None] | None = None,
  speed: Speed | None = None,
) -> list[Generation]:
  """Generates a continuation of each prompt.

  Prints nothing; use `on_text` and `on_done` to follow the progress.

  Args:
    model: the decoder.
    prompts: texts or lists of token ids. An empty prompt means the BOS token alone.
    max_tokens: most new tokens, for all prompts or for each; also limited by the context.
    sampling: how tokens are drawn; by default always the most likely token.
    seed: of the random draws, which are independent of the batch size.
    stop: an answer ends before the first of these strings.
    constraint: which answers are allowed, from `answer_choices`, `answer_schema`, `token_trie` or
      `make_ordering`; one for all prompts, or a list of one per prompt, all of the same kind.
    truncate: `error` rejects prompts longer than the context; `left` cuts prompts on the left until
      there is room for `max_tokens`, or for half the context if that is less.
    special_tokens: whether the tokenizer adds its special tokens; False for prompts from
      `render_chat`.
    batch_size: most prompts per batch.
    share_prefix: evaluates what all prompts begin with once per batch, which saves time after long
      instructions; logits differ by rounding.
    lora: adapters.
    on_text: called as on_text(index of the prompt, new text) while text is generated.
    on_done: called with the number of prompts of each finished batch.
    speed: token counts and times are added to it.
  Returns: one `Generation` per prompt, in the order of the prompts.
  Raises: InputError for a prompt that does not fit into the context, a constraint that needs more
    tokens than allowed, or a cache that does not fit into memory.
  """
  sequences, cuts, limits = _prepared(model, prompts, max_tokens, truncate, special_tokens)
  require_list(stop, "stop", "a list of texts")
  if "" in stop:
    raise InputError("a stop string is empty")
  if stop and model.tokenizer is None:
    raise InputError("stop strings need a tokenizer; the model folder has none")
  whole, first = joined(model, constraint, limits)
  sampler = make_sampler(sampling)
  keys = jax.random.split(jax.random.key(seed), max(1, len(sequences)))
  results: list[Generation | None] = [None] * len(sequences)
  shared = common_length(sequences) if share_prefix else 0
  own = [len(sequence) - shared for sequence in sequences]
  for group in plan(own, limits, batch_size=batch_size, prefix=shared):
    require_cache(model, group)
    loop = _Loop(model, group, sampler, whole, lora, sequences[0][:shared])
    begun = time.perf_counter()
    state = loop.prefill([sequences[row][shared:] for row in group.rows], limits, first, keys)
    jax.block_until_ready(state.step)
    prefilled = time.perf_counter()
    tails = {}
    if model.tokenizer is not None and (stop or on_text):
      tails = {row: TextTail(model.spelling, sequences[row], stop) for row in group.rows}
    tokens, emitted = _run(loop, state, tails, on_text)
    ended = time.perf_counter()
    for place, row in enumerate(group.rows):
      drawn = tokens[place, : emitted[place]].tolist()
      results[row] = _finished(
        model, sequences[row], drawn, stop, constrained=whole is not None, cut=cuts[row]
      )
      if row in tails and on_text is not None and (rest := tails[row].rest(results[row].text)):
        on_text(row, rest)
    if on_done is not None:
      on_done(len(group.rows))
    if speed is not None:
      speed.prompt_tokens += shared + sum(own[row] for row in group.rows)
      speed.prefill_seconds += prefilled - begun
      speed.new_tokens += int(sum(max(0, count - 1) for count in emitted[: len(group.rows)]))
      speed.decode_seconds += ended - prefilled
  return results


def warm_up(
  model: LanguageModel,
  prompts: Sequence[str | Sequence[int]],
  *,
  max_tokens: int | Sequence[int] = 128,
  sampling: Sampling = Sampling(),  # noqa: B008  (frozen)
  constraint: Constraint | Sequence[Constraint] | None = None,
  truncate: str = "error",
  special_tokens: bool = True,
  batch_size: int = 8,
  lora: Lora | None = None,
) -> float:
  """Compiles all programs that `generate` needs for these arguments. Returns: seconds."""
  begun = time.perf_counter()
  sequences, _, limits = _prepared(model, prompts, max_tokens, truncate, special_tokens)
  whole, first = joined(model, constraint, limits)
  keys = jax.random.split(jax.random.key(0), max(1, len(sequences)))
  shapes = {
    (group.batch, group.length, group.room): group
    for group in plan(list(map(len, sequences)), limits, batch_size=batch_size)
  }
  for group in shapes.values():
    require_cache(model, group)
    loop = _Loop(model, group, make_sampler(sampling), whole, lora)
    state = loop.prefill([sequences[row] for row in group.rows], limits, first, keys)
    jax.block_until_ready(loop.decode(state, 0).step)
  return time.perf_counter() - begun


class _Loop:
  """The two compiled programs (`prefill` and `decode`) with the arguments of a batch."""

  def __init__(
    self,
    model: LanguageModel,
    group: Group,
    sampler: Sampler,
    constraint: Constraint | None,
    lora: Lora | None,
    prefix: Sequence[int] = (),
  ) -> None:
    self.model, self.group, self.lora, self.prefix = model, group, lora, list(prefix)
    self.shared = {
      "config": model.config,
      "sampler": sampler,
      "constraint": constraint,
      # -1 is not a token: models without EOS tokens run the same program.
      "eos": to_device(np.array(model.eos or (-1,), np.int32)),
      "lora": lora,
    }

  def prefill(
    self,
    sequences: Sequence[Sequence[int]],
    limits: Sequence[int],
    first: Progress | None,
    keys: jax.Array,
  ) -> Decoding:
    group = self.group
    prompts = np.full((group.batch, group.length), self.model.config.pad, np.int32)
    lengths, most = np.ones(group.batch, np.int32), np.zeros(group.batch, np.int32)
    for place, sequence in enumerate(sequences):
      prompts[place, : len(sequence)] = sequence
      lengths[place], most[place] = len(sequence), limits[group.rows[place]]
    # Rows that pad the batch repeat the first one and are done from the start.
    rows = np.array([*group.rows, *[group.rows[0]] * (group.batch - len(group.rows))])
    spread = rows_sharding(self.model, group.batch)
    keys, node = _select_rows((keys, first), rows)
    return prefill(
      self.model.params,
      jax.device_put(prompts, spread),
      jax.device_put(lengths, spread),
      jax.device_put(most, spread),
      keys,
      node=node,
      slots=group.slots,
      room=group.room,
      prefix=self._padded_prefix() if self.prefix else None,
      attention=self.model.attention,
      **self.shared,
    )

  def _padded_prefix(self) -> Prefix:
    tokens = np.full((1, self.group.prefix), self.model.config.pad, np.int32)
    tokens[0, : len(self.prefix)] = self.prefix
    return Prefix(to_device(tokens), jnp.int32(len(self.prefix)))

  def decode(self, state: Decoding, until: int) -> Decoding:
    return decode(
      self.model.params,
      state,
      jnp.int32(until),
      prompt_slots=self.group.prompt_slots,
      **self.shared,
    )


@jax.jit
def _select_rows(tree: Any, rows: np.ndarray) -> Any:
  """Selects rows of all arrays of a tree, as one program instead of one per array."""
  return jax.tree.map(lambda leaf: leaf[rows], tree)


def _run(
  loop: _Loop, state: Decoding, tails: dict[int, TextTail], on_text: OnText | None
) -> tuple[np.ndarray, np.ndarray]:
  """Decodes to the end. Returns: tokens [B, N] int32, and the number of tokens of each row [B]."""
  most = int(np.asarray(state.limits).max())
  step = 1
  while True:
    if tails:
      tokens, emitted = np.asarray(state.tokens), np.asarray(state.emitted)
      stopped = np.zeros(loop.group.batch, bool)
      for place, row in enumerate(loop.group.rows):
        fresh, stopped[place] = tails[row].feed(tokens[place, : emitted[place]].tolist())
        if fresh and on_text is not None:
          on_text(row, fresh)
      # `stopped` stays a NumPy array: a committed array would cause another compilation.
      state = state.replace(done=state.done | stopped)
    if bool(state.done.all()) or step >= most:
      require_finite(loop.model, np.where(state.finite, 0.0, np.nan))
      return np.asarray(state.tokens), np.asarray(state.emitted)
    step = min(most, step + STEPS_AT_ONCE) if tails else most
    state = loop.decode(state, step)


def _prepared(
  model: LanguageModel,
  prompts: Sequence[str | Sequence[int]],
  max_tokens: int | Sequence[int],
  truncate: str,
  special_tokens: bool,
) -> tuple[list[list[int]], list[int], list[int]]:
  """Returns the token ids of each prompt, how many were cut off, and its most new tokens."""
  require_list(prompts, "prompts", "a list of prompts")
  if truncate not in TRUNCATIONS:
    raise InputError(f"not one of {', '.join(TRUNCATIONS)}", field="truncate", value=truncate)
  limits = [max_tokens] * len(prompts) if isinstance(max_tokens, int) else list(max_tokens)
  if len(limits) != len(prompts):
    raise InputError(f"got {len(limits)} values of max_tokens for {len(prompts)} prompts")
  if any(limit < 1 for limit in limits):
    raise InputError("must be at least 1", field="max_tokens", value=min(limits))
  context, sequences, cuts = model.config.context, [], []
  for row, prompt in enumerate(prompts):
    try:
      ids = encode_prompt(model.tokenizer, prompt, bos=model.bos, special_tokens=special_tokens)
    except InputError as error:
      raise InputError(f"prompt {row + 1}: {error}") from None
    require_ids(model, ids, what=f"prompt {row + 1}")
    kept = ids
    if len(ids) >= context and truncate == "error":
      raise InputError(
        f"prompt {row + 1} has {len(ids)} tokens, but the model's context of {context} must also "
        "hold the answer; shorten it, or use `truncate=left`"
      )
    if truncate == "left":
      # The prompt keeps at least half of the context, whatever max_tokens is.
      kept = truncated_left(ids, context - min(limits[row], context // 2), bos=model.bos)
    sequences.append(kept)
    cuts.append(len(ids) - len(kept))
    limits[row] = min(limits[row], context - len(kept))
  return sequences, cuts, limits


def _finished(
  model: LanguageModel,
  prompt: Sequence[int],
  drawn: list[int],
  stop: Sequence[str],
  *,
  constrained: bool,
  cut: int,
) -> Generation:
  finish = "complete" if constrained else "length"
  if drawn and drawn[-1] in model.eos:
    drawn, finish = drawn[:-1], finish if constrained else "eos"
  text = ""
  if model.tokenizer is not None:
    drawn, text, stopped = cut_at_stop(model.spelling, prompt, drawn, stop)
    finish = "stop" if stopped else finish
  return Generation(text, tuple(drawn), finish, len(prompt), cut)
