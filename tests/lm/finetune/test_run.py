"""Fine-tuning: learning, frozen weights, accumulation, resuming, packing, objectives."""

import dataclasses
import functools
import json
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.programs import arrays_equal
from helpers.tiny_decoder import leaves_by_path, mean_target_loss, tiny_config, tiny_model

from gatrec_jax.errors import InputError, Interrupted
from gatrec_jax.lm.decoder.model import forward, hidden_states, logits_of
from gatrec_jax.lm.finetune import losses, objectives
from gatrec_jax.lm.finetune.examples import CompletionExample, LabelExample
from gatrec_jax.lm.finetune.packing import label_rows, one_per_row, pack
from gatrec_jax.lm.finetune.run import finetune, pace_of
from gatrec_jax.lm.finetune.step import FinetuneConfig, StepSpec, init_state, train_step
from gatrec_jax.lm.folders.export import export_folder
from gatrec_jax.lm.folders.load import load_decoder
from gatrec_jax.runs.log import Recorder

# 1 a b is followed by b a and EOS.
TEXTS = [CompletionExample([1, a, b], [b, a, 2]) for a in (5, 6, 7) for b in (8, 9)]
# The most relevant label is the last token of the prompt, the next the token before it.
CHOICES = [
  LabelExample([1, *order], [10, 11, 12], [float(order.index(label)) for label in (10, 11, 12)])
  for order in ((10, 11, 12), (11, 12, 10), (12, 10, 11), (12, 11, 10), (10, 12, 11))
]
QUICK = FinetuneConfig(
  learning_rate=2e-2,
  epochs=5,
  batch_size=4,
  max_tokens=16,
  evaluate_every=4,
  packing=False,
  lora_rank=4,
  lora_alpha=8.0,
  lora_dropout=0.1,
)
PLAIN = dataclasses.replace(QUICK, lora_dropout=0.0)


ONE_LAYER = tiny_config().layers[:1]


@pytest.fixture(scope="module")
def model():
  return tiny_model(layers=ONE_LAYER)


def spec_of(model, config, objective=objectives.next_token, total_steps=10):
  return StepSpec(model.config, config, objective, total_steps, "float32", "xla")


def batched(rows, *shape):
  return jax.tree.map(lambda array: array.reshape(*shape, *array.shape[1:]), rows)


def equal_trees(left, right):
  return arrays_equal(jax.tree.leaves(left), jax.tree.leaves(right))


@pytest.fixture(scope="module")
def adapted(model, tmp_path_factory):
  """LoRA on the tiny model: its parameters before, the result, and the run's folder."""
  before = {path: leaf.copy() for path, leaf in leaves_by_path(model.params).items()}
  workdir = tmp_path_factory.mktemp("lora")
  return before, finetune(model, TEXTS, QUICK, workdir=workdir, validation=TEXTS[:3]), workdir


def test_adapters_learn_and_frozen_weights_do_not_change(model, adapted):
  before, tuned, workdir = adapted
  assert tuned.model is model
  for path, leaf in leaves_by_path(model.params).items():
    assert leaf.tobytes() == before[path].tobytes()
  assert [entry["step"] for entry in tuned.history] == [4, 8, 10]
  assert tuned.history[-1]["loss"] < tuned.history[0]["loss"] - 0.2
  assert tuned.best_step == min(tuned.history, key=lambda e: e["valid_loss"])["step"]
  lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  written = [line["value"] for line in lines if line["name"] == "loss"]
  assert len(written) == 10
  np.testing.assert_allclose(np.mean(written[:4]), tuned.history[0]["loss"], rtol=1e-6)


def test_merged_and_exported_weights_give_the_same_logits(model, adapted, tmp_path):
  _, tuned, _ = adapted
  tokens = jnp.array([[1, 5, 8, 8, 5, 2]])
  beside = forward(model.params, tokens, config=model.config, lora=tuned.lora)
  assert np.abs(beside - forward(model.params, tokens, config=model.config)).max() > 0.1
  merged = tuned.merged()
  np.testing.assert_allclose(forward(merged.params, tokens, config=model.config), beside, atol=1e-5)
  again = load_decoder(export_folder(merged, tmp_path / "out"))
  np.testing.assert_allclose(forward(again.params, tokens, config=again.config), beside, atol=1e-5)


