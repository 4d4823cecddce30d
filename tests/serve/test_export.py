"""Vectors of runs: inner products are the scores, to rounding, for every user and item."""

import dataclasses

import numpy as np
import pytest

from gatrec_jax import serve as serving
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.errors import InputError
from gatrec_jax.serve import export


def assert_exact(run):
  found = serving.export_embeddings(run)
  want = serving.score(run, found.user_ids)
  np.testing.assert_allclose(found.users @ found.items.T, want, rtol=1e-4, atol=1e-4)
  return found


def width_of(state):
  return 64 + 1 + 40 + 3 + state.unrated.features.shape[1] + 2


def test_best_gives_its_scores_for_all_kinds_of_users_and_items(best):
  ids = best.prepared.interactions
  assert assert_exact(best).items.shape == (40, width_of(best.serving_state))
  # With an unrated item, a user who came later, and one without ratings.
  added = Interactions.from_arrays(["late"] * 3, ["2", "6", "9"], [5, 5, 1], user_ids=["none"])
  fields = {"fresh": dict(best.prepared.item_fields[5]), "bare": {}}
  grown = serving.with_new_ratings(best, added, fields)
  found = assert_exact(grown)
  assert found.user_ids == (*ids.user_ids, "late", "none") and found.item_ids[-1] == "bare"
  assert np.asarray(grown.serving_state.prior).max() > 0


@pytest.mark.parametrize(
  "fields", [{"linear_weight": 0.0}, {"unrated_l2": 0.0}, {"linear_weight": 0.0, "unrated_l2": 0.0}]
)
def test_best_without_some_of_its_channels(best, fields):
  state, width = best.serving_state, width_of(best.serving_state)
  if "linear_weight" in fields:
    state, width = state._replace(linear=None), width - 40
  if "unrated_l2" in fields:
    width -= state.unrated.features.shape[1] + 2
    state = state._replace(unrated=None)
  prior = np.where(np.arange(60) % 2, 0.0, 3.0).astype(np.float32)
  state = state._replace(known=np.arange(60) != 7, prior=prior)
  found = assert_exact(dataclasses.replace(best, serving_state=state))
  assert found.users.shape == (60, width)


def test_files_hold_the_same_in_chunks(best, tmp_path, monkeypatch):
  monkeypatch.setattr(export, "_CHUNK_VALUES", 7 * 500)
  found = serving.export_embeddings(best, tmp_path / "vectors")
  for name in ("users", "items"):
    vectors = np.load(tmp_path / "vectors" / f"{name}.npy", allow_pickle=False)
    np.testing.assert_array_equal(vectors, getattr(found, name))
  assert tuple((tmp_path / "vectors" / "users.txt").read_text().split()) == found.user_ids
  monkeypatch.undo()
  np.testing.assert_allclose(serving.export_embeddings(best).users, found.users, atol=1e-5)


def test_vectors_that_would_be_too_large_are_refused_before_they_are_made(best, monkeypatch):
  monkeypatch.setattr(export, "_MOST_BYTES", 1000)
  with pytest.raises(InputError, match=r"gat scores by inner products of \d+ numbers; .* GiB.*out"):
    serving.export_embeddings(best)
