"""What does not fit is one line with settings that fit."""

import re

import pytest

from gatrec_jax.config.overrides import with_fields
from gatrec_jax.config.presets import get_preset
from gatrec_jax.errors import InputError
from gatrec_jax.experiment.plan import limit as limits
from gatrec_jax.experiment.plan.limit import limit_bytes, require_fits
from gatrec_jax.experiment.plan.plan import make_plan
from gatrec_jax.experiment.plan.sizes import sizes_of_table

GIB = 2**30


def refusal(config, sizes, limit, **given):
  with pytest.raises(InputError) as error:
    require_fits(make_plan(config, sizes), config, round(limit * GIB), **given)
  return error.value


def gowalla(config):
  return sizes_of_table(config, users=29_858, items=40_981, ratings=1_027_370)


@pytest.mark.parametrize(
  ("name", "fields", "limit"),
  [("best", {}, 2.0), ("best", {}, 1.5), ("ease", {"form": "exact"}, 4.0), ("item_knn", {}, 4.0)],
)
def test_the_settings_that_are_named_fit(name, fields, limit):
  config = with_fields(get_preset(name), fields)
  error = refusal(config, gowalla(config), limit)
  assert error.field == "memory_limit" and "\n" not in str(error)
  assert f"the limit is {limit:.1f} GiB" in error.message
  named = error.message.split("it fits with ")[1]
  *ways, more = named.split("; or ")
  assert ways
  for way in ways:
    settings = dict(re.findall(r"`(\w+)=([^`]*)`", way))
    other = get_preset(settings.pop("model")) if "model" in settings else config
    other, sizes = with_fields(other, settings), gowalla(other)
    if part := re.search(r"^use a part of the rows, such as those of 1 of (\d+) users", way):
      sizes = sizes.of_users(1 / int(part[1]))
    assert make_plan(other, sizes).peak <= limit * GIB
  enough = float(re.fullmatch(r"`memory_limit=([\d.]+)` if the machine has it", more)[1])
  require_fits(make_plan(config, gowalla(config)), config, round(enough * GIB))


def test_where_no_setting_fits_fewer_users_do():
  config = get_preset("best")
  sizes = sizes_of_table(config, users=138_493, items=26_744, ratings=20_000_263)
  message = refusal(config, sizes, 2.0, at_least=True).message
  assert " needs at least " in message and "no setting alone makes it fit" in message
  part, hints = re.search(r"those of 1 of (\d+) users(.*?) or fewer;", message).groups()
  assert message.endswith(" or more if the machine has it")  # the sizes are lower bounds
  fewer = with_fields(config, dict(re.findall(r"`(\w+)=([^`]*)`", hints)))
  assert make_plan(fewer, sizes.of_users(1 / int(part))).peak <= 2 * GIB


def test_what_fits_is_not_refused():
  config = get_preset("best")
  plan = make_plan(config, gowalla(config))
  require_fits(plan, config, plan.peak)
  require_fits(plan, config, None)
  assert refusal(config, gowalla(config), (plan.peak - 1) / GIB)


def test_the_limit_is_three_quarters_of_the_machine(monkeypatch):
  monkeypatch.setattr(limits, "total_bytes", lambda: 16 * GIB)
  assert limit_bytes(None) == 12 * GIB and limit_bytes(0.5) == GIB // 2
  monkeypatch.setattr(limits, "total_bytes", lambda: None)
  assert limit_bytes(None) is None
  for wrong in (0, -1.0, float("nan"), float("inf")):
    with pytest.raises(InputError, match="memory_limit=.*above 0"):
      limit_bytes(wrong)
