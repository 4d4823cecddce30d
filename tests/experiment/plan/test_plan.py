"""Plans against the arrays of real inputs, and properties of all models' plans."""

import jax
import numpy as np
import pytest
from helpers.programs import toy_ratings
from hypothesis import given, settings
from hypothesis import strategies as st

from gatrec_jax.config.overrides import with_fields
from gatrec_jax.config.presets import PRESETS, get_preset
from gatrec_jax.experiment.plan import gat
from gatrec_jax.experiment.plan.plan import make_plan
from gatrec_jax.experiment.plan.rates import Rates
from gatrec_jax.experiment.plan.sizes import sizes_of_table
from gatrec_jax.models.base import make_inputs
from gatrec_jax.models.linear.ridge import WHOLE_RANK
from gatrec_jax.models.registry import make_recommender
from gatrec_jax.sharding.mesh import MeshShape

RATES = Rates(flops=1e11, edges=4e6, softmax=1e8, ranks=2e8, sparse=1e9, rows=1e7, bandwidth=1e10)
MIB = 2**20
# Choices by size (a smaller form for large catalogs, all eigenvectors of small ones, a matrix where
# it is dense) are fixed here.
FIXED = {
  "best": {"linear_form": "spectral", "loss": "pairwise"},
  "ease": {"form": "spectral"},
  "ease_rated": {"form": "spectral"},
  "gf_cf": {"form": "spectral"},
  "lightgcn": {"propagation": "sparse"},
  "lightgcn_softmax": {"propagation": "sparse", "drawn_items": 1024},
  "xsimgcl": {"propagation": "sparse"},
}


def stage_of(plan, name):
  return next(stage for stage in plan.stages if stage.name == name)


@pytest.mark.parametrize("name", PRESETS)
def test_every_model_has_a_plan(name):
  config = get_preset(name)
  sizes = sizes_of_table(config, users=6040, items=3706, ratings=10**6)
  plan = make_plan(config, sizes, RATES)
  names = [stage.name for stage in plan.stages]
  assert names[:2] == ["data", "texts"] and names[-1] == "evaluation" and "training" in names
  assert all(stage.peak >= 0 and stage.seconds >= 0 for stage in plan.stages)
  assert make_plan(config, sizes).seconds is None
  assert make_plan(config, sizes).memory == plan.memory


def test_users_as_their_events_take_no_table_of_users_in_training():
  config = with_fields(get_preset("best", split="next_item"), {"linear_weight": "0"})
  few, many = (
    sizes_of_table(config, users=users, items=2000, ratings=10**6) for users in (10**3, 10**5)
  )
  plans = [make_plan(config, sizes, RATES) for sizes in (few, many)]
  first, second = (stage_of(plan, "training") for plan in plans)
  assert first.peak == second.peak
  longer = with_fields(config, {"history_length": "200"})
  assert stage_of(make_plan(longer, many, RATES), "training").peak > second.peak
  assert "softmax over all 2,000 items" in first.choice


@pytest.mark.parametrize("name", sorted({*PRESETS} - {"text_ridge", "content_knn"}))
@settings(max_examples=15, deadline=None)
@given(
  users=st.integers(WHOLE_RANK + 1, 10**6),
  items=st.integers(WHOLE_RANK + 1, 10**6),
  each=st.integers(5, 50),
  more=st.tuples(*[st.integers(0, 10**6)] * 2),
)
def test_more_data_never_take_less_memory(name, users, items, each, more):
  config = with_fields(get_preset(name), FIXED.get(name, {}))
  small = sizes_of_table(config, users=users, items=items, ratings=users * each)
  users, items = users + more[0], items + more[1]
  large = sizes_of_table(config, users=users, items=items, ratings=users * each)
  assert make_plan(config, large).peak >= make_plan(config, small).peak


