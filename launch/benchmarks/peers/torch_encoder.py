"""The peer of suite `embed`: transformers with PyTorch.

Needs torch, transformers and safetensors, and imports nothing from this library. Each line of JSON
on standard input is a job, answered by one line of JSON:

  {"job": "hello"}                                       -> versions, threads
  {"job": "load", "folder", "device", "dtype"}           -> seconds
  {"job": "encode", "texts", "max_tokens", "batch_size"} -> seconds, tokens, vectors_sum, first
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers
from answering import answer_jobs
from torch.nn import functional

WARM_UP_TEXTS = 64


class Peer:
  """The encoder and its jobs."""

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

  def load(self, folder: str, device: str, dtype: str = "float32") -> dict[str, Any]:
    """Loads the model and its tokenizer."""
    begun = time.perf_counter()
    self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    self.model = transformers.AutoModel.from_pretrained(
      folder, dtype=getattr(torch, dtype), local_files_only=True
    )
    self.model = self.model.to(device).eval()
    return {"seconds": time.perf_counter() - begun}

  def encode(self, texts: list[str], max_tokens: int, batch_size: int = 32) -> dict[str, Any]:
    """Encodes texts as sentence-transformers does, tokenization included.

    Returns: `tokens` without padding, the sum of all vectors' entries, the first text's vector.
    """
    self._encode(texts[:WARM_UP_TEXTS], max_tokens, batch_size)
    begun = self._now()
    vectors, tokens = self._encode(texts, max_tokens, batch_size)
    return {
      "seconds": self._now() - begun,
      "tokens": tokens,
      "vectors_sum": vectors.double().sum().item(),
      "first": vectors[0].tolist(),
    }

  def _encode(self, texts: list[str], max_tokens: int, batch_size: int) -> tuple[torch.Tensor, int]:
    """Unit vectors [N, D] float32 on the CPU, in the texts' order, and the number of tokens."""
    # The longest first, by characters, so that texts of a batch need little padding.
    order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
    parts, tokens = [], 0
    for start in range(0, len(order), batch_size):
      batch = self.tokenizer(
        [texts[row] for row in order[start : start + batch_size]],
        padding="longest",
        truncation=True,
        max_length=max_tokens,
        return_tensors="pt",
      )
      tokens += int(batch["attention_mask"].sum())
      batch = batch.to(self.model.device)
      hidden = self.model(**batch).last_hidden_state.float()
      mask = batch["attention_mask"][..., None].float()
      parts.append(functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1))
    vectors = torch.cat(parts).cpu()
    return vectors[torch.tensor(order).argsort()], tokens

  def _now(self) -> float:
    """The clock after all pending work is done."""
    if self.model.device.type == "cuda":
      torch.cuda.synchronize()
    return time.perf_counter()


def make_jobs() -> dict[str, Callable[..., dict[str, Any]]]:
  """The jobs by name."""
  peer = Peer()
  return {"hello": peer.hello, "load": peer.load, "encode": peer.encode}


if __name__ == "__main__":
  answer_jobs(make_jobs, within=torch.inference_mode)
