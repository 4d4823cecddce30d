"""launch.ablate on the demo catalog."""

import json

import pytest
from helpers.programs import call, error_line

FLAGS = (
  "--preset=tiny",
  "--encoder=lexical",
  "--set=epochs=2",
  "--set=feature_width=8",
  "--set=layer_widths=8",
  "--set=heads=1",
  "--components=layers,cosine",
  "--refit=false",
  "--bootstrap=200",
  "--workdir=w",
  "--json_out=a.json",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  return tmp_path_factory.mktemp("ablate")


@pytest.fixture(scope="module")
def done(place):
  return call("ablate", *FLAGS, cwd=place, check=0)


def test_each_component_is_left_out_and_judged(place, done):
  tree = json.loads((place / "a.json").read_text())
  assert tree["reference"] == "whole"
  assert set(tree["models"]) == {"whole", "without layers", "without cosine"}
  assert tree["components"]["layers"]["settings"] == {"convolution": "none"}
  assert tree["components"]["cosine"]["flags"] == "--set=cosine_weight=0"
  lines = done.stdout.splitlines()
  for name in ("layers", "cosine"):
    [sentence] = [line for line in lines if line.startswith(f"{name}: ")]
    own = tree["models"][f"without {name}"]["full"]["ndcg@10"]
    difference = own["against_reference"]
    verb = {"behind": "brings", "ahead": "costs", "not separated": "no difference shows"}
    assert f"{name}: {verb[difference['verdict']]}" in sentence
    whole = tree["models"]["whole"]["full"]["ndcg@10"]["mean"]
    assert f"{whole - own['mean']:+.4f}" in sentence


def test_a_second_call_trains_nothing_again(place, done):
  again = call("ablate", *FLAGS, cwd=place, check=0)
  assert again.stdout.count("already finished, kept") == 3 and "epochs in" not in again.stdout


@pytest.mark.parametrize(
  ("flags", "says"),
  [
    (("--components=layer",), "--components=layer: did you mean layers?"),
    (("--preset=ease",), "only the GAT (best, paper, tiny) has components"),
    (("--split=none",), "--split=none: holds out no ratings"),
    (("--metrics=ndcg@7",), "--metrics=ndcg@7: must be one of"),
  ],
)
def test_errors(place, flags, says):
  done = call("ablate", "--workdir=other", *flags, cwd=place, check=1)
  assert says in error_line(done)
  assert not (place / "other").exists()