def test_the_validation_loss_is_that_of_the_returned_adapters(model, adapted):
  _, tuned, _ = adapted
  rows, _ = one_per_row(TEXTS[:3], row_tokens=6, pad=0)
  logits = forward(model.params, rows.tokens, config=model.config, lora=tuned.lora)
  expected = mean_target_loss(logits, rows.tokens, rows.where).mean()
  stated = min(entry["valid_loss"] for entry in tuned.history)
  np.testing.assert_allclose(stated, expected, rtol=1e-5)


def test_a_finished_run_is_reused(model, adapted):
  _, tuned, workdir = adapted
  said = []
  again = finetune(model, TEXTS, QUICK, workdir=workdir, validation=TEXTS[:3], log=Recorder(said))
  assert equal_trees(again.lora.params, tuned.lora.params)
  assert again.history == tuned.history
  assert any("step 10" in line for line in said)


def test_another_run_in_the_same_folder_is_rejected(model, adapted):
  *_, workdir = adapted
  for examples, config in (
    (TEXTS[:5], QUICK),
    (TEXTS, dataclasses.replace(QUICK, learning_rate=1.0)),
  ):
    with pytest.raises(InputError, match="trained with other fine-tuning examples, settings"):
      finetune(model, examples, config, workdir=workdir, validation=TEXTS[:3])


def test_interrupted_and_resumed_equals_uninterrupted(model, adapted, tmp_path):
  _, tuned, workdir = adapted
  for stop_after in (3, 2, 3):  # at steps 3 (in an epoch), 5 and 8 (where it is evaluated)
    calls = iter(range(1, 100))
    with pytest.raises(Interrupted, match="SIGTERM at step") as error:
      finetune(
        model,
        TEXTS,
        QUICK,
        workdir=tmp_path,
        validation=TEXTS[:3],
        stop=lambda calls=calls, n=stop_after: signal.SIGTERM * (next(calls) == n),
      )
    assert error.value.signum == signal.SIGTERM
  resumed = finetune(model, TEXTS, QUICK, workdir=tmp_path, validation=TEXTS[:3])
  assert equal_trees(resumed.lora.params, tuned.lora.params)
  assert resumed.history == tuned.history and resumed.best_step == tuned.best_step
  assert (tmp_path / "metrics.jsonl").read_text() == (workdir / "metrics.jsonl").read_text()


def test_full_fine_tuning_learns_choices_from_fresh_examples_each_epoch(tmp_path):
  model = tiny_model(dtype="bfloat16", layers=ONE_LAYER)
  before = {path: leaf.copy() for path, leaf in leaves_by_path(model.params).items()}
  config = dataclasses.replace(
    QUICK, mode="full", epochs=30, batch_size=5, learning_rate=3e-2, evaluate_every=10
  )
  seen = []

  def examples(epoch):
    seen.append(epoch)
    return [CHOICES[(epoch + place) % 5] for place in range(5)]

  tuned = finetune(model, examples, config, workdir=tmp_path, objective=objectives.listnet)
  assert sorted(set(seen)) == list(range(30))
  assert tuned.lora is None and tuned.best_step == tuned.history[-1]["step"] == 30
  assert tuned.history[-1]["loss"] < tuned.history[0]["loss"]
  rows, _ = label_rows(CHOICES, row_tokens=8, pad=0)
  logits = forward(tuned.model.params, rows.tokens, config=model.config)
  chosen = np.asarray(logits)[np.arange(5), rows.lengths - 1][:, 10:13].argmax(axis=1)
  assert chosen.tolist() == rows.relevance.argmax(axis=1).tolist()
  # The given model is not modified; all weights of the new one are.
  for path, leaf in leaves_by_path(model.params).items():
    assert leaf.tobytes() == before[path].tobytes()
  after = leaves_by_path(tuned.model.params)
  assert {str(leaf.dtype) for leaf in after.values()} == {"bfloat16"}
  assert all(before[path].tobytes() != leaf.tobytes() for path, leaf in after.items())
  assert tuned.model.config == model.config


def first_step(model, config, rows):
  """State and metrics after one step on all `rows`, LoRA or full."""
  spec = spec_of(model, config)
  batch = batched(rows, config.accumulate, config.batch_size)
  return train_step(init_state(model, spec), model.params, batch, spec=spec)


