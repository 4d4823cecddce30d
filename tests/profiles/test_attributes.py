"""Attributes of items: names that items share, and years by rank."""

import numpy as np
import pytest

from gatrec_jax.profiles.attributes import item_attributes, year_of

FIELDS = [
  {"title": "A (1990)", "genres": ["Drama", "War"], "director": "Ann Lee"},
  {"title": "B (1992)", "genres": "drama|War", "actors": "Bo Hu, Ann Lee"},
  {"title": "C (1992)", "genres": ["Drama"], "writer": "ann lee"},
  {"title": "D", "year": 1999, "tags": "War"},
  {},
]


def test_names_that_three_items_share_get_a_column():
  found = item_attributes(FIELDS)
  names, years = found[:, :-9], found[:, -9:]
  # Genre drama and person Ann Lee; war is a genre of two and a tag of one.
  np.testing.assert_array_equal(names, [[1, 1], [1, 1], [1, 1], [0, 0], [0, 0]])
  assert not years[4].any()
  # Ranks of 1990, 1992, 1992, 1999 among four: 1/8, 4/8, 4/8, 7/8.
  assert [int(row.argmax()) for row in years[:4]] == [1, 4, 4, 7]
  np.testing.assert_allclose(years[0, :3], np.exp([-0.5, 0, -0.5]), rtol=1e-6)


def test_missing_metadata_gives_no_column():
  assert item_attributes([{}, {"title": "x"}]).shape == (2, 0)


@pytest.mark.parametrize(
  ("fields", "year"),
  [
    ({"title": "Heat (1995)"}, 1995),
    ({"title": "2001: A Space Odyssey"}, None),
    ({"title": "Série (1995-1999)"}, 1995),
    ({"release_date": "1 Jan 1997"}, 1997),
    ({"year": "1984.0", "title": "X (1990)"}, 1984),
    ({"title": None}, None),
  ],
)
def test_the_year(fields, year):
  assert year_of(fields) == year