def test_matrices_of_items_by_hand():
  config = get_preset("item_knn")
  sizes = sizes_of_table(config, users=100, items=50_000, ratings=1000)
  training = stage_of(make_plan(config, sizes), "training")
  histories = 2 * 4 * 100 * 50_000
  assert training.peak == 5 * 4 * 50_000**2 + histories and training.left == 4 * 50_000**2


@pytest.mark.parametrize("loss", ["softmax", "pairwise"])
def test_inputs_of_the_gat_take_what_the_plan_says(loss):
  config = with_fields(get_preset("best"), {"loss": loss, "linear_form": "exact"})
  train = toy_ratings(num_users=300, num_items=200)
  sizes = sizes_of_table(config, users=300, items=200, ratings=len(train))
  sizes = sizes._replace(train=len(train), likes=int(np.count_nonzero(train.rating >= 4)))
  recommender = make_recommender(config.model.without_text(), num_users=300, num_items=200)
  inputs = make_inputs(recommender, train)
  made = sum(leaf.nbytes for leaf in jax.tree.leaves(inputs))
  plan = make_plan(config, sizes)
  planned = sum(stage_of(plan, name).left for name in ("linear", "graph"))
  assert planned == pytest.approx(made, rel=0.2)


@pytest.mark.parametrize("name", ["sasrec", "gru4rec", "markov"])
def test_inputs_of_models_of_sequences_take_what_the_plan_says(name):
  config = get_preset(name)
  train = toy_ratings(num_users=300, num_items=200)
  sizes = sizes_of_table(config, users=300, items=200, ratings=len(train))
  sizes = sizes._replace(train=len(train), likes=int(np.count_nonzero(train.rating >= 4)))
  inputs = make_inputs(make_recommender(config.model, num_users=300, num_items=200), train)
  made = sum(leaf.nbytes for leaf in jax.tree.leaves(inputs))
  # Padding of rows, and items that followed the same one several times, are not foreseen.
  assert 0.8 * made < stage_of(make_plan(config, sizes), "graph").left < 1.4 * made


def test_training_of_sasrec_by_hand():
  few = {"width": 10, "blocks": 1, "heads": 1, "length": 4, "drawn_items": 100, "epochs": 10}
  config = with_fields(get_preset("sasrec"), few | {"batch_size": 2})
  sizes = sizes_of_table(config, users=1000, items=500, ratings=3000)._replace(train=3000)
  training = stage_of(make_plan(config, sizes, RATES), "training")
  # Items, positions; queries, keys, values, their output and two layers.
  params = 4 * (500 * 10 + 4 * 10 + 6 * 100)
  # Ten places in a step, each with its scores, what blocks keep and a row of the attention.
  step = params + 4 * (4 * 10 * 100 + 10 * (16 * 10 + 4 * 5))
  assert training.left == 3 * params and training.peak == 3 * params + step
  assert training.work == 10 * 6 * 3000 * (600 + 2 * 5 * 10 + 100 * 10)


def test_training_of_gru4rec_by_hand():
  few = {"width": 10, "length": 4, "drawn_items": 100, "epochs": 10, "batch_size": 2}
  config = with_fields(get_preset("gru4rec"), few)
  sizes = sizes_of_table(config, users=1000, items=500, ratings=3000)._replace(train=3000)
  training = stage_of(make_plan(config, sizes, RATES), "training")
  # Items; what is read and the states, three gates each, and their map.
  params = 4 * (500 * 10 + 7 * 100)
  step = params + 4 * (4 * 10 * 100 + 10 * 16 * 10)
  assert training.left == 3 * params and training.peak == 3 * params + step
  assert training.work == 10 * 6 * 3000 * (700 + 100 * 10)


