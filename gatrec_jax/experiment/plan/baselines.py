"""The stages of runs of the other models: the arrays that dominate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax

from gatrec_jax.config import models, sequences
from gatrec_jax.config.objectives import PairwiseObjective, SoftmaxObjective
from gatrec_jax.config.schema import Config
from gatrec_jax.experiment.plan import common, linear
from gatrec_jax.experiment.plan.gat import expected_epochs
from gatrec_jax.experiment.plan.rates import WIDTH, Rates
from gatrec_jax.experiment.plan.sizes import Sizes
from gatrec_jax.experiment.plan.stage import Stage
from gatrec_jax.models.baselines.item_item import CHUNK_VALUES
from gatrec_jax.models.baselines.xsimgcl import CONTRASTED
from gatrec_jax.models.linear.gf_cf import GfCfRecommender
from gatrec_jax.models.linear.scoring import ITEMS_PER_RATING
from gatrec_jax.models.linear.spectral import OVERSAMPLING
from gatrec_jax.ops.propagation import GATHERED_NUMBERS, is_dense
from gatrec_jax.ops.softmax_loss import BLOCK, drawn_size
from gatrec_jax.train.optimizer import steps_per_epoch

_SORTED_ROW, _POSITIVE, _NEGATIVE, _PAIR = 90, 8, 12, 8
_COPIES_OF_SCORES = 4
_SORTS = 6
_MATRICES_OF_FILTER = 4
# Of a place of packed events, of an event, and of a pair of items while the pairs are sorted.
_PLACE, _EVENT, _SORTED_PAIR = 13, 20, 32
# Weights of a block over D², the vectors of a place that its gradient keeps, and maps of attention.
_MATRICES_OF_BLOCK, _VECTORS_OF_BLOCK, _MAPS = 6, 16, 4
_MATRICES_OF_GRU, _VECTORS_OF_GRU = 6, 16


class Fit(NamedTuple):
  """What a model needs beside the common stages.

  Attributes:
    choice: in words. inputs: bytes of its own arrays. params: bytes.
    peak: bytes of fitting or of a step, beside these. flops: of all of it.
    edges: of width 64 that are read. score_flops: of one score, beside a product of vectors.
  """

  choice: str
  inputs: float
  params: float
  peak: float
  flops: float = 0.0
  edges: float = 0.0
  score_flops: float = 0.0


def stages(config: Config, sizes: Sizes, rates: Rates | None) -> list[Stage]:
  """All stages of a run, in their order."""
  model = config.model
  fit = _FITS[type(model)](config, sizes)
  found = [common.reading(config, sizes, rates), common.texts(config, sizes, rates)]
  inputs = _POSITIVE * sizes.likes + fit.inputs
  if isinstance(model.objective, PairwiseObjective):
    inputs += _NEGATIVE * sizes.train
  seconds = None if rates is None else _SORTS * sizes.train / rates.rows
  peak = inputs + max(inputs, _SORTED_ROW * sizes.train)
  found.append(Stage("graph", "", peak, inputs, sizes.train, "rows", seconds))
  ranking = dict(copies=_COPIES_OF_SCORES, flops=fit.score_flops)
  if isinstance(model, models.EaseConfig | models.EaseRatedConfig):
    found.append(linear.linear(model, sizes, rates, name="training"))
  else:
    if rates is not None:
      seconds = fit.flops / rates.flops + fit.edges / rates.edges
    work, unit = (fit.flops, "FLOPs") if fit.flops else (fit.edges, "edges")
    memory = fit.params + fit.peak
    found.append(Stage("training", fit.choice, memory, fit.params, work, unit, seconds))
  if model.learned or sizes.valid:
    validation = common.validation(config, sizes, rates, **ranking)
    if model.learned and validation.seconds is not None:
      times = expected_epochs(config) / config.train.evaluate_every
      validation = validation._replace(seconds=times * validation.seconds)
    found.append(validation)
  found.append(common.evaluation(config, sizes, rates, **ranking))
  return found


def _popularity(config: Config, sizes: Sizes) -> Fit:
  return Fit("popularity", 0, 4.0 * sizes.items, 0)


def _ease(config: Config, sizes: Sizes) -> Fit:
  # Its training is the stage of `linear`.
  flops = linear.weights_of(config.model, sizes).score_flops
  return Fit("", 12.0 * sizes.train, 0, 0, score_flops=flops)


def _gf_cf(config: Config, sizes: Sizes) -> Fit:
  model, items = config.model, float(sizes.items)
  rows = sizes.likes if model.relevance == "binary" else sizes.train
  recommender = GfCfRecommender(model, sizes.users, sizes.items)
  rank = recommender.width
  # Sparse products in the search for singular vectors, and the basis, twice, of users and items.
  flops = 2.0 * linear.PRODUCTS * rows * rank + 12 * items * rank**2 + 2.0 * sizes.pairs
  basis = 2 * 4.0 * (rank + OVERSAMPLING) * sizes.nodes
  if recommender.is_exact:
    matrix = 4 * items**2
    choice = f"exact: {sizes.items:,} × {sizes.items:,} weights"
    columns = min(items, ITEMS_PER_RATING * rows / max(sizes.users, 1))
    # The host's weights, and those of a sparse matrix with their places.
    peak = _MATRICES_OF_FILTER * matrix + basis
    return Fit(choice, 12.0 * rows, matrix, peak, flops, score_flops=2 * columns)
  neighbors = min(model.neighbors, max(sizes.items - 1, 0))
  params = 4 * items * (4 * rank + 2 * neighbors)
  chunks = 4.0 * linear.CHUNKS_SPECTRAL * min(CHUNK_VALUES, items**2)
  peak = 2 * params + basis + chunks
  flops += 2 * items**2 * rank
  choice = f"spectral: {rank} singular vectors, {neighbors} neighbors"
  return Fit(choice, 12.0 * rows, params, peak, flops, score_flops=4.0 * rank)


def _matrices(copies: int, cubes: float) -> Callable[[Config, Sizes], Fit]:
  """Item-item models with some I × I matrices alive. Args: cubes: FLOPs, over I³."""

  def fit(config: Config, sizes: Sizes) -> Fit:
    items = float(sizes.items)
    matrix = 4 * items**2
    histories = 4.0 * min(CHUNK_VALUES, sizes.users * items)
    iterations = getattr(config.model, "iterations", 1)
    flops = 2 * sizes.users * items**2 + cubes * iterations * items**3
    choice = f"{copies} matrices of {sizes.items:,} × {sizes.items:,}"
    peak = (copies - 1) * matrix + 2 * histories
    return Fit(choice, 0, matrix, peak, flops, score_flops=2 * items)

  return fit


def _text_ridge(config: Config, sizes: Sizes) -> Fit:
  if config.model.factors == "ease":
    return _matrices(5, 3)(config, sizes)
  return _ials(config, sizes)


def _content_knn(config: Config, sizes: Sizes) -> Fit:
  fit = _matrices(3, 0)(config, sizes)
  return fit._replace(flops=2.0 * sizes.items**2 * max(sizes.text_width, 1))


def _ials(config: Config, sizes: Sizes) -> Fit:
  model = config.model
  rows = sizes.likes if getattr(model, "relevance", "binary") == "binary" else sizes.train
  # Lists of both sides are padded to powers of two, to 1.4 times their length in the mean.
  inputs = 2 * 1.4 * _PAIR * rows
  params = 4.0 * sizes.nodes * model.width
  passes = 2 * model.iterations
  flops = passes * (2.0 * rows * model.width**2 + sizes.nodes / 2 * model.width**3)
  peak = 3 * params + 4.0 * 3 * 2**24
  return Fit(f"{model.iterations} passes of width {model.width}", inputs, params, peak, flops)


def _multi_vae(config: Config, sizes: Sizes) -> Fit:
  model, train = config.model, config.train
  widths = (sizes.items, *model.hidden_widths)
  weights = sum(a * b for a, b in zip(widths[:-1], widths[1:], strict=True)) * 2
  weights += 3 * widths[-1] * model.latent_width
  params, batch = 4.0 * weights, train.batch_size or sizes.users
  epochs = expected_epochs(config)
  peak = 2 * params + 2 * params + 4.0 * 8 * batch * sizes.items
  choice = f"users × items {batch:,} × {sizes.items:,} a step; {epochs:g} epochs"
  return Fit(choice, 0, 3 * params, peak, 6.0 * weights * sizes.users * epochs)


def _vectors(config: Config, sizes: Sizes) -> Fit:
  """Models of a vector for each user and item, propagated over the likes or not."""
  model, train, objective = config.model, config.train, config.model.objective
  layers = getattr(model, "layers", 0)
  params = 4.0 * sizes.nodes * model.width
  is_softmax = isinstance(objective, SoftmaxObjective)
  rows = sizes.users if is_softmax else sizes.likes
  batch = min(train.batch_size or rows, rows)
  if is_softmax:
    drawn = drawn_size(objective.drawn_items, num_users=sizes.users, num_items=sizes.items)
    drawn = drawn or sizes.items
    step = 4.0 * 4 * min(BLOCK, batch * drawn)
  else:
    drawn = 1 + objective.negatives_per_positive
    step = 4.0 * 4 * batch * drawn * model.width
  inputs = 0.0
  if layers:
    dense = is_dense(
      model.propagation, sizes.likes, sizes.users, sizes.items, platform=jax.default_backend()
    )
    inputs = 4.0 * sizes.users * sizes.items if dense else 16.0 * sizes.likes
    if not dense:
      step += 4.0 * min(GATHERED_NUMBERS, sizes.likes * model.width)
  step += params * (4 + 4 * layers)
  if isinstance(model, models.XSimGclConfig):
    step += 4.0 * 3 * min(batch, CONTRASTED) ** 2
  steps, epochs = steps_per_epoch(train, rows), expected_epochs(config)
  edges = epochs * steps * layers * 2.0 * sizes.likes * model.width / WIDTH
  flops = epochs * 8.0 * rows * drawn * model.width
  choice = f"vectors of {model.width}, {layers} hops; {epochs:g} of at most {train.epochs} epochs"
  return Fit(choice, inputs, 3 * params, step, flops, edges)


def _next_event(config: Config, sizes: Sizes) -> Fit:
  model, train = config.model, config.train
  width, places = model.width, model.length + 1
  events = min(sizes.train, sizes.users * places)
  rows = events / places
  batch = (train.batch_size or rows) * places
  if isinstance(model, sequences.Gru4RecConfig):
    layers, name = model.layers, "layers"
    of_layers = (_MATRICES_OF_GRU * layers + 1) * width**2
    params, products = 4.0 * (sizes.items * width + of_layers), of_layers
    states = layers * _VECTORS_OF_GRU * width
  else:
    layers, name = model.blocks, "blocks"
    of_layers = _MATRICES_OF_BLOCK * layers * width**2
    params = 4.0 * (sizes.items * width + model.length * width + of_layers)
    products = of_layers + 2 * places * width * layers
    states = layers * (_VECTORS_OF_BLOCK * width + _MAPS * model.heads * places)
  compared = model.drawn_items or sizes.items
  scores = batch * compared if model.drawn_items else min(BLOCK, batch * compared)
  step = params + 4.0 * (_COPIES_OF_SCORES * scores + batch * states)
  epochs = expected_epochs(config)
  products += compared * width
  choice = f"{layers} {name} of {width}; {epochs:g} of at most {train.epochs} epochs"
  inputs = _PLACE * events + 5.0 * sizes.items
  return Fit(choice, inputs, 3 * params, step, epochs * 6.0 * events * products)


def _markov(config: Config, sizes: Sizes) -> Fit:
  model = config.model
  rows = sizes.likes if model.relevance == "binary" else sizes.train
  pairs = min(float(rows * model.window), float(sizes.items) ** 2)
  kept = min(model.neighbors, sizes.items)
  params = 8.0 * sizes.items * kept
  inputs = _EVENT * rows + 12.0 * pairs
  return Fit(f"{kept} followers of an item", inputs, params, params + _SORTED_PAIR * pairs)


_FITS: Mapping[type, Callable[[Config, Sizes], Fit]] = {
  models.PopularityConfig: _popularity,
  models.ItemKnnConfig: _matrices(5, 0),
  models.EaseConfig: _ease,
  models.EaseRatedConfig: _ease,
  models.GfCfConfig: _gf_cf,
  models.SlimConfig: _matrices(7, 2),
  models.AdmmSlimConfig: _matrices(8, 2),
  models.IalsConfig: _ials,
  models.ContentKnnConfig: _content_knn,
  models.TextRidgeConfig: _text_ridge,
  models.BprMfConfig: _vectors,
  models.LightGcnConfig: _vectors,
  models.XSimGclConfig: _vectors,
  models.MultiVaeConfig: _multi_vae,
  sequences.SasRecConfig: _next_event,
  sequences.Gru4RecConfig: _next_event,
  sequences.MarkovConfig: _markov,
  sequences.RecentPopularityConfig: _popularity,
}
