"""Times in every unit and style, and the question where a date is read in two ways."""

import datetime

import numpy as np
import pytest

from gatrec_jax.data.tables.times import style_of, style_of_numbers
from gatrec_jax.errors import InputError

SECOND = 1_252_540_800  # 2009-09-10


@pytest.mark.parametrize(
  ("numbers", "seconds"),
  [
    ([SECOND, SECOND + 1], [SECOND, SECOND + 1]),
    ([SECOND * 1000 + 999], [SECOND]),
    ([SECOND * 10**6 + 5], [SECOND]),
    ([SECOND * 10**9 + 5], [SECOND]),
    ([SECOND * 1000.0, 0], [SECOND, 0]),
    ([20090910, 20090911], [SECOND, SECOND + 86_400]),
    ([20090910, 20090999], [20090910, 20090999]),  # not a date
    ([0, 1, 2], [0, 1, 2]),  # positions in a history
    ([-5], [-5]),
  ],
)
def test_numbers(numbers, seconds):
  numbers = np.array(numbers)
  style = style_of_numbers(numbers)
  assert style.seconds_of(numbers).tolist() == seconds
  assert [style.seconds(number) for number in numbers.tolist()] == seconds
  assert bool(style.remark) == (seconds != numbers.tolist())


@pytest.mark.parametrize(
  ("texts", "style"),
  [
    (["2009-09-10", "2009-09-11T01:02:03Z"], ""),
    (["10/09/2009", "25/09/2009"], "%d/%m/%Y"),
    (["09/10/2009", "09/25/2009"], "%m/%d/%Y"),
    (["09 10, 2009", "9 25, 2009"], "%m %d, %Y"),  # Amazon
    (["Sep 10, 2009"], "%b %d, %Y"),
    (["10.09.2009 12:30"], "%d.%m.%Y %H:%M"),
    (["2009/09/10 00:00:01"], "%Y/%m/%d %H:%M:%S"),
    (["2009-09-10 10:00:00 UTC"], ""),
  ],
)
def test_styles(texts, style):
  found = style_of(texts, column="when")
  assert found.format in (style, "%Y-%m-%d %H:%M:%S UTC")
  for text in texts:
    moment = datetime.datetime.fromtimestamp(found.seconds(text), datetime.UTC)
    assert (moment.year, moment.month) == (2009, 9) and moment.day in (10, 11, 25)


def test_two_readings_are_a_question():
  with pytest.raises(InputError, match="time_format: .*'when', such as '04/08/2009'.*%d/%m.*%m/%d"):
    style_of(["04/08/2009", "05/08/2009"], column="when")
  found = style_of(["04/08/2009"], column="when", time_format="%d/%m/%Y")
  assert (
    found.seconds("04/08/2009") == datetime.datetime(2009, 8, 4, tzinfo=datetime.UTC).timestamp()
  )


@pytest.mark.parametrize("value", ["soon", "", None, [1], True, "9e99", float("inf"), float("nan")])
def test_what_is_no_time(value):
  with pytest.raises((ValueError, OverflowError)):
    style_of([1, 2], column="when").seconds(value)