def test_accumulated_batches_with_remat_equal_one_large_batch(model):
  # Completions of different lengths, so that the mean of the parts' means would differ.
  examples = [CompletionExample([1, 5], [6] * n) for n in (1, 2, 3, 4, 5, 6, 7, 8)]
  rows, _ = one_per_row(examples, row_tokens=10, pad=0)
  large = dataclasses.replace(PLAIN, batch_size=8)
  one, one_metrics = first_step(model, large, rows)
  small = dataclasses.replace(PLAIN, batch_size=2, accumulate=4, remat=True)
  four, four_metrics = first_step(model, small, rows)
  assert int(one_metrics["targets"]) == int(four_metrics["targets"]) == 36
  for name in one_metrics:
    np.testing.assert_allclose(one_metrics[name], four_metrics[name], rtol=1e-5)
  for left, right in zip(jax.tree.leaves(one.params), jax.tree.leaves(four.params), strict=True):
    np.testing.assert_allclose(left, right, atol=1e-5)
  logits = forward(model.params, rows.tokens, config=model.config)
  each = mean_target_loss(logits, rows.tokens, rows.where)
  weights = rows.where.sum(axis=1)
  np.testing.assert_allclose(one_metrics["loss"], (each * weights).sum() / 36, rtol=1e-5)
  # Rows that pad a batch change nothing.
  rows.where[2:] = False
  _, metrics = first_step(model, large, rows)
  np.testing.assert_allclose(metrics["loss"], (each * weights)[:2].sum() / 3, rtol=1e-5)


def values_of(chosen, model, rows):
  """Losses of some objectives, and which of them count, compiled as one program."""
  names = {"lengths"} if hasattr(rows, "lengths") else {"segments", "positions"}

  @jax.jit
  def compute(params, rows):
    more = {name: getattr(rows, name) for name in names}
    hidden = hidden_states(params, rows.tokens, config=model.config, **more)
    head = functools.partial(logits_of, params, config=model.config)
    return [objective(hidden, head, rows) for objective in chosen]

  return jax.tree.map(np.asarray, compute(model.params, rows))


def losses_by_example(model, rows):
  """{tokens of an example: losses of its targets}."""
  ((values, where),) = values_of([objectives.next_token], model, rows)
  found = {}
  for row, segments in enumerate(rows.segments):
    for segment in range(1, segments.max() + 1):
      inside = segments == segment
      found[tuple(rows.tokens[row][inside])] = values[row][inside & where[row]]
  return found


def test_packed_loss_equals_that_of_single_examples(model):
  examples = [CompletionExample([1, *range(5, 5 + n)], [9, 4, 2][: 1 + n % 3]) for n in range(1, 9)]
  rows, _ = pack(examples, row_tokens=24, pad=0)
  assert len(rows.tokens) < len(examples)
  packed = losses_by_example(model, rows)
  single = losses_by_example(model, one_per_row(examples, row_tokens=16, pad=0)[0])
  assert len(packed) == len(examples) and packed.keys() == single.keys()
  for tokens, values in packed.items():
    np.testing.assert_allclose(values, single[tokens], atol=1e-5)


def test_the_head_in_pieces_equals_the_head_at_once(model, monkeypatch):
  rows, _ = one_per_row(TEXTS, row_tokens=11, pad=0)
  hidden = jax.random.normal(jax.random.key(0), (6, 11, 16))
  head = functools.partial(logits_of, model.params, config=model.config)

  def total(hidden):
    values, where = objectives.next_token(hidden, head, rows)
    return jnp.sum(jnp.where(where, values, 0))

  at_once = jax.jit(jax.value_and_grad(total))(hidden)
  monkeypatch.setattr(objectives, "HEAD_TOKENS", 4)
  in_pieces = jax.jit(lambda hidden: jax.value_and_grad(total)(hidden))(hidden)
  np.testing.assert_allclose(at_once[0], in_pieces[0], rtol=1e-6)
  np.testing.assert_allclose(at_once[1], in_pieces[1], atol=1e-6)


def test_label_objectives_read_the_last_position(model):
  examples = [*CHOICES, LabelExample([1, 10], [10, 11, 12], [0.0, 1.0, 2.0])]
  rows, _ = label_rows(examples, row_tokens=8, pad=0)
  logits = np.asarray(forward(model.params, rows.tokens, config=model.config))
  scores = logits[np.arange(6)[:, None], rows.lengths[:, None] - 1, rows.labels]

  @jax.jit
  def expected(scores):
    return [
      losses.label_loss(scores, rows.relevance.argmax(axis=1), where=rows.where),
      losses.listnet_loss(scores, rows.relevance, where=rows.where),
      losses.ranknet_loss(scores, rows.relevance, where=rows.where),
      losses.listwise_softmax_loss(scores, rows.relevance, where=rows.where),
    ]

  chosen = (objectives.label_cross_entropy, objectives.listnet, objectives.ranknet)
  found = values_of((*chosen, objectives.softmax), model, rows)
  for (values, where), wanted in zip(found, expected(scores), strict=True):
    assert where.tolist() == [True] * 6
    np.testing.assert_allclose(values, wanted, rtol=2e-5)


