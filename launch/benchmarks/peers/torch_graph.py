"""The peer of suites `attention` and `train`: PyTorch Geometric.

Needs torch, torch_geometric and numpy, and imports nothing from this library. Each line of JSON on
standard input is a job, answered by one line of JSON:

  {"job": "hello"}                                               -> versions, threads
  {"job": "load", "path", "device"}                              -> seconds, counts
  {"job": "gat_step", "widths", "heads", "version", "features", "feature_width", "repeats",
   "batch"}                                                      -> STEPS
  {"job": "lightgcn_step", "layers", "width", "batch", "repeats"} -> STEPS
  {"job": "attention", "num_heads", "width", "repeats", "path"}  -> STEPS
  {"job": "author_negatives", "repeats", "way"}                  -> seconds, way

STEPS are {"seconds": of each step, "loss": the last, "peak_memory_mb", "peak_device_memory_mb"}:
`repeats` steps after a warm-up step, which is not reported. Memory is in MiB: the peak resident
memory of the process during the job, and torch's peak on a CUDA device (null elsewhere).
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_geometric
from answering import answer_jobs, peak_memory
from torch.nn import functional
from torch_geometric.nn import GATConv, GATv2Conv
from torch_geometric.nn.models import LightGCN

CONVOLUTIONS = {"v1": GATConv, "v2": GATv2Conv}
ID_SCALE = 0.1  # standard deviation of a random table
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 1e-5
Sets = dict[int, set[int]]


class GatNetwork(torch.nn.Module):
  """Ebrat et al. 2025: convolution → LayerNorm → LeakyReLU → + residual, on a trainable table."""

  def __init__(
    self, table: torch.Tensor, *, widths: list[int], heads: list[int], version: str
  ) -> None:
    """Args: table: [N, D] float32; widths: units per head, one a layer; heads: one a layer."""
    super().__init__()
    self.table = torch.nn.Parameter(table.clone())
    self.convolutions = torch.nn.ModuleList()
    self.norms = torch.nn.ModuleList()
    self.residuals = torch.nn.ModuleList()
    before = table.shape[1]
    for width, count in zip(widths, heads, strict=True):
      after = width * count
      self.convolutions.append(_convolution(before, width, count, version))
      self.norms.append(torch.nn.LayerNorm(after))
      same = before == after
      self.residuals.append(torch.nn.Identity() if same else torch.nn.Linear(before, after))
      before = after

  def forward(self, edges: torch.Tensor, ratings: torch.Tensor) -> torch.Tensor:
    """Args: edges: [2, E] int64; ratings: [E, 1] float32. Returns: [N, D_out] float32."""
    nodes = self.table
    for convolution, norm, residual in zip(
      self.convolutions, self.norms, self.residuals, strict=True
    ):
      out = functional.leaky_relu(norm(convolution(nodes, edges, ratings)), 0.01)
      nodes = out + residual(nodes)
    return nodes


class Peer:
  """The ratings and the jobs on them. Nodes are all users, then all items."""

  def hello(self) -> dict[str, Any]:
    """Versions and threads; uses all CPUs available to this process."""
    allowed = getattr(os, "sched_getaffinity", None)
    torch.set_num_threads(len(allowed(0)) if allowed else os.cpu_count())
    return {
      "torch": torch.__version__,
      "torch_geometric": torch_geometric.__version__,
      "threads": torch.get_num_threads(),
      "cuda": torch.cuda.is_available(),
    }

  def load(self, path: str, device: str) -> dict[str, Any]:
    """Reads an .npz and puts its graph on a device.

    Args: path: holds `user`, `item` [P] int32 (liked), `edge_user`, `edge_item` [R] int32 and
      `edge_rating` [R] float32 (all of training), `disliked_user`, `disliked_item` [M] int32,
      `text` [N, D] float32, `num_users`, `num_items`.
    """
    begun = time.perf_counter()
    with np.load(path, allow_pickle=False) as file:
      arrays = {name: file[name] for name in file.files}
    self.num_users, self.num_items = int(arrays["num_users"]), int(arrays["num_items"])
    self.liked = arrays["user"], arrays["item"]
    self.disliked = arrays["disliked_user"], arrays["disliked_item"]
    self.device = torch.device(device)
    self.text = torch.from_numpy(arrays["text"]).to(self.device)
    self.positives = self._pairs(*self.liked)
    one_way = self._pairs(arrays["edge_user"], arrays["edge_item"])
    self.edges = torch.cat([one_way, one_way.flip(0)], dim=1)
    rating = torch.from_numpy(arrays["edge_rating"]).to(self.device)
    self.ratings = torch.cat([rating, rating])[:, None]
    return {
      "seconds": self._now() - begun,
      "positives": self.positives.shape[1],
      "edges": self.edges.shape[1],
    }

  def gat_step(
    self,
    widths: list[int],
    heads: list[int],
    repeats: int,
    version: str = "v2",
    features: str = "table",
    feature_width: int = 64,
    batch: int = 0,
  ) -> dict[str, Any]:
    """The paper's step: BPR + 1 · (1 − cosine), AdamW; negatives are drawn before timing.

    Args: widths: units per head. features: `table` is initialized with the text vectors, `ids` at
      random with `feature_width`. batch: positives per step, 0 for all.
    """
    torch.manual_seed(0)
    tables = {
      "table": lambda: self.text,
      "ids": lambda: ID_SCALE * torch.randn(self._nodes(), feature_width, device=self.device),
    }
    model = GatNetwork(tables[features](), widths=widths, heads=heads, version=version)
    model = model.to(self.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)

    def step(pairs: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
      """Args: pairs: [2, B] int64 nodes; negatives: [B] int64 nodes. Returns: [] float32."""
      optimizer.zero_grad()
      nodes = model(self.edges, self.ratings)
      user, positive, negative = nodes[pairs[0]], nodes[pairs[1]], nodes[negatives]
      margin = (user * positive).sum(-1) - (user * negative).sum(-1)
      cosine = functional.cosine_similarity(user, positive)
      loss = -functional.logsigmoid(margin).mean() + (1 - cosine).mean()
      loss.backward()
      optimizer.step()
      return loss.detach()

    return self._timed(step, lambda: self._draw(batch), repeats)

  def lightgcn_step(self, layers: int, width: int, repeats: int, batch: int = 0) -> dict[str, Any]:
    """A step of PyTorch Geometric's LightGCN and its loss, on the liked pairs."""
    torch.manual_seed(0)
    model = LightGCN(self._nodes(), width, layers).to(self.device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    edges = torch.cat([self.positives, self.positives.flip(0)], dim=1)

    def step(pairs: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
      """Args: pairs: [2, B] int64 nodes; negatives: [B] int64 nodes. Returns: [] float32."""
      optimizer.zero_grad()
      labels = torch.cat([pairs, torch.stack([pairs[0], negatives])], dim=1)
      positive, negative = model(edges, labels).chunk(2)
      # As in PyTorch Geometric's example: only the nodes of the batch are held small.
      loss = model.recommendation_loss(positive, negative, node_id=labels.unique())
      loss.backward()
      optimizer.step()
      return loss.detach()

    return self._timed(step, lambda: self._draw(batch), repeats)

  def attention(
    self, num_heads: int, width: int, repeats: int, path: str | None = None
  ) -> dict[str, Any]:
    """GATv2Conv over the graph's 2R edges, forward and backward.

    Its input is [N, H * D] random nodes, which also receive gradients, as inside a network.

    Args: path: an .npz to load first, onto the same device.
    """
    if path is not None:
      self.load(path, str(self.device))
    torch.manual_seed(0)
    convolution = _convolution(num_heads * width, width, num_heads, "v2").to(self.device)
    nodes = torch.randn(self._nodes(), num_heads * width, device=self.device, requires_grad=True)

    def step() -> torch.Tensor:
      """Returns: [] float32, the sum of the outputs."""
      convolution.zero_grad()
      nodes.grad = None
      loss = convolution(nodes, self.edges, self.ratings).sum()
      loss.backward()
      return loss.detach()

    return self._timed(step, lambda: (), repeats)

  def author_negatives(self, repeats: int, way: str = "released") -> dict[str, Any]:
    """Draws one negative per positive in a Python loop, from a pool built for each; no warm-up.

    Args: way: `released` does what the paper's released code does: the set of the array of all
      items minus the user's liked and disliked ones, converted to a list, and `np.random.choice`
      without replacement; `lean` uses a set of int built once, and `random.choice`.
    """
    as_type, draw = {
      "released": (lambda ids: ids.astype(np.int64), _released_negatives),
      "lean": (np.ndarray.tolist, _lean_negatives),
    }[way]
    users, *others = (as_type(ids) for ids in (*self.liked, *self.disliked))
    liked, disliked = _sets(users, others[0]), _sets(*others[1:])
    np.random.seed(0)
    random.seed(0)
    seconds = []
    for _ in range(repeats):
      begun = time.perf_counter()
      draw(users, self.num_items, liked, disliked)
      seconds.append(time.perf_counter() - begun)
    return {"seconds": seconds, "way": way}

  def _draw(self, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Positives [2, B] (all where `batch` is 0) and an item for each [B], all as nodes."""
    pairs, count = self.positives, self.positives.shape[1]
    if batch:
      pairs = pairs[:, torch.randint(count, (batch,), device=self.device)]
    low, high = self.num_users, self._nodes()
    return pairs, torch.randint(low, high, (pairs.shape[1],), device=self.device)

  def _timed(
    self, step: Callable[..., torch.Tensor], draw: Callable[[], tuple[Any, ...]], repeats: int
  ) -> dict[str, Any]:
    """Seconds of `step` on the batch of `draw`, which is drawn before timing."""
    self._forget_peaks()
    seconds = []
    for _ in range(repeats + 1):
      drawn = draw()
      begun = self._now()
      loss = step(*drawn)
      seconds.append(self._now() - begun)
    on_cuda = self.device.type == "cuda"
    return {
      "seconds": seconds[1:],
      "loss": loss.item(),
      "peak_memory_mb": peak_memory(),
      "peak_device_memory_mb": torch.cuda.max_memory_allocated() / 2**20 if on_cuda else None,
    }

  def _forget_peaks(self) -> None:
    """Resets the peaks; if the system refuses, the peak since the start of the process remains."""
    with contextlib.suppress(OSError):
      Path("/proc/self/clear_refs").write_text("5")
    if self.device.type == "cuda":
      torch.cuda.reset_peak_memory_stats()

  def _pairs(self, users: np.ndarray, items: np.ndarray) -> torch.Tensor:
    """Args: [P] int32 each. Returns: [2, P] int64 nodes."""
    nodes = np.stack([users, items + np.int32(self.num_users)]).astype(np.int64)
    return torch.from_numpy(nodes).to(self.device)

  def _nodes(self) -> int:
    return self.num_users + self.num_items

  def _now(self) -> float:
    """The clock after all pending work is done."""
    if self.device.type == "cuda":
      torch.cuda.synchronize()
    return time.perf_counter()


def _convolution(before: int, width: int, heads: int, version: str) -> torch.nn.Module:
  """[N, before] -> [N, heads * width], with the rating as the edge feature."""
  return CONVOLUTIONS[version](
    before, width, heads=heads, concat=True, add_self_loops=False, edge_dim=1
  )


def _released_negatives(
  users: np.ndarray, num_items: int, liked: Sets, disliked: Sets
) -> list[np.int64]:
  """Args: users: [P] int64. Returns: P items."""
  items = np.arange(num_items)
  drawn = []
  for user in users:
    pool = list(set(items) - (liked[user] | disliked.get(user, set())))
    drawn.extend(np.random.choice(pool, size=1, replace=False))
  return drawn


def _lean_negatives(users: list[int], num_items: int, liked: Sets, disliked: Sets) -> list[int]:
  """Args: users: P of them. Returns: P items."""
  items = set(range(num_items))
  nothing: set[int] = set()
  return [random.choice(list(items - liked[user] - disliked.get(user, nothing))) for user in users]


def _sets(users: Iterable[int], items: Iterable[int]) -> Sets:
  """The items of each user."""
  sets: Sets = {}
  for user, item in zip(users, items, strict=True):
    sets.setdefault(user, set()).add(item)
  return sets


def make_jobs() -> dict[str, Callable[..., dict[str, Any]]]:
  """The jobs by name."""
  peer = Peer()
  return {
    "hello": peer.hello,
    "load": peer.load,
    "gat_step": peer.gat_step,
    "lightgcn_step": peer.lightgcn_step,
    "attention": peer.attention,
    "author_negatives": peer.author_negatives,
  }


if __name__ == "__main__":
  answer_jobs(make_jobs)
