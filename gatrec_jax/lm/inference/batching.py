"""Batches prompts of similar length together, in a few fixed shapes."""

from __future__ import annotations

import bisect
import dataclasses
import os
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from gatrec_jax.errors import InputError
from gatrec_jax.lm.constraints.choices import min_tokens, start_state, union
from gatrec_jax.lm.constraints.permutation import Constraint, Ordering, Progress, first_state, stack
from gatrec_jax.lm.decoder.cache import cache_bytes
from gatrec_jax.lm.folders.load import LanguageModel
from gatrec_jax.lm.folders.memory import require_memory

SMALLEST_BUCKET = 16


@dataclasses.dataclass(frozen=True)
class Group:
  """A batch of prompts and the shapes of its compiled programs.

  Attributes:
    rows: indices of the prompts. batch: B, rows of the batch including padding rows.
    length: T, padded length of the prompts. room: N, slots for new tokens.
    prefix: P, padded length of what stands before all prompts.
  """

  rows: tuple[int, ...]
  batch: int
  length: int
  room: int
  prefix: int = 0

  @property
  def prompt_slots(self) -> int:
    return self.prefix + self.length

  @property
  def slots(self) -> int:
    return self.prompt_slots + self.room


def plan(
  lengths: Sequence[int], limits: Sequence[int], *, batch_size: int = 8, prefix: int = 0
) -> list[Group]:
  """Assigns prompts to batches: similar lengths together, few different shapes.

  Args: lengths: tokens of each prompt. limits: new tokens of each. batch_size: most rows.
    prefix: tokens before all prompts, which `lengths` do not count.
  Raises: InputError for a batch_size below 1.
  """
  if batch_size < 1:
    raise InputError("must be at least 1", field="batch_size", value=batch_size)
  order = sorted(range(len(lengths)), key=lambda row: (bucket(lengths[row]), row))
  groups = []
  for start in range(0, len(order), batch_size):
    rows = tuple(order[start : start + batch_size])
    batch = 1 << (len(rows) - 1).bit_length()
    length = bucket(max(lengths[row] for row in rows))
    room = bucket(max(limits[row] for row in rows))
    before = bucket(prefix) if prefix else 0
    groups.append(Group(rows, min(batch, batch_size), length, room, before))
  return groups


def bucket(length: int) -> int:
  """Rounds up to 16, 24, 32, 48, 64, 96, 128, …; beyond 16, less than a third is padding."""
  sizes = [SMALLEST_BUCKET]
  while sizes[-1] < length:
    sizes.append(sizes[-1] * 3 // 2 if len(sizes) % 2 else sizes[-2] * 2)
  return sizes[bisect.bisect_left(sizes, length)]


def rows_sharding(model: LanguageModel, rows: int) -> NamedSharding | None:
  """Sharding of a batch's rows over the mesh of the weights; None without a mesh.

  Rows are sharded over the `data` axis if there is one and it divides them, else replicated.
  """
  sharding = jax.tree.leaves(model.params)[0].sharding
  if not isinstance(sharding, NamedSharding):
    return None
  size = sharding.mesh.shape.get("data", 1)
  axis = "data" if "data" in sharding.mesh.shape and rows % size == 0 else None
  return NamedSharding(sharding.mesh, PartitionSpec(axis))


def require_ids(model: LanguageModel, ids: Sequence[int], *, what: str) -> None:
  """Raises InputError if an id is outside the vocabulary, which the device would not report."""
  last = model.config.vocabulary - 1
  if len(ids) and not 0 <= min(ids) <= max(ids) <= last:
    names = {token: text for text, token in model.added_tokens.items()}
    token = next(one for one in ids if not 0 <= one <= last)
    if token in names:
      raise InputError(
        f"{what}: the token {names[token]!r} (id {token}) has no row in the model's table of "
        f"{last + 1}; leave it out"
      )
    raise InputError(f"{what}: a token id is not in 0 … {last}")


def require_finite(model: LanguageModel, values: np.ndarray) -> None:
  """Raises InputError if logits, or what was made of them, are NaN or infinite. values: floats."""
  if not np.isfinite(values).all():
    raise InputError(
      f"{model.name}: the model gives non-finite logits; its weights are damaged or overflow in "
      f"{model.dtype}"
    )


def common_length(sequences: Sequence[Sequence[int]]) -> int:
  """How many ids all sequences begin with; at least one of each is left, which none may lack."""
  if not sequences:
    return 0
  return min(len(os.path.commonprefix(list(sequences))), min(map(len, sequences)) - 1)


def truncated_left(ids: Sequence[int], most: int, *, bos: int | None) -> list[int]:
  """Returns the last `most` ids, keeping a leading BOS token."""
  ids = list(ids)
  if len(ids) <= most:
    return ids
  if ids[0] == bos and most > 1:
    return [ids[0], *ids[len(ids) - most + 1 :]]
  return ids[len(ids) - most :]


def joined(
  model: LanguageModel, constraint: Constraint | Sequence[Constraint] | None, limits: Sequence[int]
) -> tuple[Constraint | None, Progress | None]:
  """Merges the constraints of all prompts into one. Returns it and the start state of each row."""
  count, vocabulary = len(limits), model.config.vocabulary
  if constraint is None or count == 0:
    return None, None
  lone = isinstance(constraint, Constraint)
  several = [constraint] * count if lone else list(constraint)
  if len(several) != count:
    raise InputError(f"got {len(several)} constraints for {count} prompts")
  for row, (one, limit) in enumerate(zip(several, limits, strict=True)):
    if not isinstance(one, Constraint):
      raise InputError(
        f"prompt {row + 1}: got {one!r:.40} as its constraint, not an Automaton or Ordering"
      )
    if type(one) is not type(several[0]):
      raise InputError(f"prompt {row + 1}: its constraint is not of the same kind as the first")
    if one.vocabulary != vocabulary:
      raise InputError(
        f"a constraint was made for {one.vocabulary} tokens, but the model has {vocabulary}"
      )
    if set(one.eos) != set(model.eos):
      raise InputError(
        f"a constraint was made with EOS tokens {list(one.eos)}, but the model has "
        f"{list(model.eos)}; make it with eos=model.eos"
      )
    if (least := min_tokens(one)) > limit:
      raise InputError(
        f"prompt {row + 1}: the constraint needs at least {least} tokens, but {limit} are allowed; "
        "raise `max_tokens` or shorten the prompt"
      )
  if isinstance(several[0], Ordering):
    ordering = stack(several)
    return ordering, first_state(ordering, count)
  automaton, starts = union(several)
  return automaton, start_state(starts)


def require_cache(model: LanguageModel, group: Group) -> None:
  where = jax.tree.leaves(model.params)[0].sharding.addressable_devices
  needed = cache_bytes(model.config, rows=group.batch, slots=group.slots, dtype=model.dtype)
  require_memory(
    needed,
    what=f"a cache of {group.batch} rows of {group.slots} tokens",
    remedy="lower `batch_size` or `max_tokens`, or shorten the prompts",
    devices=list(where),
  )
