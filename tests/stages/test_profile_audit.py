"""The audit of written profiles beside built and given ones, on the demo catalog."""

import json

import numpy as np
import pytest
from helpers.programs import quick_config

from gatrec_jax.config.overrides import with_fields
from gatrec_jax.errors import InputError
from gatrec_jax.profiles.builder import build_item_profiles
from gatrec_jax.profiles.schema import Profile, render_profile
from gatrec_jax.stages.data import prepared_in_memory
from gatrec_jax.stages.profile_audit import audit_profiles
from launch.cli.profile_audit import audit_table


@pytest.fixture(scope="module")
def catalog():
  config = with_fields(quick_config(), {"encoder": "lexical"})
  return config, prepared_in_memory(config.data)


def audit(catalog, tmp_path, texts, **changed):
  config, prepared = catalog
  (tmp_path / "written").mkdir()
  return audit_profiles(with_fields(config, changed), tmp_path, prepared, texts, count=60, seed=0)


def test_profiles_that_are_the_built_ones_have_their_figures(catalog, tmp_path):
  config, prepared = catalog
  built = build_item_profiles(prepared.item_fields, noun=prepared.item_noun)
  texts = {item: render_profile(built[item]) for item in range(0, 200, 2)}
  given = tmp_path / "given.jsonl"
  ids = prepared.train.item_ids
  lines = [
    {"item_id": ids[item], "profile": f"# Word\n\n## Overview\nx{item}."} for item in range(200)
  ]
  given.write_text("".join(json.dumps(line) + "\n" for line in lines))
  facts = audit(catalog, tmp_path, texts, item_profiles=str(given))
  assert facts["items"] == 60 and facts["written by the model"] == 100 and facts["users"] > 100
  kinds = facts["kinds"]
  against = kinds["built"].pop("written against it")
  assert kinds["written"] == kinds["built"] and against["mean"] == against["lo"] == 0
  assert kinds["written"]["grounded"] == 1 and kinds["written"]["auc"] > 0.55
  low, high = kinds["written"]["auc interval"]
  assert low < kinds["written"]["auc"] < high
  # One word of its own each: nothing in common, so chance; and no section but one.
  assert kinds["given"]["schema"] == 0 and kinds["given"]["auc"] == pytest.approx(0.5, abs=0.05)
  assert kinds["given"]["written against it"]["lo"] > 0
  assert json.loads((tmp_path / "written" / "audit.json").read_text())["users"] == facts["users"]
  kinds["built"]["written against it"] = against
  table = audit_table(facts, title="demo")
  rows = {name: cells for name, *cells in table.rows}
  assert table.header == ("figure", "written", "built", "given")
  assert rows["schema"] == ["100.0%", "100.0%", "0.0%"] and rows["written − it, auc"][0] == ""
  assert rows["people"] == ["none", "none", "none"] and rows["profiles"] == ["60"] * 3


def test_invented_words_are_found(catalog, tmp_path):
  texts = {
    item: render_profile(Profile(name="x", description="Zebras graze.", tags=("zebras",)))
    for item in range(4)
  }
  facts = audit(catalog, tmp_path, texts)
  assert facts["kinds"]["written"]["plot words"] == 0 and facts["items"] == 4
  assert np.isclose(facts["kinds"]["written"]["auc"], 0.5)  # all alike


def test_nothing_written_is_one_line(catalog, tmp_path):
  with pytest.raises(InputError, match="no profile of an item was written by the model"):
    audit(catalog, tmp_path, {})
