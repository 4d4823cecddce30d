"""Writes goldens/slim.npz: a small table of positives and the weights that scikit-learn's
ElasticNet gives item by item. Needs scikit-learn, which the tests do not:

  pip install scikit-learn==1.9.1 && python tests/models/baselines/make_slim_golden.py
"""

import pathlib

import numpy as np
from sklearn.linear_model import ElasticNet

USERS, ITEMS = 60, 14
PENALTIES = ((0.02, 0.1), (0.1, 0.02), (0.05, 0.5))  # alpha, l1_ratio


def main() -> None:
  rng = np.random.default_rng(0)
  taste = rng.random((USERS, 3)) @ rng.random((3, ITEMS))
  liked = (rng.random((USERS, ITEMS)) < taste / taste.max() * 0.8).astype(np.float64)
  weights = np.zeros((len(PENALTIES), ITEMS, ITEMS))
  for place, (alpha, l1_ratio) in enumerate(PENALTIES):
    for item in range(ITEMS):
      others = liked.copy()
      others[:, item] = 0
      model = ElasticNet(
        alpha=alpha,
        l1_ratio=l1_ratio,
        positive=True,
        fit_intercept=False,
        max_iter=100_000,
        tol=1e-12,
      )
      weights[place, :, item] = model.fit(others, liked[:, item]).coef_
  path = pathlib.Path(__file__).parent / "goldens" / "slim.npz"
  np.savez_compressed(
    path,
    liked=liked.astype(bool),
    penalties=np.array(PENALTIES),
    weights=weights.astype(np.float32),
  )


if __name__ == "__main__":
  main()
