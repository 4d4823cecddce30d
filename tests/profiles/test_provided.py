"""Profile files: valid, invalid and leaking ones."""

import json

import pytest
from helpers.paths import PUBLISHED

from gatrec_jax import runs
from gatrec_jax.errors import InputError
from gatrec_jax.profiles import provided as given

IDS = ("1", "2", "x")


def read(tmp_path, *lines):
  path = tmp_path / "profiles.jsonl"
  path.write_text("\n".join(lines) + "\n", encoding="utf-8")
  return given.read_profiles(path, id_field="item_id", ids=IDS)


def test_reads_profiles_and_summaries_and_counts_the_rest(tmp_path):
  result = read(
    tmp_path,
    '{"item_id": 2, "profile": "two\\nlines"}',
    "",
    '{"item_id": "x", "summary": "s"}',
    '{"item_id": 9, "profile": "nobody"}',
    '{"item_id": 1, "profile": "  "}',
  )
  assert result == given.GivenProfiles({1: "two\nlines", 2: "s"}, unknown=1, empty=1)


@pytest.mark.parametrize(
  ("line", "message"),
  [
    ('{"item_id": 2, "pro', "line 2: invalid JSON"),
    ("[1, 2]", "line 2: not a JSON object"),
    ('{"user_id": 2, "profile": "p"}', "line 2: item_id must be"),
    ('{"item_id": 2.5, "profile": "p"}', "line 2: item_id must be"),
    ('{"item_id": 2}', "line 2: no text in field profile or summary"),
    ('{"item_id": 2, "profile": null}', "line 2: no text in field"),
    ('{"item_id": 1, "profile": "p"}', "line 2: item_id 1 was already given in line 1"),
  ],
)
def test_broken_lines_are_named(tmp_path, line, message):
  with pytest.raises(InputError, match=message):
    read(tmp_path, '{"item_id": 1, "profile": "p"}', line)


def test_a_file_for_another_dataset_and_a_missing_file_are_refused(tmp_path):
  with pytest.raises(InputError, match="no item_id is in the dataset"):
    read(tmp_path, '{"item_id": 77, "profile": "p"}')
  with pytest.raises(InputError, match="absent.jsonl: cannot be read"):
    given.read_profiles(tmp_path / "absent.jsonl", id_field="item_id", ids=IDS)


def check(texts, **changed):
  arguments = {
    "path": "users.jsonl",
    "dataset": "ml-100k",
    "fold": "u1",
    "trains_on_all_training": True,
    "data_content": "own",
  }
  return given.check_user_profiles_leak(texts, **(arguments | changed))


def test_unknown_texts_give_a_warning():
  assert "cannot be checked for leakage" in check(["likes westerns", "likes musicals"])


def test_our_own_profiles_are_recognized_by_their_manifest(tmp_path):
  path = tmp_path / "users.jsonl"
  path.write_text('{"user_id": 1, "profile": "likes westerns"}\n')
  manifest = {"data_content": "own", "users": {"sha256": runs.file_digest(path)}}
  runs.write_json(tmp_path / "manifest.json", manifest)
  assert check(["likes westerns"], path=path) is None
  with pytest.raises(InputError, match="users.jsonl: .* another split, validation part"):
    check(["likes westerns"], path=path, data_content="other")
  # Edited, or under a name that the manifest does not vouch for, it is a file from elsewhere.
  copy = tmp_path / "copy.jsonl"
  copy.write_bytes(path.read_bytes())
  path.write_text('{"user_id": 1, "profile": "likes westerns and Heat"}\n')
  for changed in (path, copy):
    assert "cannot be checked" in check(["likes westerns"], path=changed)
  # Files of other programs are called manifest.json too.
  for other in ("{}", "[1]", "no JSON", '{"users": 1, "data_content": 2}'):
    (tmp_path / "manifest.json").write_text(other)
    assert "cannot be checked" in check(["likes westerns"], path=path)


def published(name):
  if not PUBLISHED.is_dir():
    pytest.skip("../shared/data is not here")
  lines = (PUBLISHED / name).read_text(encoding="utf-8").splitlines()
  records = [json.loads(line) for line in lines]
  return [record.get("profile", record.get("summary")) for record in records]


@pytest.mark.parametrize("name", ["profiles_ml100k_users.jsonl", "summaries_ml100k_users.jsonl"])
def test_published_ml100k_profiles_are_allowed_only_for_paper_on_u1(name):
  texts = published(name)
  assert check(texts) is None
  # Re-ordered, trimmed to a third, cut short, and with other spacing and case.
  copy = [text.upper().replace(" ", "  ")[:400] for text in texts[::-1][: len(texts) // 3]]
  for copied in (texts, copy):
    with pytest.raises(InputError, match="any other split"):
      check(copied, fold="u2")
    with pytest.raises(InputError, match="any other split"):
      check(copied, dataset="ml-1m", fold=None)
    with pytest.raises(InputError, match="preset=paper"):
      check(copied, trains_on_all_training=False)


def test_published_ml1m_summaries_are_always_refused():
  texts = published("summaries_ml1m_users.jsonl")
  for dataset, fold in (("ml-1m", None), ("ml-100k", "u1")):
    with pytest.raises(InputError, match="every split"):
      check(texts[500:1000], dataset=dataset, fold=fold)


def test_published_item_profiles_are_not_taken_for_user_profiles():
  assert "cannot be checked" in check(published("profiles_ml100k_items.jsonl"))