def test_dropout_depends_on_the_step_alone(model):
  rows, _ = one_per_row(TEXTS[:4], row_tokens=16, pad=0)
  spec = spec_of(model, QUICK)

  def gradient_norm(step):
    state = init_state(model, spec)._replace(step=jnp.int32(step))
    _, metrics = train_step(state, model.params, batched(rows, 1, 4), spec=spec)
    return float(metrics["gradient_norm"])

  norms = [gradient_norm(step) for step in (0, 1, 2, 1)]
  assert norms[1] == norms[3]
  assert len(set(norms)) == 3


def test_a_loss_that_is_not_finite_is_reported(tmp_path):
  model = tiny_model(layers=ONE_LAYER)
  model.params["final_norm"]["scale"] = jnp.full(16, jnp.nan, jnp.float32)
  with pytest.raises(InputError, match="not finite at step 1; nothing was saved yet"):
    finetune(model, TEXTS, QUICK, workdir=tmp_path)


@pytest.mark.parametrize(
  ("examples", "message"),
  [
    ([], "there are no examples"),
    ([*TEXTS, *CHOICES], "cannot be mixed"),
    ([CompletionExample([1], [24])], "token ids from 0 to 24: the model's vocabulary has only 24"),
    ([LabelExample([1], [3, 99], [0, 1])], "token ids from 3 to 99"),
    ([CompletionExample([1] * 30, [2])], "example 0: 31 tokens, more than `max_tokens=16`"),
  ],
)
def test_invalid_examples_are_reported(model, tmp_path, examples, message):
  with pytest.raises(InputError, match=message):
    finetune(model, examples, QUICK, workdir=tmp_path)


def test_too_little_memory_for_full_fine_tuning_is_reported_first(model, tmp_path, monkeypatch):
  monkeypatch.setattr("gatrec_jax.lm.folders.memory.available_bytes", lambda _: 1000)
  config = dataclasses.replace(QUICK, mode="full")
  with pytest.raises(InputError, match="full fine-tuning of tiny need.*use `mode=lora`"):
    finetune(model, TEXTS, config, workdir=tmp_path)


def test_validation_of_another_kind_is_rejected(model, tmp_path):
  with pytest.raises(InputError, match="not of the same kind"):
    finetune(model, TEXTS, QUICK, workdir=tmp_path, validation=CHOICES)


def test_int8_weights_allow_adapters_but_not_full_training(model):
  attention = dict(model.params["layer_0"]["attention"])
  kernel = np.asarray(attention["q"]["kernel"])
  scale = np.abs(kernel).max(axis=1) / 127
  attention["q"] = {
    "kernel_int8": jax.device_put(np.int8(np.round(kernel / scale[:, None]))),
    "kernel_scale": jax.device_put(scale),
  }
  params = model.params | {"layer_0": model.params["layer_0"] | {"attention": attention}}
  small = dataclasses.replace(model, params=params)
  with pytest.raises(InputError, match="mode=full: int8 weights cannot be trained"):
    init_state(small, spec_of(small, dataclasses.replace(QUICK, mode="full")))
  rows, _ = one_per_row(TEXTS[:4], row_tokens=6, pad=0)
  state, metrics = first_step(small, PLAIN, rows)
  assert float(metrics["gradient_norm"]) > 0
  assert np.abs(state.params["layer_0"]["attention"]["q"]["b"]).max() > 0


def test_the_pace_of_a_run_is_that_of_its_batches(model):
  before = jax.tree.map(jnp.copy, model.params)
  found = pace_of(model, TEXTS, dataclasses.replace(PLAIN, batch_size=4, accumulate=1))
  # Six rows of 6 tokens, padded to the most that a row may have, in batches of four.
  assert found.seconds_per_step > 0 and found.steps_per_epoch == 2
  assert found.tokens_per_step == 4 * 16
  assert equal_trees(before, model.params)
