"""Plans of data, and the refusal of a run before it begins."""

import pytest
from helpers.programs import quick_config

from gatrec_jax.config.presets import get_preset
from gatrec_jax.errors import InputError
from gatrec_jax.experiment.plan.plan import make_plan
from gatrec_jax.experiment.plan.run import lines_of
from gatrec_jax.experiment.plan.sizes import sizes_of_table
from gatrec_jax.experiment.train_and_evaluate import train_and_evaluate
from gatrec_jax.runs.log import Recorder


def test_a_run_that_does_not_fit_is_refused_before_it_trains(tmp_path):
  log = Recorder([])
  with pytest.raises(InputError, match="memory_limit=0.4: .* needs .* the limit is 0.4 GiB"):
    train_and_evaluate(quick_config(), tmp_path / "run", memory_limit=0.4, log=log)
  assert not (tmp_path / "run" / "checkpoints").exists()
  assert not (tmp_path / "run" / "profiles").exists()


def test_of_small_data_a_line_says_what_is_needed():
  config = get_preset("best")
  plan = make_plan(config, sizes_of_table(config, users=100, items=100, ratings=2000))
  (line,) = lines_of(plan, 8 << 30, is_long=False)
  assert line == f"at most {plan.peak / 2**30:.1f} GiB of 8.0 GiB, in evaluation"
  lines = list(lines_of(plan, None, is_long=True))
  assert len(lines) == 1 + len(plan.stages) + 1 and "of 8.0" not in lines[0]
