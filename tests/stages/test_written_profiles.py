"""Written profiles as a stage of a run: training rows alone, signals, one origin, for training."""

import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import tempfile

import hypothesis
import numpy as np
import pytest
from helpers.programs import quick_config
from helpers.writers import Script, write_model
from hypothesis import strategies as st

from gatrec_jax import runs
from gatrec_jax.config.overrides import with_fields
from gatrec_jax.data.feedback import Feedback
from gatrec_jax.data.split_draws import Split
from gatrec_jax.errors import InputError, Interrupted
from gatrec_jax.profiles.schema import Profile, parse_profile, render_profile
from gatrec_jax.profiles.writer.batches import batches_of_users
from gatrec_jax.runs.log import SILENT, Recorder
from gatrec_jax.stages import data as stages
from gatrec_jax.stages import texts
from gatrec_jax.stages import written_profiles as written
from gatrec_jax.stages.data import prepared_in_memory

USERS, ITEMS = 12, 10
PLAIN = {"overview": "Rain.", "tags": ["rain"], "description": "Wet.", "dislikes": ["sun"]}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
  """A small table with texts. The first user only has a neutral rating."""
  folder = tmp_path_factory.mktemp("table")
  random = np.random.default_rng(0)
  lines = ["user_id,item_id,rating,timestamp", "0,1,3,1", "0,2,3,1", "0,3,3,1"]
  lines += [
    f"{user},{item},{random.integers(1, 6)},{n}"
    for user in range(1, USERS)
    for n, item in enumerate(random.permutation(ITEMS)[:8])
  ]
  (folder / "ratings.csv").write_text("\n".join(lines) + "\n")
  items = [
    {"item_id": i, "title": f"The Film {i} (1999)", "genres": ["Drama"], "overview": "Of rain."}
    for i in range(ITEMS)
  ]
  items[-1]["genres"] = ["War"]
  (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
  return folder


def config_of(table, **changed):
  return with_fields(
    quick_config(),
    {
      "dataset": str(table / "ratings.csv"),
      "item_metadata": str(table / "items.jsonl"),
      "valid_share": 0.1,
      **changed,
    },
  )


def write(config, folder, author=None, *, lines=None, **changed):
  author = author or Script()
  request = {
    "origin": {"model": "script"},
    "open": lambda: author,
    "kinds": ("items", "users"),
    "form": "unified",
    "batch_size": 3,
    "seed": 0,
    **changed,
  }
  log = SILENT if lines is None else Recorder(lines)
  return written.write_profiles(config, folder, written.Request(**request), log=log)


def files(folder):
  return [(folder / "written" / f"{kind}.jsonl").read_bytes() for kind in ("items", "users")]


def rows(folder, kind):
  return [json.loads(line) for line in open(folder / "written" / f"{kind}.jsonl")]


@pytest.mark.parametrize("at", [1, 2, 3, 6])
def test_a_signal_ends_after_the_batch_and_the_same_call_goes_on(table, tmp_path, at):
  class Stopped(Script):
    def answers(self, queries, *, seed, again):
      if len(self.asked) == at:
        os.kill(os.getpid(), signal.SIGTERM)
      return super().answers(queries, seed=seed, again=again)

  with pytest.raises(Interrupted, match="stopped by SIGTERM after .* the same command goes on"):
    write(config_of(table), tmp_path / "stopped", Stopped(lambda prompt, again: PLAIN))
  assert len(list((tmp_path / "stopped" / "written").glob("*.partial.jsonl"))) == 1
  write(config_of(table), tmp_path / "stopped", Script(lambda prompt, again: PLAIN))
  write(config_of(table), tmp_path / "plain", Script(lambda prompt, again: PLAIN))
  assert files(tmp_path / "stopped") == files(tmp_path / "plain")


@hypothesis.settings(
  max_examples=20, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
@hypothesis.given(kind=st.sampled_from(["items", "users"]), share=st.floats(0, 1))
def test_killed_anywhere_it_ends_with_the_same_bytes_and_repeats_nothing(whole, kind, share):
  config, folder = whole
  with tempfile.TemporaryDirectory() as place:
    copy = pathlib.Path(place) / "run"
    shutil.copytree(folder, copy)
    # As it was when it was killed: so much of the file, no later file, no note of it.
    tree = runs.read_sealed(folder / "written" / "manifest.json")
    lines, key = rows(copy, kind), f"{kind[:-1]}_id"
    data = "".join(runs.sealed_line({"key": line[key], **line}) for line in lines).encode()
    at = round(share * len(data))
    (copy / "written" / f"{kind}.partial.jsonl").write_bytes(data[:at])
    for gone in written.KINDS[written.KINDS.index(kind) :]:
      (copy / "written" / f"{gone}.jsonl").unlink()
      tree[gone] = {"origin": tree[gone]["origin"]}
    runs.write_sealed(copy / "written" / "manifest.json", tree)
    author = Script(lambda prompt, again: PLAIN)
    write(config, copy, author)
    assert files(copy) == files(folder)
    assert sorted(p.name for p in (copy / "written").iterdir()) == [
      "items.jsonl",
      "manifest.json",
      "users.jsonl",
    ]
    done = data.count(b"\n", 0, at)
    left = len(lines) - (done if done == len(lines) else done // 3 * 3)
    asked = {prompt for prompts in author.asked for prompt in prompts if "Text:" in prompt}
    if kind == "items":
      assert len(asked) == left
    elif not left:
      assert not author.asked


@pytest.fixture(scope="module")
def whole(table, tmp_path_factory):
  """A configuration and a run that nothing interrupted."""
  folder = tmp_path_factory.mktemp("whole")
  write(config_of(table), folder, Script(lambda prompt, again: PLAIN))
  return config_of(table), folder


def test_a_second_call_asks_nothing_and_a_lost_file_is_made_again(table, tmp_path):
  author, lines = Script(lambda prompt, again: PLAIN), []
  manifest = write(config_of(table), tmp_path, author, lines=lines)
  assert any("11 by the model, 1 without a profile (nothing liked" in line for line in lines)
  assert manifest["users"]["sources"] == {"llm": 11, "none": 1}
  before = files(tmp_path)

  def refuse():
    raise AssertionError("the model was loaded")

  again = []
  assert write(config_of(table), tmp_path, lines=again, open=refuse) == manifest
  assert sum("unchanged, kept" in line for line in again) == 3
  (tmp_path / "written" / "items.jsonl").unlink()
  write(config_of(table), tmp_path, Script(lambda prompt, again: PLAIN))
  # Killed between the last line and the manifest's note.
  tree = runs.read_sealed(tmp_path / "written" / "manifest.json")
  del tree["users"]["sha256"]
  runs.write_sealed(tmp_path / "written" / "manifest.json", tree)
  assert write(config_of(table), tmp_path, open=refuse)["users"]["sources"]["llm"] == 11
  assert files(tmp_path) == before
  with open(tmp_path / "written" / "users.jsonl", "a") as out:
    out.write("{}\n")
  with pytest.raises(InputError, match="users.jsonl: damaged .was changed after it was written"):
    write(config_of(table), tmp_path)


def test_profiles_of_two_origins_are_never_mixed(table, tmp_path, monkeypatch):
  write(config_of(table), tmp_path)
  before = files(tmp_path), (tmp_path / "data" / "manifest.json").read_bytes()
  monkeypatch.setattr(written, "PROMPT_VERSION", written.PROMPT_VERSION + 1)
  with pytest.raises(InputError, match="prompt version: 2 → 3.*use another `workdir`"):
    write(config_of(table), tmp_path)
  monkeypatch.undo()
  for config, request, said in (
    ({}, {"origin": {"model": "other"}}, "model: script → other"),
    ({}, {"seed": 1}, "seed: 0 → 1"),
    ({}, {"batch_size": 4}, "batch_size: 3 → 4"),
    ({}, {"form": "summary"}, "form: unified → summary"),
    ({"valid_share": 0.2}, {}, "valid_share: 0.1 → 0.2"),
    ({"positive_threshold": 5}, {}, "positive_threshold: None → 5.0"),
  ):
    with pytest.raises(InputError, match=said):
      write(config_of(table, **config), tmp_path, **request)
  assert (files(tmp_path), (tmp_path / "data" / "manifest.json").read_bytes()) == before


def test_the_hash_of_a_model_is_of_its_contents(tmp_path):
  first = write_model(tmp_path / "a" / "model")
  assert written.folder_hash(first) == written.folder_hash(write_model(tmp_path / "b" / "model"))
  for other in (write_model(tmp_path / "c", seed=1), write_model(tmp_path / "d", template="x")):
    assert written.folder_hash(first) != written.folder_hash(other)


def test_given_items_are_what_users_are_told_of_and_training_takes_the_rest(table, tmp_path):
  given = tmp_path / "given.jsonl"
  texts_of = [render_profile(Profile(name="The Film 0", tags=("snow",))), "A free text of ice."]
  lines = [json.dumps({"item_id": i, "profile": text}) for i, text in enumerate(texts_of)]
  given.write_text("\n".join(lines))
  config = config_of(table, item_profiles=str(given))
  author = Script()
  write(config, tmp_path / "run", author, kinds=("users",), form="summary")
  told = "\n".join(prompt for prompts in author.asked for prompt in prompts)
  assert "Tags: snow." in told and "A free text of ice." in told and "Of rain." in told
  assert "Film 0" not in told and not (tmp_path / "run" / "written" / "items.jsonl").exists()
  assert all("##" not in row["profile"] for row in rows(tmp_path / "run", "users"))

  users = {"user_profiles": str(tmp_path / "run" / "written" / "users.jsonl")}
  for share, folder in ((0.1, "same"), (0.2, "other")):
    own, said = config_of(table, valid_share=share, **users), []
    log = Recorder(said)
    prepared = stages.prepare(own.data, tmp_path / folder, log=log)
    if share == 0.1:
      texts.build_profiles(own.text, tmp_path / folder, prepared, data=own.data, log=log)
      assert not any("warning" in line for line in said)
      assert texts.read_texts(tmp_path / folder, "users")[1].startswith("Summary ")
    else:
      with pytest.raises(InputError, match="another split, validation part"):
        texts.build_profiles(own.text, tmp_path / folder, prepared, data=own.data, log=log)


def test_users_are_told_of_items_as_they_were_just_written(table, tmp_path):
  author = Script(lambda prompt, again: PLAIN if "Text:" in prompt else {})
  write(config_of(table), tmp_path, author)
  assert parse_profile(rows(tmp_path, "items")[4]["profile"]) == Profile(
    "The Film 4", "Of rain.", ("Drama",), ("rain",), "Wet.", ("sun",)
  )
  asked = [prompt for prompts in author.asked for prompt in prompts if "Items:" in prompt]
  assert len(asked) > 10
  for prompt in asked:
    assert re.search(r"1\. Genres: (Drama|War)\. Tags: rain\. Not in it: sun\. Of rain\.", prompt)


def scribbled(prepared, change):
  """The same training rows beside other validation and test rows."""
  rows, train = prepared.interactions, prepared.split.train
  if change == "deleted":
    return dataclasses.replace(
      prepared,
      interactions=rows.take(train),
      split=Split(np.arange(len(train)), *[np.zeros(0, np.int64)] * 2),
    )
  rest = np.concatenate([prepared.split.valid, prepared.split.test])
  moved = np.random.default_rng(0).permutation(rest)
  columns = {}
  for name in ("user", "item", "rating", "timestamp"):
    column = getattr(rows, name).copy()
    column[rest] = column[moved] if name != "rating" else 6 - column[moved]
    columns[name] = column
  return dataclasses.replace(prepared, interactions=dataclasses.replace(rows, **columns))


def test_prompts_are_made_of_training_rows_alone(tmp_path, monkeypatch):
  config = with_fields(quick_config(), {"valid_share": 0.2})
  prepared = prepared_in_memory(config.data)
  assert len(prepared.valid) > 1000 and len(prepared.test) > 1000
  seen = {}
  for change in ("", "permuted", "deleted"):
    folder = tmp_path / f"run{change}"
    given = scribbled(prepared, change) if change else prepared

    def prepare(data, workdir, *, log, given=given):
      return dataclasses.replace(given, facts={"content": "x"})

    monkeypatch.setattr(written, "prepare", prepare)
    author = Script()
    write(config, folder, author, batch_size=64)
    seen[change] = (author.asked, files(folder))
  assert len(seen[""][0]) > 40
  assert seen[""] == seen["permuted"] == seen["deleted"]
  # The test would notice: other training rows give other prompts.
  rest = {"feedback": Feedback(), "described": np.ones(800, bool)}
  assert batches_of_users(prepared.known, **rest) != batches_of_users(prepared.train, **rest)
