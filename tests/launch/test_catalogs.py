"""Catalogs that are no films, and a catalog without any text, from start to end."""

import json

import numpy as np
import pytest
from helpers.programs import TINY, call, error_line

KINDS = ("Pens", "Paper", "Binders")
TRAIN = (*TINY, "--bootstrap=0", "--refit=false", "--ks=10")


def write_ratings(path, item_id):
  rng = np.random.default_rng(0)
  rows = [
    f"u{user},{item_id(item)},{5 if item % 3 == user % 3 else rng.integers(1, 4)}"
    for user in range(36)
    for item in rng.choice(30, 14, replace=False)
  ]
  path.write_text("user_id,item_id,rating\n" + "\n".join(rows) + "\n")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
  """A folder with a trained run of a shop, whose items have brands and nested categories."""
  folder = tmp_path_factory.mktemp("shop")
  write_ratings(folder / "bought.csv", lambda n: f"B{n:03}")
  lines = [
    {
      "asin": f"B{n:03}",
      "Title": f"{KINDS[n % 3]} No. {n}",
      "brand": ["Acme Works", "Bolt & Co", "Unknown"][n % 3],
      "categories": [["Office", KINDS[n % 3]]],
      "feature": ["Sturdy steel clip.", f"Set of {n}."],
      "details": {"weight": n},
      "imageURL": f"http://images.test/{n}.jpg",
    }
    for n in range(30)
  ]
  (folder / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
  flags = ("--dataset=bought.csv", "--item_metadata=items.jsonl", "--workdir=w")
  folder.joinpath("said.txt").write_text(call("train", *TRAIN, *flags, cwd=folder, check=0).stdout)
  return folder


def test_a_shop_has_products(shop):
  said = (shop / "said.txt").read_text()
  assert "item_noun product" in said
  assert (
    "items: ids from 'asin', title from 'Title', brand, genres from 'categories', features from "
    "'feature'; not used: 'details' (an object), 'imageURL' (a link)"
  ) in said
  texts = (shop / "w/profiles/items.jsonl").read_text()
  texts += (shop / "w/profiles/users.jsonl").read_text()
  assert "An office and pens product by Acme Works." in texts and "by Unknown" not in texts
  assert "This user enjoys" in texts and "products" in texts
  assert "film" not in texts.casefold() and "movie" not in texts.casefold()


def test_reasons_name_the_brand(shop):
  flags = ("--workdir=w", "--llm=none", "--users=u0,u3,u6", "--style=detailed", "--top_n=3")
  done = call("explain", *flags, cwd=shop, check=0)
  said = " ".join(done.stdout.split())
  assert "from Acme Works (brand)" in said and "worked on" not in said and "film" not in said


def test_a_noun_of_the_user_s_own(shop):
  flags = ("--preset=tiny", "--dataset=bought.csv", "--item_metadata=items.jsonl", "--workdir=toys")
  call("prepare", *flags, "--item_noun=toy", cwd=shop, check=0)
  assert "pens toy by Acme Works." in (shop / "toys/profiles/items.jsonl").read_text()
  done = call("prepare", *flags, "--item_noun=toy_1", cwd=shop, check=1)
  assert "--item_noun=toy_1: must be a noun in the singular" in error_line(done)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
  """A folder with a trained run of a table without metadata."""
  folder = tmp_path_factory.mktemp("bare")
  write_ratings(folder / "mine.csv", str)
  done = call("train", *TRAIN, "--dataset=mine.csv", "--workdir=w", cwd=folder, check=0)
  folder.joinpath("said.txt").write_text(done.stdout)
  return folder


def test_a_table_without_texts_is_trained_on_ids(bare):
  said = (bare / "said.txt").read_text()
  assert said.count("no item has any text: the GAT's features are ids") == 1
  assert "texts: none" in said and "embed:" not in said
  config = json.loads((bare / "w/config.json").read_text())
  assert '"node_features": "sum"' in json.dumps(config)  # as the preset has it
  facts = json.loads((bare / "w/embeddings/manifest.json").read_text())["facts"]
  assert facts == {"kind": "none", "encoder": "none", "users": 36, "items": 30}
  again = call("train", *TRAIN, "--dataset=mine.csv", "--workdir=w", cwd=bare, check=0).stdout
  assert "already finished at epoch 2, kept" in again


def test_a_run_without_texts_serves_everyone_and_gives_reasons(bare):
  done = call("recommend", "--workdir=w", "--users=u1", "--top_n=3", cwd=bare, check=0)
  assert done.stdout.count("(no title)") == 3
  done = call("recommend", "--workdir=w", "--liked=1,4", "--top_n=3", cwd=bare, check=0)
  assert done.stdout.count("(no title)") == 3
  (bare / "new.csv").write_text("user_id,item_id,rating\nu99,3,5\nu99,6,5\nu99,777,4\n")
  (bare / "items.csv").write_text("item_id,title\n888,A title\n")
  done = call(
    *("recommend", "--workdir=w", "--new_ratings=new.csv", "--new_items=items.csv"),
    *("--users=u99", "--top_n=40"),
    cwd=bare,
    check=0,
  )
  assert "new users 1, new items 2" in done.stdout and "A title" in done.stdout
  done = call("explain", "--workdir=w", "--llm=none", "--users=u1", "--top_n=2", cwd=bare, check=0)
  assert done.stdout.count("item [") >= 2


@pytest.mark.parametrize("preset", ["best", "paper"])
def test_other_presets_prepare_and_embed_without_texts(bare, preset):
  flags = (f"--preset={preset}", "--dataset=mine.csv", f"--workdir={preset}")
  for program in ("prepare", "embed"):
    done = call(program, *flags, cwd=bare, check=0)
    assert "no item has any text" in done.stdout


def test_best_trains_without_texts(bare):
  flags = ("--dataset=mine.csv", "--set=epochs=1", "--bootstrap=0", "--refit=false", "--ks=10")
  call("train", *flags, "--set=layers=1", "--workdir=best-trained", cwd=bare, check=0)
  done = call("recommend", "--workdir=best-trained", "--liked=2", "--top_n=2", cwd=bare, check=0)
  assert done.stdout.count("(no title)") == 2


@pytest.mark.parametrize("model", ["content_knn", "text_ridge"])
def test_models_of_text_say_that_they_need_some(bare, model):
  done = call("train", f"--model={model}", "--dataset=mine.csv", "--workdir=c", cwd=bare, check=1)
  line = error_line(done)
  assert f"{model} recommends by text, but no item has any; give --item_metadata" in line
