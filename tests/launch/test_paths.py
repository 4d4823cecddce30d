"""The programs with folders and files whose names have everything in them."""

import json
import os
import tempfile

import numpy as np
import pyarrow.parquet as pq
from helpers.programs import TINY, call, error_line, launch
from helpers.rerank_table import write_table
from helpers.strange_names import ALL
from helpers.tiny_decoder import tiny_config
from helpers.tiny_reranker import tiny_reranker

from gatrec_jax.lm.folders.export import export_folder

RUN, FITTED, MODEL, OUT = (f"{first}{ALL[:190]}" for first in "rfmo")
TABLE, ITEMS = "~ratings=[a],i n?\n.csv", "-{items}.jsonl"
DATA = (f"--dataset={TABLE}", f"--item_metadata={ITEMS}", "--bootstrap=20")


def test_a_run_is_made_and_read_by_every_program(tmp_path, monkeypatch):
  place = tmp_path / ALL / " * "
  place.mkdir(parents=True)
  titles = write_table(place)
  (place / "ratings.csv").rename(place / TABLE)
  (place / "items.jsonl").rename(place / ITEMS)
  export_folder(tiny_reranker(titles, layers=tiny_config().layers[:1]), place / MODEL)
  monkeypatch.setattr(tempfile, "tempdir", str(place))

  def ask(program, *flags, workdir=RUN):
    return call(program, f"--workdir={workdir}", *flags, cwd=place, check=0).stdout

  ask("train", *TINY, *DATA)
  ask("recommend", f"--out={OUT}.parquet", "--top_n=50")
  ask("evaluate", f"--recommendations={OUT}.parquet", f"--json_out={OUT}")
  results, again = (json.loads(p.read_text()) for p in (place / RUN / "results.json", place / OUT))
  assert again["full"]["ndcg@10"] == results["full"]["ndcg@10"]

  (place / f"{OUT}.txt").write_text("1\n2\n3\n")
  only = (f"--only={OUT}.txt", f"--candidates={OUT}.parquet", f"--out={OUT}.csv")
  ask("recommend", *only, workdir=place / RUN)
  rows = (place / f"{OUT}.csv").read_text().splitlines()[1:]
  assert {row.split(",")[1].strip('"') for row in rows} == {"1", "2", "3"}
  ask("recommend", f"--export_embeddings={OUT}.folder")
  assert np.load(place / f"{OUT}.folder" / "users.npy").shape[0] == 60
  ask("explain", "--users=1", "--top_n=2", "--llm=none", f"--out={OUT}.jsonl")
  assert len((place / f"{OUT}.jsonl").read_text().splitlines()) == 2

  ask("train", "--model=ease", *DATA, "--valid_share=0.1", "--search=1", workdir=FITTED)
  assert pq.read_table(place / FITTED / "search/trials.parquet").num_rows == 1
  settings = (f"--llm={MODEL}", "--top_candidates=4", "--history=3")
  ask("finetune", *settings, "--out_of_fold=2", "--tune=steps=1", workdir=FITTED)
  adapter = next((place / FITTED / "finetuned").glob("*/adapter"))
  ask("rerank", *settings, f"--lora={adapter}", f"--json_out={OUT}2", workdir=FITTED)
  assert json.loads((place / f"{OUT}2").read_text())["label"]["metrics"]

  # Folders with commas stand in double quotes, in which a double quote is written twice.
  runs = ",".join('"' + name.replace('"', '""') + '"' for name in (RUN, FITTED))
  flags = (f"--runs={runs}", f"--reference={FITTED}", f"--json_out={OUT}3")
  call("compare", *flags, cwd=place, check=0)
  assert set(json.loads((place / f"{OUT}3").read_text())["models"]) == {RUN, FITTED}
  assert not [name for name in os.listdir(place) if name.startswith(("gatrec-", "."))]


def test_a_name_that_is_not_utf_8_is_refused_before_anything_is_written(tmp_path):
  for by in (call, launch):
    done = by("train", "--model=popularity", "--workdir=a\udcffb", cwd=tmp_path, check=2)
    assert error_line(done) == (
      "error: '--workdir=a\\udcffb' is not UTF-8; rename the file or folder"
    )
  assert not [name for name in os.listdir(tmp_path) if name != "cache"]


def test_home_is_meant_by_a_tilde_and_a_folder_by_its_name(tmp_path):
  home, place = tmp_path / "home", tmp_path / "place"
  home.mkdir(), place.mkdir()
  flags = ("--model=popularity", "--bootstrap=0", "--json_out=~/out.json")
  for workdir in ("~/run", "~nobody~here"):
    call("train", f"--workdir={workdir}", *flags, cwd=place, check=0, env={"HOME": str(home)})
  assert sorted(os.listdir(home)) == ["out.json", "run"]
  assert (place / "~nobody~here" / "results.json").exists()
