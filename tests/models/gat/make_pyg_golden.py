"""Writes goldens/gatv2conv.npz: weights, inputs, outputs and gradients of PyTorch Geometric's
GATv2Conv and GATConv with edge features. Needs torch and torch_geometric, which the tests do not:

  pip install torch==2.13.0 torch_geometric && python tests/models/gat/make_pyg_golden.py
"""

import pathlib

import numpy as np
import torch
from torch_geometric.nn import GATConv, GATv2Conv

NODES, EDGES, INPUT, WIDTH, HEADS, FEATURES = 12, 40, 5, 3, 2, 2


def main() -> None:
  torch.manual_seed(0)
  rng = np.random.default_rng(0)
  senders = rng.integers(0, NODES, EDGES)
  receivers = np.sort(rng.integers(0, NODES - 2, EDGES))  # the last two nodes receive nothing
  keep = senders != receivers  # PyG replaces self-loops by its own
  senders, receivers = senders[keep], receivers[keep]
  nodes = torch.tensor(rng.normal(size=(NODES, INPUT)), dtype=torch.float32, requires_grad=True)
  features = torch.tensor(rng.normal(size=(len(senders), FEATURES)), dtype=torch.float32)
  index = torch.tensor(np.stack([senders, receivers]))
  out = {
    "senders": senders.astype(np.int32),
    "receivers": receivers.astype(np.int32),
    "nodes": nodes.detach().numpy(),
    "features": features.numpy(),
  }
  for name, kind in (("v2", GATv2Conv), ("v1", GATConv)):
    for loops in (False, True):
      layer = kind(
        INPUT, WIDTH, heads=HEADS, edge_dim=FEATURES, add_self_loops=loops, fill_value="mean"
      )
      for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
      result = layer(nodes, index, edge_attr=features)
      (gradient,) = torch.autograd.grad(torch.sin(result).sum(), nodes)
      prefix = f"{name}{'_loops' if loops else ''}"
      out[f"{prefix}/out"], out[f"{prefix}/gradient"] = result.detach().numpy(), gradient.numpy()
      for key, value in layer.state_dict().items():
        out[f"{prefix}/{key}"] = value.numpy()
  folder = pathlib.Path(__file__).parent / "goldens"
  folder.mkdir(exist_ok=True)
  np.savez_compressed(folder / "gatv2conv.npz", **out)


if __name__ == "__main__":
  main()