def test_what_is_chosen_is_said():
  config = get_preset("best")
  sizes = sizes_of_table(config, users=29_858, items=40_981, ratings=1_027_370)
  plan = make_plan(config, sizes, RATES)
  assert stage_of(plan, "linear").choice == "spectral: 256 eigenvectors, 32 neighbors"
  assert "softmax over 4,096 drawn of 40,981 items" in stage_of(plan, "training").choice
  assert stage_of(plan, "validation").choice == "3,275 of 29,858 users"
  (note,) = plan.notes
  assert "at the latest after 300" in note and "a guess" in note


def test_training_by_hand():
  config = with_fields(get_preset("best"), {"epochs": 10, "drawn_items": 1000, "linear_weight": 0})
  sizes = sizes_of_table(config, users=10_000, items=50_000, ratings=10**6)
  training = stage_of(make_plan(config, sizes, RATES), "training")
  edges = 2 * sizes.train
  assert training.work == 10 * 2 * edges  # epochs of one step, layers
  table = 4 * 60_000 * 64
  assert training.left == table
  # Parameters and moments; gradient, moments and two layers; edges; scores; gathered rows.
  gathered = min(4 * 2**26, 4 * 64 * sizes.train)
  step = (4 + 2 * 4) * table + 16 * edges + 4 * 4 * 2**22 + gathered
  assert training.peak == pytest.approx(3 * table + step, rel=1e-9)


def test_known_results_of_the_analysis_of_compiled_programs():
  """XLA's memory analysis of the epochs (jax 0.10.2, two cores): temporaries in MiB."""
  for users, items, train, found in (
    (29_858, 40_981, 740_000, 469.7),
    (138_493, 26_744, 14_400_000, 976.0),  # 5.2 million edges are drawn
    (6_040, 3_706, 720_000, 118.6),
  ):
    config = with_fields(get_preset("best"), {"linear_weight": 0})
    sizes = sizes_of_table(config, users=users, items=items, ratings=train)._replace(
      train=train, valid_users=0
    )
    training = stage_of(make_plan(config, sizes), "training")
    params = 3 * 4 * (users + items) * 64
    assert (training.peak - params) / MIB == pytest.approx(found, rel=0.2)


@pytest.mark.parametrize(
  ("devices", "ratings", "nodes", "found"),
  [
    (8, 6e6, 3e5, 96.4 + 1872.4),
    (32, 6e6, 3e5, 29.3 + 1728.8),
    (8, 12e6, 3e5, 128.4 + 2135.7),
    (8, 6e6, 6e5, 158.5 + 2983.9),
  ],
)
def test_a_device_of_a_mesh_needs_what_the_analysis_of_compiled_programs_says(
  devices, ratings, nodes, found
):
  """XLA's arguments and temporaries of the epochs in MiB (jax 0.10.2, forced CPU devices)."""
  config = with_fields(get_preset("best"), {"linear_weight": 0})
  sizes = sizes_of_table(config, users=int(nodes), items=int(nodes), ratings=int(ratings))
  sizes = sizes._replace(train=int(ratings), likes=int(ratings))
  sizes = sizes._replace(drawn=min(2 * sizes.train, 32 * sizes.nodes))
  of_device, fixed = gat.bytes_a_device(config, sizes, MeshShape(1, devices, 1))
  assert of_device / MIB == pytest.approx(found, rel=0.2) and fixed < of_device


def test_a_plan_for_a_mesh_says_what_devices_and_hosts_need():
  config = get_preset("best")
  sizes = sizes_of_table(config, users=10**6, items=10**6, ratings=50 * 10**6)
  few, many = (
    make_plan(config, sizes, mesh=MeshShape(1, graph, 1)).notes[-1] for graph in (16, 256)
  )
  assert few.startswith("on a mesh of 1x16x1 training needs ") and "each host reads all" in few
  assert gat.bytes_a_device(config, sizes, MeshShape(1, 256, 1))[0] < 2**33
  assert few != many.replace("1x256x1", "1x16x1")
  other = make_plan(get_preset("ease"), sizes, mesh=MeshShape(1, 16, 1))
  assert other.notes[-1].endswith("planned for the GAT alone, not for ease")
