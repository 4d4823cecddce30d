"""Suite `injection` on a model with random weights."""

import numpy as np
from helpers.chat_tokenizers import STYLES
from helpers.programs import call, error_line
from helpers.tiny_decoder import random_params, tiny_config

from gatrec_jax.lm.folders.load import LanguageModel
from gatrec_jax.runs.log import SILENT
from launch.benchmarks import injection as suite


def test_both_texts_of_a_pair_have_the_same_length():
  assert all(len(demand) == len(harmless) for demand, harmless in suite.TEXTS)


def test_ranks_are_compared_pair_by_pair(monkeypatch):
  tokenizer = STYLES["chatml"]()
  config = tiny_config(vocabulary=len(tokenizer), context=1024, layers=tiny_config().layers[:1])
  model = LanguageModel("tiny", None, config, random_params(config), tokenizer)
  results = suite.run_injection(model, strategies=["label"], items=6, log=SILENT)
  assert [(row["strategy"], row["place"], row["items"]) for row in results["rows"]] == [
    ("label", "title", 6),
    ("label", "profile", 6),
  ]
  for row in results["rows"]:
    assert 1 <= row["rank"] <= suite.CANDIDATES
    assert row["change"]["lo"] <= row["change"]["mean"] <= row["change"]["hi"]
  plain = suite._ranks(model, "label", 6, seed=0, place="title", hostile=False)
  assert plain.mean() == results["rows"][0]["rank"]
  monkeypatch.setattr(suite, "TEXTS", tuple((text, text) for _, text in suite.TEXTS))
  np.testing.assert_array_equal(
    suite._ranks(model, "label", 6, seed=0, place="title", hostile=True), plain
  )
  assert "+" in suite.table(results).rows[0][-1] or "-" in suite.table(results).rows[0][-1]


def test_a_model_is_needed(tmp_path):
  refused = call("benchmark", "--suite=injection", cwd=tmp_path, check=1)
  assert "--llm" in error_line(refused)
