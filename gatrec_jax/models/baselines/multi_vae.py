"""A variational autoencoder of users' histories with multinomial likelihood.

Liang, Krishnan, Hoffman and Jebara 2018, "Variational Autoencoders for Collaborative Filtering".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from gatrec_jax.config.models import MultiVaeConfig
from gatrec_jax.data.feedback import JudgedRatings
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.models.inputs import Batch, Inputs, NewUsers, history_rows, liked_rows
from gatrec_jax.ops.numeric import drop, is_off

Array = jax.Array
Layers = dict[str, dict[str, Array]]
Params = dict[str, Layers]
_BIAS_STDDEV = 1e-3


@dataclasses.dataclass(frozen=True)
class MultiVaeRecommender:
  """Encodes a user's positives and decodes scores of all items. Rows of a batch are users.

  Attributes: settings; num_users, num_items: U and I. Parameters: {"encoder": layers, "decoder":
  layers}, where layers are {"0": {"kernel": [N, M], "bias": [M]}, "1": …} float32. The last layer
  of the encoder returns the mean and the log variance of the code, concatenated.
  """

  settings: MultiVaeConfig
  num_users: int
  num_items: int
  seeded: ClassVar[bool] = True
  learned: ClassVar[bool] = True
  scores_by: ClassVar[str] = "scores"
  serves_new_users: ClassVar[bool] = True
  takes_new_ratings: ClassVar[bool] = False
  explainable: ClassVar[bool] = False

  def own_inputs(self, train: Interactions, judged: JudgedRatings) -> tuple[()]:
    return ()

  @staticmethod
  def on_mesh(own: Any) -> Any:
    """All of them."""
    return own

  def num_rows(self, inputs: Inputs) -> int:
    return self.num_users

  def init(self, inputs: Inputs, key: Array) -> Params:
    """Xavier-normal kernels, truncated-normal biases, as in the paper. `key` is consumed."""
    hidden, code = self.settings.hidden_widths, self.settings.latent_width
    encoder_key, decoder_key = jax.random.split(key)
    return {
      "encoder": _layers(encoder_key, [self.num_items, *hidden, 2 * code]),
      "decoder": _layers(decoder_key, [code, *reversed(hidden), self.num_items]),
    }

  def loss(self, params: Params, batch: Batch, key: Array, *, inputs: Inputs) -> Array:
    """[] float32: −log likelihood of a user's items + β · KL to the standard normal, mean over the
    users that count.

    A user without positives adds 0 to the sum. `key` is consumed. Args: see `LearnedRecommender`.
    """
    history = history_rows(inputs, batch.rows, num_items=self.num_items)
    drop_key, code_key = jax.random.split(key)
    mean, log_variance = _encode(
      params, drop(drop_key, _unit(history), self.settings.input_dropout)
    )
    noise = jax.random.normal(code_key, mean.shape)
    code = mean + noise * jnp.exp(0.5 * log_variance)
    log_share = jax.nn.log_softmax(_apply(params["decoder"], code))
    likelihood = (history * log_share).sum(axis=-1)
    divergence = 0.5 * (jnp.exp(log_variance) + mean**2 - 1 - log_variance).sum(axis=-1)
    weight = kl_weight_at(
      batch.step, kl_weight=self.settings.kl_weight, anneal_steps=self.settings.anneal_steps
    )
    nonempty = history.any(axis=-1)
    values = jnp.where(batch.where & nonempty, weight * divergence - likelihood, 0.0)
    return values.sum() / jnp.maximum(batch.where.sum(), 1)

  def serving_state(self, params: Params, inputs: Inputs) -> tuple[Params, Inputs]:
    return params, inputs

  @staticmethod
  def score(serving_state: tuple[Params, Inputs], users: Array) -> Array:
    params, inputs = serving_state
    num_items = params["encoder"]["0"]["kernel"].shape[0]
    return _scores(params, history_rows(inputs, users, num_items=num_items))

  @staticmethod
  def vectors_of_users(serving_state: tuple[Params, Inputs], users: Array) -> Array:
    """[B, M + 1] float32, the input of the decoder's last layer, and 1."""
    params, inputs = serving_state
    *others, last = (params["decoder"][str(depth)] for depth in range(len(params["decoder"])))
    history = history_rows(inputs, users, num_items=last["bias"].shape[0])
    hidden, _ = _encode(params, _unit(history))
    for layer in others:
      hidden = jnp.tanh(hidden @ layer["kernel"] + layer["bias"])
    return jnp.concatenate([hidden, jnp.ones((len(users), 1))], axis=1)

  @staticmethod
  def vectors_of_items(serving_state: tuple[Params, Inputs]) -> Array:
    """[I, M + 1] float32, kernel and bias of the decoder's last layer."""
    decoder = serving_state[0]["decoder"]
    last = decoder[str(len(decoder) - 1)]
    return jnp.concatenate([last["kernel"], last["bias"][None]]).T

  def score_new(self, params: Params, inputs: Inputs, serving_state: Any, users: NewUsers) -> Array:
    return _scores(params, liked_rows(users, num_items=self.num_items))


def kl_weight_at(step: Array, *, kl_weight: Any, anneal_steps: int) -> Array:
  """[] float32, β after `step` steps: linear up to `kl_weight` at `anneal_steps` (0 = constant)."""
  if is_off(anneal_steps):
    return jnp.asarray(kl_weight, jnp.float32)
  return kl_weight * jnp.minimum(1.0, step / anneal_steps)


def _layers(key: Array, widths: Sequence[int]) -> Layers:
  kernel_init = jax.nn.initializers.glorot_normal()
  layers = {}
  for layer, (before, after) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
    kernel_key, bias_key = jax.random.split(jax.random.fold_in(key, layer))
    bias = jax.random.truncated_normal(bias_key, -2.0, 2.0, (after,)) * _BIAS_STDDEV
    layers[str(layer)] = {"kernel": kernel_init(kernel_key, (before, after)), "bias": bias}
  return layers


def _apply(layers: Layers, values: Array) -> Array:
  """Dense layers with tanh between them: [B, N] -> [B, M]."""
  for depth in range(len(layers)):
    layer = layers[str(depth)]
    values = values @ layer["kernel"] + layer["bias"]
    if depth < len(layers) - 1:
      values = jnp.tanh(values)
  return values


def _unit(history: Array) -> Array:
  """[B, I], rows of length 1. Empty rows stay 0 and have a finite gradient."""
  count = history.sum(axis=-1, keepdims=True)
  return history / jnp.sqrt(jnp.maximum(count, 1.0))


def _encode(params: Params, values: Array) -> tuple[Array, Array]:
  """Mean and log variance of the code, [B, D] each."""
  mean, log_variance = jnp.split(_apply(params["encoder"], values), 2, axis=-1)
  return mean, log_variance


def _scores(params: Params, history: Array) -> Array:
  """[B, I], the decoder's logits at the mean of the code."""
  mean, _ = _encode(params, _unit(history))
  return _apply(params["decoder"], mean)
