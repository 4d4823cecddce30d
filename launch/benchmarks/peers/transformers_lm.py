"""The peer of suite `lm`: transformers with PyTorch.

Needs torch, transformers and safetensors, and imports nothing from this library. Each line of JSON
on standard input is a job, answered by one line of JSON:

  {"job": "hello"}                                          -> versions, threads
  {"job": "load", "folder", "dtype", "device"}              -> seconds
  {"job": "generate", "prompts", "max_tokens"}              -> two ways to generate, timed
  {"job": "continuations", "prefix", "continuations"}       -> two ways to score, timed
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers
from answering import answer_jobs

MEMORY_SHARE = 0.5  # of what is free: a batch of all continuations may take so much


class FirstToken(transformers.StoppingCriteria):
  """A stopping criterion that never stops, and records when the first token came."""

  def __init__(self, now: Callable[[], float]) -> None:
    self._now = now
    self.time: float | None = None

  def __call__(self, ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
    if self.time is None:
      self.time = self._now()
    return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)


class Peer:
  """The model and its jobs."""

  def hello(self) -> dict[str, Any]:
    """Versions and threads; uses all CPUs available to this process."""
    allowed = getattr(os, "sched_getaffinity", None)
    torch.set_num_threads(len(allowed(0)) if allowed else os.cpu_count())
    return {
      "torch": torch.__version__,
      "transformers": transformers.__version__,
      "threads": torch.get_num_threads(),
      "cuda": torch.cuda.is_available(),
    }

  def load(self, folder: str, dtype: str, device: str) -> dict[str, Any]:
    """Loads the model with PyTorch's fused attention, and without end tokens."""
    begun = time.perf_counter()
    self.model = transformers.AutoModelForCausalLM.from_pretrained(
      folder, dtype=getattr(torch, dtype), attn_implementation="sdpa", local_files_only=True
    )
    self.model = self.model.to(device).eval()
    # The folder's own configuration may enable sampling, penalties and end tokens.
    self.model.generation_config = transformers.GenerationConfig()
    return {"seconds": time.perf_counter() - begun}

  def generate(self, prompts: list[list[int]], max_tokens: int) -> dict[str, Any]:
    """Greedy tokens by `model.generate`, and by a plain loop over `model.forward`."""
    tokens = torch.tensor(prompts, device=self.model.device)
    return {"generate": self._generate(tokens, max_tokens), "loop": self._loop(tokens, max_tokens)}

  def continuations(self, prefix: list[int], continuations: list[list[int]]) -> dict[str, Any]:
    """Log-likelihoods by a forward pass for each continuation, and by one for all of them."""
    rows = torch.tensor([prefix + one for one in continuations], device=self.model.device)
    count = len(continuations[0])
    begun = self._now()
    values = [self._log_likelihoods(rows[row : row + 1], count)[0] for row in range(len(rows))]
    answer = {"separate": {"seconds": self._now() - begun, "values": values}, "batched": None}
    if self._fits(rows, count):
      begun = self._now()
      try:
        values = self._log_likelihoods(rows, count)
        answer["batched"] = {"seconds": self._now() - begun, "values": values}
      except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
    return answer

  def _generate(self, tokens: torch.Tensor, max_tokens: int) -> dict[str, Any]:
    watch = FirstToken(self._now)
    config = transformers.GenerationConfig(
      max_new_tokens=max_tokens,
      min_new_tokens=max_tokens,
      do_sample=False,
      use_cache=True,
      eos_token_id=None,
      pad_token_id=None,
    )
    begun = self._now()
    out = self.model.generate(
      tokens,
      attention_mask=torch.ones_like(tokens),
      generation_config=config,
      stopping_criteria=transformers.StoppingCriteriaList([watch]),
    )
    ended = self._now()
    new = out[:, tokens.shape[1] :]
    if new.shape[1] != max_tokens:
      raise RuntimeError(f"generate returned {new.shape[1]} tokens instead of {max_tokens}")
    return _timed(begun, watch.time, ended, new)

  def _loop(self, tokens: torch.Tensor, max_tokens: int) -> dict[str, Any]:
    begun = self._now()
    out = self.model(tokens, use_cache=True, logits_to_keep=1)
    drawn = [out.logits[:, -1].argmax(-1, keepdim=True)]
    first = self._now()
    for _ in range(max_tokens - 1):
      out = self.model(
        drawn[-1], past_key_values=out.past_key_values, use_cache=True, logits_to_keep=1
      )
      drawn.append(out.logits[:, -1].argmax(-1, keepdim=True))
    return _timed(begun, first, self._now(), torch.cat(drawn, dim=1))

  def _log_likelihoods(self, rows: torch.Tensor, count: int) -> list[float]:
    """Log-likelihoods of the last `count` tokens of each row; logits are computed only there."""
    logits = self.model(rows, use_cache=False, logits_to_keep=count + 1).logits[:, :-1].float()
    chosen = logits.gather(-1, rows[:, -count:, None])[..., 0]
    return (chosen - logits.logsumexp(-1)).sum(-1).tolist()

  def _fits(self, rows: torch.Tensor, count: int) -> bool:
    """Whether all rows fit in one batch: a CPU process that runs out of memory is killed."""
    if self.model.device.type != "cpu":
      return True
    config = self.model.config
    inner = 4 * getattr(config, "intermediate_size", 4 * config.hidden_size)
    wide = rows.numel() * (inner + 12 * config.hidden_size)
    needed = 4 * (wide + 3 * len(rows) * (count + 1) * config.vocab_size)
    try:
      with open("/proc/meminfo") as file:
        free = next(int(one.split()[1]) for one in file if one.startswith("MemAvailable:")) * 1024
    except (OSError, StopIteration):
      return True
    return needed < MEMORY_SHARE * free

  def _now(self) -> float:
    """The clock after all pending work is done."""
    if self.model.device.type == "cuda":
      torch.cuda.synchronize()
    return time.perf_counter()


def _timed(begun: float, first: float, ended: float, tokens: torch.Tensor) -> dict[str, Any]:
  return {
    "prefill_seconds": first - begun,
    "decode_seconds": ended - first,
    "tokens": tokens.tolist(),
  }


def make_jobs() -> dict[str, Callable[..., dict[str, Any]]]:
  """The jobs by name."""
  peer = Peer()
  return {
    "hello": peer.hello,
    "load": peer.load,
    "generate": peer.generate,
    "continuations": peer.continuations,
  }


if __name__ == "__main__":
  answer_jobs(make_jobs, within=torch.inference_mode)
