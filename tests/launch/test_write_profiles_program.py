"""launch.write_profiles as users run it: written, killed and resumed, refused."""

import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from helpers.paths import ROOT
from helpers.programs import call, environment, error_line, launch
from helpers.writers import write_model

from gatrec_jax.profiles.schema import parse_profile

QWEN = ROOT / "tests" / "lm" / "goldens" / "decoders" / "qwen2"
DATA = ("--dataset=ratings.csv", "--item_metadata=items.jsonl", "--test_share=0.2")
USERS, ITEMS = 8, 8


def write_table(folder):
  """A small table with texts, in which the first two users have only neutral ratings."""
  random = np.random.default_rng(0)
  lines = ["user_id,item_id,rating,timestamp", "0,3,3,1", "0,4,3,2"]
  for user in range(1, USERS):
    for n, item in enumerate(random.permutation(ITEMS)[:7]):
      rating = 3 if user == 1 else random.integers(1, 6)
      lines.append(f"{user},{item},{rating},{n}")
  (folder / "ratings.csv").write_text("\n".join(lines) + "\n")
  words = "storm harbor cellar orchard verdict engine bridge lantern".split()
  items = []
  for item in range(ITEMS):
    chosen = " and the ".join(random.permutation(words)[:3])
    items.append(
      {
        "item_id": item,
        "title": f"The {words[item % 8].title()} {item} (1999)",
        "genres": [["Drama", "War"], ["Comedy"]][item % 2],
        "overview": f"It tells of the {chosen}.",
      }
    )
  (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """A folder with a model and an uninterrupted run in a process of its own."""
  folder = tmp_path_factory.mktemp("place")
  write_table(folder)
  write_model(folder / "model")
  launch("write_profiles", *flags("whole"), cwd=folder, check=0)
  return folder


def flags(workdir, *more):
  return ("--llm=model", f"--workdir={workdir}", "--batch_size=2", *DATA, *more)


def files(workdir):
  return [(workdir / "written" / f"{kind}.jsonl").read_bytes() for kind in ("items", "users")]


def rows(workdir, kind):
  return [json.loads(line) for line in open(workdir / "written" / f"{kind}.jsonl")]


def lines_there(workdir):
  return sum(path.read_bytes().count(b"\n") for path in (workdir / "written").glob("*.jsonl"))


def test_every_profile_has_a_line_and_the_manifest_records_its_origin(place):
  items, users = rows(place / "whole", "items"), rows(place / "whole", "users")
  assert [row["item_id"] for row in items] == [str(n) for n in range(ITEMS)]
  assert [row["user_id"] for row in users] == [str(n) for n in range(USERS)]
  for row in items:
    profile = parse_profile(row["profile"])
    assert profile.name.startswith("The ") and profile.genres in (("Drama", "War"), ("Comedy",))
  # A 3 is neither liked nor disliked: the model is not queried, and there is nothing to build.
  for row in users[:2]:
    assert (row["source"], row["profile"], row["batches"]) == ("none", "", 0)
  assert all(row["source"] in ("llm", "built") and row["profile"] for row in users[2:])
  assert any(row["source"] == "llm" and row["batches"] >= 2 for row in users)
  for row in users[2:]:
    assert all("The " + word not in row["profile"] for word in ("Storm", "Harbor", "Engine"))
  manifest = json.loads((place / "whole" / "written" / "manifest.json").read_text())
  assert manifest["origin"]["model"] == "model" and len(manifest["origin"]["model hash"]) == 32
  assert manifest["origin"]["prompt version"] >= 1 and manifest["users"]["tokens"] > 100
  assert sum(manifest["users"]["sources"].values()) == USERS
  assert manifest["users"]["sources"]["none"] == 2
  assert not list((place / "whole" / "written").glob("*.partial.*"))


def test_after_a_kill_it_ends_with_the_same_bytes(place):
  workdir = place / "killed"
  process = subprocess.Popen(
    [sys.executable, "-m", "launch.write_profiles", *flags("killed")],
    cwd=place,
    env=environment(place),
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  deadline = time.monotonic() + 60
  while not lines_there(workdir) and process.poll() is None and time.monotonic() < deadline:
    time.sleep(0.002)
  process.kill()
  output = process.communicate(timeout=60)[0]
  assert process.returncode == -signal.SIGKILL, output
  assert not (workdir / "written" / "users.jsonl").exists()
  call("write_profiles", *flags("killed"), cwd=place, check=0)
  assert files(workdir) == files(place / "whole")


def test_another_model_is_refused_and_the_same_one_elsewhere_is_kept(place):
  before = files(place / "whole")
  write_model(place / "model2", seed=1)
  line = error_line(call("write_profiles", *flags("whole", "--llm=model2"), cwd=place, check=1))
  assert "model hash" in line and "use another --workdir" in line
  shutil.copytree(place / "model", place / "other" / "model")
  done = call("write_profiles", *flags("whole", "--llm=other/model"), cwd=place, check=0)
  assert done.stdout.count("unchanged, kept") == 3 and "parameters" not in done.stdout
  assert files(place / "whole") == before


def test_some_items_are_written_and_measured(place):
  more = ("--write=items", "--items=0,3,5,6", "--limit=3", "--audit=2", "--encoder=lexical")
  done = call("write_profiles", *flags("some", *more), cwd=place, check=0)
  assert [row["item_id"] for row in rows(place / "some", "items")] == ["0", "3", "5"]
  assert "profiles ·" in done.stdout and "grounded" in done.stdout
  facts = json.loads((place / "some" / "written" / "audit.json").read_text())
  by_model = [row for row in rows(place / "some", "items") if row["source"] == "llm"]
  assert facts["items"] == min(2, len(by_model)) > 0 and list(facts["kinds"]) == [
    "written",
    "built",
  ]
  assert facts["kinds"]["written"]["grounded"] == 1 and facts["kinds"]["written"]["schema"] == 1
  assert facts["kinds"]["written"]["restated dislikes"] == 0


@pytest.mark.parametrize(
  ("changed", "said"),
  [
    (("--llm=builtin",), "--llm=builtin: the built-in model re-ranks and cannot write profiles"),
    (("--llm=",), "--llm: name a decoder's folder, GGUF file or hub id, or one of smollm2"),
    (("--llm=missing/model",), "--llm=missing/model"),
    (("--write=films",), "--write=films: must be one of items, users"),
    (("--items=0,x",), "--items: item x is not in the catalog of 8 items"),
    (("--limit=-1",), "--limit=-1: must be at least 0"),
    (("--audit=5", "--write=users"), "--audit: measures profiles of items; add --write=items"),
    ((f"--llm={QWEN}",), "longer context"),
  ],
)
def test_wrong_input_is_one_line(place, changed, said):
  done = call("write_profiles", *flags("wrong", *changed), cwd=place, check=1)
  assert said in error_line(done)
