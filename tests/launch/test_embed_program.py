"""launch.embed with a decoder as the encoder of texts."""

import json

import numpy as np
import pytest
from helpers.gguf_files import bpe_fields, write_gguf
from helpers.paths import DECODER_GOLDENS
from helpers.programs import call, error_line
from helpers.rerank_table import write_table

QWEN2 = DECODER_GOLDENS / "qwen2"
DATA = ("--dataset=ratings.csv", "--item_metadata=items.jsonl")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  folder = tmp_path_factory.mktemp("embed")
  write_table(folder, users=16, items=32)
  write_gguf(QWEN2, folder / "own.gguf", more=bpe_fields(QWEN2, cut="qwen2"))
  return folder


def embed(place, workdir, *flags, check=0):
  return call("embed", *DATA, f"--workdir={workdir}", *flags, cwd=place, check=check)


def vectors(place, workdir):
  return np.load(place / workdir / "embeddings/items.npy")


def test_texts_are_encoded_by_a_file_of_llama_cpp(place, monkeypatch):
  monkeypatch.setenv("GATREC_CACHE", str(place / "cache"))
  assert "own.gguf" in embed(place, "mean", "--encoder=own.gguf").stdout
  facts = json.loads((place / "mean/embeddings/manifest.json").read_text())["facts"]
  assert (facts["encoder"], facts["kind"], facts["dimension"]) == ("own", "folder", 32)
  embed(place, "last", "--encoder=own.gguf", "--encoder_pooling=last")
  embed(place, "asked", "--encoder=own.gguf", "--encoder_prompt=What is it? ")
  found = [vectors(place, one) for one in ("mean", "last", "asked")]
  for one in found:
    np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, atol=1e-5)
  assert min(np.abs(found[0] - one).max() for one in found[1:]) > 1e-3
  again = embed(place, "again", "--encoder=own.gguf", "--encoder_pooling=mean").stdout
  assert "embed: 0 texts encoded" in again
  np.testing.assert_array_equal(vectors(place, "again"), found[0])
  embed(place, "again", "--encoder=own.gguf", "--encoder_pooling=last")
  np.testing.assert_array_equal(vectors(place, "again"), found[1])


@pytest.mark.parametrize(
  ("flags", "said"),
  [
    (["--encoder=none.gguf"], "--encoder=none.gguf: no such file"),
    (["--encoder=own.gguf", "--encoder_pooling=max"], "--encoder_pooling=max: must be one of auto"),
    (
      ["--encoder=lexical", "--encoder_pooling=mean"],
      "--encoder_pooling=mean: has no effect with --encoder=lexical",
    ),
    (["--encoder=lexical", "--encoder_prompt=x"], "has no effect with --encoder=lexical"),
  ],
)
def test_wrong_input_is_one_line(place, flags, said):
  assert said in error_line(embed(place, "wrong", *flags, check=1))
