"""The stages of a run of the GAT: graph, training, and its choices."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax

from gatrec_jax.config.convolutions import FullConvolution, NoConvolution
from gatrec_jax.config.objectives import PairwiseObjective, SoftmaxObjective
from gatrec_jax.config.schema import Config, ModelConfig
from gatrec_jax.experiment.linear_choices import has_choices
from gatrec_jax.experiment.plan import common, linear
from gatrec_jax.experiment.plan.rates import WIDTH, Rates
from gatrec_jax.experiment.plan.sizes import Sizes, graph_rows
from gatrec_jax.experiment.plan.stage import Stage
from gatrec_jax.models.gat.channels import has_channels, linear_channel
from gatrec_jax.models.gat.own import drawn_by
from gatrec_jax.ops.attention.blocks import BLOCK_BYTES
from gatrec_jax.ops.propagation import GATHERED_NUMBERS, is_dense
from gatrec_jax.ops.softmax_loss import BLOCK
from gatrec_jax.sharding.mesh import MeshShape
from gatrec_jax.train.optimizer import steps_per_epoch

# Bytes of an edge (sender, receiver, feature), of one in the order of blocks, and of one while the
# graph is sorted.
_EDGE, _BLOCK_EDGE, _SORTED_EDGE = 8, 12, 48
_TARGET, _POSITIVE, _NEGATIVE = 24, 8, 12
# An event, and the later one of an edge; arrays of a step with the vectors of histories.
_EVENT, _LATER, _HISTORIES = 20, 4, 8
_SORTS = 12  # of all training rows, while the graph is made
# Node tables that are alive in a step: gradient and moments while they are replaced, and for each
# layer its input, its sums and both gradients.
_TABLES, _TABLES_A_LAYER = 4, 4
_BLOCKS_OF_SCORES = 4  # scores, exponentials and gradients of a block of the softmax
# Bytes of an edge in a step: features and weights in the order of blocks, and their gradients. Of
# one that is drawn: its place as it is found, both ends, features, weight, and gradients.
_STEP_EDGE, _DRAWN_EDGE = 16, 38
_SLOT = 4
_FLOPS_OF_MAP = 6  # of a weight of a linear map of an event or a text, forward and backward
# Copies of a block of scores in ranking: of vectors, with channels, and with the linear channel's
# histories and scores (XLA's analysis has 6, 6 and 8, to which lists and masks come).
_COPIES, _COPIES_OF_CHANNELS, _COPIES_OF_LINEAR = 4, 6, 8
# A target is gathered and added to its sum, forward and backward, in this part of the time that an
# edge of attention takes.
_GATHERS = 0.4
_SAVED = 2  # copies of the parameters and moments while a checkpoint is written
_RANKED_MULTIPLES = 9  # weights of the linear channel that are tried after training


def stages(config: Config, sizes: Sizes, rates: Rates | None) -> list[Stage]:
  """All stages of a run, in their order."""
  model = config.model
  assert isinstance(model, ModelConfig)
  if not sizes.texts:
    model = model.without_text()
  channel = linear_channel(model, num_users=sizes.users, num_items=sizes.items)
  found = [common.reading(config, sizes, rates), common.texts(config, sizes, rates)]
  flops = 0.0
  if channel is not None:
    found.append(linear.linear(channel.settings, sizes, rates, chooses=has_choices(config)))
    flops = linear.weights_of(channel.settings, sizes).score_flops
  found.append(_graph(model, sizes, rates))
  training, ranked = _training(config, model, sizes, rates)
  copies = _COPIES_OF_CHANNELS if has_channels(model) else _COPIES
  state = 4.0 * _nodes(model, sizes) * model.feature_width * (1 + model.convolution.num_layers)
  if model.reads_order:
    state += 4.0 * sizes.users * model.feature_width
  validation = common.validation(
    config, sizes, rates, copies=copies, state=state, known=channel is not None
  )
  times = ranked + (_RANKED_MULTIPLES if model.linear_choice == "valid" and channel else 0)
  if rates is not None and validation.seconds:
    # The linear channel is computed once.
    once = validation.work * flops / rates.flops
    validation = validation._replace(seconds=validation.seconds * times + once)
  # The scores that validation keeps are there while training goes on.
  found += [training._replace(peak=training.peak + validation.left), validation]
  copies = copies if channel is None else _COPIES_OF_LINEAR
  found.append(common.evaluation(config, sizes, rates, copies=copies, state=state, flops=flops))
  # They are freed before the lists are made.
  found[-2] = found[-2]._replace(left=0.0)
  return found


def choices(model: ModelConfig, sizes: Sizes) -> str:
  """How attention and the objective are computed."""
  parts = []
  if not isinstance(model.convolution, NoConvolution):
    drawn = f"{sizes.drawn:,} drawn of " if sizes.drawn else ""
    parts.append(f"attention over {drawn}{2 * graph_rows(model, sizes):,} edges")
  objective = model.objective
  if isinstance(objective, PairwiseObjective):
    parts.append(f"pairs with {objective.negatives_per_positive} negative(s)")
  elif drawn := _drawn(model, sizes):
    parts.append(f"softmax over {drawn:,} drawn of {sizes.items:,} items")
  else:
    parts.append(f"softmax over all {sizes.items:,} items")
  return ", ".join(parts)


def _graph(model: ModelConfig, sizes: Sizes, rates: Rates | None) -> Stage:
  """The graph, its order for attention, and targets or negatives; on the host, then the device."""
  edges = 2.0 * graph_rows(model, sizes)
  features = 4 * len(model.convolution.edge_features)
  has_layers = not isinstance(model.convolution, NoConvolution)
  left = edges * (_EDGE + features) + _POSITIVE * sizes.likes
  if sizes.drawn:
    left += _SLOT * sizes.drawn
  elif has_layers and 4 * max(_widths(model, sizes)) * _nodes(model, sizes) > BLOCK_BYTES:
    left += edges * _BLOCK_EDGE
  choice = f"{round(edges):,} edges"
  if isinstance(model.objective, PairwiseObjective):
    left += _NEGATIVE * sizes.train
  elif model.reads_order:
    left += _EVENT * sizes.train + _LATER * edges
  else:
    left += _target_bytes(sizes)
  left += 4.0 * sizes.nodes * max(sizes.text_width, 1)
  peak = left + max(left, _SORTED_EDGE * edges)
  seconds = None if rates is None else _SORTS * sizes.train / rates.rows
  return Stage("graph", choice, peak, left, edges, "edges", seconds)


def _training(
  config: Config, model: ModelConfig, sizes: Sizes, rates: Rates | None
) -> tuple[Stage, float]:
  """The stage, and how often it is interrupted for validation."""
  train, objective = config.train, model.objective
  reads_targets = isinstance(objective, SoftmaxObjective) and not model.reads_order
  rows = _rows(model, sizes)
  batch = min(train.batch_size or rows, rows)
  steps = steps_per_epoch(train, rows)
  epochs = expected_epochs(config)
  widths = _widths(model, sizes)
  params, memory = _bytes_of_training(config, model, sizes)
  edges = 2.0 * graph_rows(model, sizes)
  per_epoch = _attention_edges(model, sizes, edges, steps=steps, batch=batch)
  seconds = None
  if rates is not None:
    scores = float(rows) * _candidates(model, sizes)
    one = per_epoch * (max(widths) / WIDTH) / rates.edges
    if model.reads_order:
      one += _FLOPS_OF_MAP * rows * model.history.history_length * widths[-1] ** 2 / rates.flops
    of_text = _nodes(model, sizes) * model.hidden_of_text * (sizes.text_width + widths[0])
    one += steps * _FLOPS_OF_MAP * of_text / rates.flops
    if reads_targets and not _targets_are_dense(sizes):
      one += steps * _GATHERS * sizes.train * (widths[-1] / WIDTH) / rates.edges
    one += scores * (widths[-1] / WIDTH) / rates.softmax
    one += steps * memory / rates.bandwidth
    seconds = epochs * one
  choice = f"{choices(model, sizes)}; {epochs:g} of at most {train.epochs} epochs"
  stage = Stage("training", choice, memory, params, epochs * per_epoch, "edges", seconds)
  return stage, epochs / train.evaluate_every


def bytes_a_device(config: Config, sizes: Sizes, shape: MeshShape) -> tuple[float, float]:
  """Bytes of training on each device of a mesh, and how many of them more devices do not divide.

  Tables of parameters, the graph and the targets are divided over `graph`. Every device holds the
  vectors of all nodes that a layer reads and makes, draws the edges of a step, and gets the whole
  state when it is saved.
  """
  model = config.model if sizes.texts else config.model.without_text()
  _, memory = _bytes_of_training(config, model, sizes, devices=shape.graph)
  _, fixed = _bytes_of_training(config, model, sizes, devices=math.inf)
  return memory + _graph(model, sizes, None).left / shape.graph, fixed


def _bytes_of_training(
  config: Config, model: ModelConfig, sizes: Sizes, *, devices: float = 1
) -> tuple[float, float]:
  """Bytes of the parameters, and of them with their moments and what a step or a checkpoint needs.

  Args: devices: over which tables are divided.
  """
  widths, table = _widths(model, sizes), 4.0 * _nodes(model, sizes)
  params = table * widths[0]
  edges = 2.0 * graph_rows(model, sizes)
  step = _TABLES * params / devices + sum(_TABLES_A_LAYER * table * one for one in widths[1:])
  step += _TABLES_A_LAYER * 4.0 * _nodes(model, sizes) * model.hidden_of_text
  if sizes.drawn:
    step += _DRAWN_EDGE * sizes.drawn
  elif model.convolution.num_layers:
    step += _STEP_EDGE * edges / devices
  rows = _rows(model, sizes)
  batch = min(config.train.batch_size or rows, rows)
  candidates = _candidates(model, sizes)
  if isinstance(model.objective, SoftmaxObjective):
    step += 4.0 * _BLOCKS_OF_SCORES * min(BLOCK, batch * candidates)
    if model.reads_order:
      step += 4.0 * _HISTORIES * batch * model.history.history_length * widths[-1]
    elif not _targets_are_dense(sizes):
      step += 4.0 * min(GATHERED_NUMBERS, sizes.train * widths[-1])
  else:
    step += 4.0 * 4 * batch * candidates * widths[-1]
  state = 3 * params
  # The whole state is on every device while it is saved.
  saved = _SAVED * state if devices == 1 else state
  return params, state / devices + max(step, saved)


def _nodes(model: ModelConfig, sizes: Sizes) -> int:
  """Nodes with a vector of their own."""
  return sizes.items if model.reads_order else sizes.nodes


def _rows(model: ModelConfig, sizes: Sizes) -> int:
  """Rows of an epoch: users, or likes."""
  is_softmax = isinstance(model.objective, SoftmaxObjective)
  return sizes.users if is_softmax and not model.reads_order else sizes.likes


def _candidates(model: ModelConfig, sizes: Sizes) -> int:
  """Items whose scores the loss reads for each of its rows."""
  objective = model.objective
  if isinstance(objective, SoftmaxObjective):
    return _drawn(model, sizes) or sizes.items
  return 1 + objective.negatives_per_positive


def expected_epochs(config: Config) -> float:
  """Epochs until training stops, as a guess: three times the patience, or all of them.

  `best`, with a patience of 60 and at most 300 epochs, trained 110 on ML-100K's u1, 190 on Gowalla
  and 300 on ML-1M.
  """
  train = config.train
  if train.select_on == "last":
    return train.epochs
  return min(train.epochs, 3 * train.patience)


def _attention_edges(
  model: ModelConfig, sizes: Sizes, edges: float, *, steps: int, batch: int
) -> float:
  """Edges that the layers of an epoch read, forward and backward."""
  layers, fanouts = model.convolution.num_layers, model.convolution.fanouts
  if not fanouts:
    return steps * layers * (sizes.drawn or edges)
  nodes = 2.0 * batch + (sizes.items if isinstance(model.objective, SoftmaxObjective) else batch)
  drawn = sum(nodes * math.prod(fanouts[: depth + 1]) for depth in range(len(fanouts)))
  return steps * min(drawn, layers * edges)


def _widths(model: ModelConfig, sizes: Sizes) -> Sequence[int]:
  """Of the features and of each layer's output."""
  features = sizes.text_width if model.node_features == "table" else model.feature_width
  convolution = model.convolution
  if isinstance(convolution, FullConvolution):
    layers = zip(convolution.layer_widths, convolution.heads, strict=True)
    return [features, *(width * heads for width, heads in layers)]
  return [features] * (1 + convolution.num_layers)


def _drawn(model: ModelConfig, sizes: Sizes) -> int:
  return drawn_by(model, num_users=sizes.users, num_items=sizes.items)


def _targets_are_dense(sizes: Sizes) -> bool:
  return is_dense("auto", sizes.train, sizes.users, sizes.items, platform=jax.default_backend())


def _target_bytes(sizes: Sizes) -> float:
  return 4.0 * sizes.users * sizes.items if _targets_are_dense(sizes) else _TARGET * sizes.train
