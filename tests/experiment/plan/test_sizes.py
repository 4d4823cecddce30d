"""Sizes of prepared data, by hand."""

import numpy as np

from gatrec_jax.config.overrides import with_fields
from gatrec_jax.config.presets import get_preset
from gatrec_jax.data.feedback import Feedback
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.data.prepared import Prepared
from gatrec_jax.data.split_draws import Split
from gatrec_jax.experiment.plan.sizes import sizes_of, sizes_of_table


def prepared(fields):
  rows = Interactions.from_indices(
    [0, 0, 0, 1, 1, 2, 2], [0, 1, 2, 0, 1, 2, 3], [5, 4, 1, 5, 3, 4, 2], num_users=3, num_items=5
  )
  split = Split(np.array([0, 1, 2, 3]), np.array([4]), np.array([5, 6]))
  return Prepared(rows, split, fields, Feedback(4.0, 2.0), {})


def test_of_prepared_data():
  sizes = sizes_of(get_preset("best"), prepared([{}] * 5))
  assert (sizes.users, sizes.items, sizes.ratings, sizes.nodes) == (3, 5, 7, 8)
  assert (sizes.train, sizes.valid, sizes.test, sizes.likes) == (4, 1, 2, 3)
  assert (sizes.valid_users, sizes.test_users) == (0, 1)  # user 1's validation rating is no like
  assert sizes.pairs == 3**2 + 1**2 and sizes.longest == 3
  assert sizes.texts == sizes.text_width == 0 and not sizes.is_read


def test_texts_count_for_models_that_read_them():
  titled = prepared([{"title": "A"}] + [{}] * 4)
  lexical = with_fields(get_preset("best"), {"encoder": "lexical"})
  assert (sizes_of(lexical, titled).texts, sizes_of(lexical, titled).text_width) == (8, 128)
  assert sizes_of(get_preset("best"), titled).text_width == 384
  assert sizes_of(get_preset("ease"), titled).texts == 0


def test_of_a_table_the_split_is_that_of_the_settings():
  config = with_fields(get_preset("best"), {"test_share": 0.5, "valid_share": 0.2})
  sizes = sizes_of_table(config, users=10, items=20, ratings=100)
  assert (sizes.train, sizes.valid, sizes.test) == (40, 10, 50)
  none = sizes_of_table(with_fields(config, {"split": "none"}), users=10, items=20, ratings=100)
  assert none.test == 0 and none.train + none.valid == 100
