"""What a run keeps beside its checkpoints: weights that are not fitted again, settings it chose."""

import jax
import numpy as np
import pytest

from gatrec_jax import runs
from gatrec_jax.errors import DamagedFile
from gatrec_jax.models.gat.channels import known_linear_scores, linear_scores
from gatrec_jax.models.linear.ridge import RidgeRecommender
from gatrec_jax.models.linear.spectral import SpectralWeights
from gatrec_jax.runs.log import Recorder
from gatrec_jax.serve import kept
from gatrec_jax.serve.run import load_run

USERS = np.arange(8, dtype=np.int32)


@pytest.fixture
def unfitted(monkeypatch):
  """Readers that must not fit the linear channel."""

  def refuse(*_):
    raise AssertionError("fitted again")

  monkeypatch.setattr(RidgeRecommender, "weights", refuse)


def scores_of(run):
  return np.asarray(jax.jit(run.recommender.score)(run.serving_state, USERS))


def test_a_reader_takes_the_weights_that_training_kept(best, unfitted):
  again = load_run(best.workdir)
  np.testing.assert_array_equal(scores_of(again), scores_of(best))
  assert kept.linear_seconds(best.workdir) > 0


def test_without_them_a_reader_fits_in_memory_and_writes_nothing(best):
  folder, aside = best.workdir / "linear", best.workdir / "aside"
  folder.rename(aside)
  try:
    np.testing.assert_allclose(scores_of(load_run(best.workdir)), scores_of(best), atol=1e-5)
    assert not folder.exists() and kept.linear_seconds(best.workdir) == 0
  finally:
    aside.rename(folder)


def test_weights_of_other_data_or_settings_are_not_taken(best):
  manifest = best.workdir / "linear" / "manifest.json"
  whole = manifest.read_bytes()
  weights = best.workdir / "linear" / "weights.npz"
  runs.write_sealed(manifest, {"inputs": "of others", "facts": {}}, files=[weights.name])
  try:
    np.testing.assert_allclose(scores_of(load_run(best.workdir)), scores_of(best), atol=1e-5)
  finally:
    manifest.write_bytes(whole)


def test_damaged_weights_are_named_by_readers_and_made_anew_by_training(best):
  weights = best.workdir / "linear" / "weights.npz"
  whole = weights.read_bytes()
  weights.write_bytes(whole[:-3] + b"abc")
  with pytest.raises(DamagedFile, match=r"weights\.npz"):
    load_run(best.workdir)
  lines = []
  keep = kept.kept_linear(best.config, best.prepared, best.workdir, log=Recorder(lines))
  fitted = best.inputs.own.linear[0]
  np.testing.assert_array_equal(keep(lambda: fitted), fitted)
  assert any("linear: made again" in line for line in lines)
  assert weights.read_bytes() == whole


def test_both_forms_are_kept_whole(best, tmp_path):
  spectral = SpectralWeights(
    left=np.ones((2, 5, 3), np.float32),
    right=np.full((5, 3), 2, np.float32),
    neighbors=np.zeros((5, 4), np.int32),
    values=np.ones((2, 5, 4), np.float32),
    tail=np.float32(0.25),
    dropped=np.float32(0.5),
  )
  lines = []
  keep = kept.kept_linear(best.config, best.prepared, tmp_path, log=Recorder(lines))
  got = keep(lambda: spectral)
  assert isinstance(got, SpectralWeights)
  for one, other in zip(got, spectral, strict=True):
    np.testing.assert_array_equal(one, other)
  assert "3 eigenvectors and 4 neighbors of 5 items, error of the spectrum at most 0.25" in lines[0]


def test_a_run_is_served_with_what_its_training_chose(best):
  path = best.workdir / kept.CHOICES
  former = path.read_bytes() if path.exists() else None
  kept.write_choices(best.workdir, {"linear_weight": 2.0})
  try:
    chosen = load_run(best.workdir)
    assert chosen.config.model.linear_weight == 2.0
    assert float(chosen.serving_state.weight) == 2.0
    assert np.abs(scores_of(chosen) - scores_of(best)).max() > 1e-3
    path.write_bytes(path.read_bytes().replace(b"2.0", b"3.0"))
    with pytest.raises(DamagedFile, match=r"choices\.json"):
      load_run(best.workdir)
  finally:
    path.unlink()
    if former is not None:
      path.write_bytes(former)


def test_known_scores_of_some_users_are_those_of_the_channel(best):
  users = np.array([5, 2, 7], np.int32)
  state = best.serving_state
  sizes = {"num_users": best.recommender.num_users, "num_items": best.recommender.num_items}
  known = known_linear_scores(state.linear, users, **sizes)
  expected = linear_scores(state, users)
  got = linear_scores(state._replace(linear=known), users)
  np.testing.assert_allclose(got, expected, atol=1e-5)
