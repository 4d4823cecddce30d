"""Training: one composable step, and the library's own epochs, loop and sweeps made of it.

  step = train_step(loss_fn, optimizer)          # any loss, any optax optimizer
  state = init_state(params, optimizer)
  state, metrics = jax.jit(step)(state, batch, key)

Epochs of a recommender: `start_training`, `train_epochs`. The loop around them
with selection, checkpoints and resume: `learn`, and `fit` for recommenders without epochs.
"""

from gatrec_jax.train.epochs import new_state, run_epochs, start_training, train_epochs
from gatrec_jax.train.fitted import fit, fit_params
from gatrec_jax.train.loop import Progress, learn
from gatrec_jax.train.optimizer import make_optimizer, steps_per_epoch
from gatrec_jax.train.state import TrainState, init_state
from gatrec_jax.train.step import train_step

__all__ = [
  "Progress",
  "TrainState",
  "fit",
  "fit_params",
  "init_state",
  "learn",
  "make_optimizer",
  "new_state",
  "run_epochs",
  "start_training",
  "steps_per_epoch",
  "train_epochs",
  "train_step",
]
