"""Memory that does not suffice: what is said before JAX would end the process, and afterwards."""

from __future__ import annotations

import errno
import os
import resource
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from gatrec_jax.errors import InputError

# Address space that Python, JAX and Orbax reserve before any data are read; most of it is never
# used. Every thread reserves its stack and an arena of its own, and there are some per core.
BASE_BYTES = 3 << 30
BYTES_PER_CORE = 256 << 20

_WORDS = (
  "RESOURCE_EXHAUSTED",
  "bad_alloc",
  "failed to map segment",
  "annot allocate memory",
  "can't start new thread",
)
# Package -> what it makes, and the settings that make it smaller. The first that fits counts.
_ADVICE = (
  ("gatrec_jax.data", "reading the data", "use a part of the rows, or fewer columns"),
  ("gatrec_jax.evaluate", "ranking all items", "lower `evaluate_memory_mb`"),
  (
    "gatrec_jax.lm",
    "running a language model",
    "use `dtype=bfloat16` or `quantize=int8`, a smaller `batch_size`, or a smaller model",
  ),
  ("gatrec_jax.profiles", "encoding texts", "use `encoder=lexical`"),
  ("gatrec_jax.rerank", "re-ranking", "lower `batch_size` or `top_candidates`"),
  ("gatrec_jax.explain", "explaining", "give fewer `users`"),
  ("gatrec_jax.serve", "recommending", "give fewer `users`"),
  (
    "gatrec_jax",
    "training",
    "lower `batch_size` or `layer_widths`; models of item-item matrices (ease, slim, item_knn) "
    "need the square of the number of items, others such as `model=lightgcn` do not",
  ),
)


def lacking_address_space() -> str:
  """Why this process cannot work under its limit of address space; "" where it can.

  Beyond the limit JAX's threads end the process without a word, which cannot be caught.
  """
  limit = resource.getrlimit(resource.RLIMIT_AS)[0]
  needed = BASE_BYTES + BYTES_PER_CORE * (os.cpu_count() or 1)
  if limit == resource.RLIM_INFINITY or limit >= needed:
    return ""
  return (
    f"the address space is limited to {limit / 2**30:.1f} GiB (ulimit -v), but JAX reserves about "
    f"{needed / 2**30:.1f} GiB before any data are read, most of which is never used; run "
    "`ulimit -v unlimited` first, and limit memory with a container or a cgroup, which count "
    "what is used"
  )


def is_out_of_memory(error: BaseException) -> bool:
  """Whether an error of Python, NumPy, pyarrow, JAX or the system says that memory is lacking."""
  if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
    return True
  return isinstance(error, RuntimeError | ImportError | OSError) and any(
    word in str(error) for word in _WORDS
  )


def advice(error: BaseException) -> InputError:
  """The line for an allocation that failed: what was being made, its size, what would help."""
  from gatrec_jax.errors import InputError

  modules = [
    frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)
  ]
  making, remedy = "starting", "free some memory, or use a machine with more"
  for package, what, settings in _ADVICE:
    if any(module == package or module.startswith(f"{package}.") for module in modules):
      making, remedy = what, settings
      break
  size = " ".join(str(error).split())[:200]
  return InputError(f"out of memory while {making}{f' ({size})' if size else ''}; {remedy}")
