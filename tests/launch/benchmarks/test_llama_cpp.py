"""Suite llama_cpp, with a peer that is this package, and one that differs from it."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.gguf_files import bpe_fields, write_gguf
from helpers.paths import DECODER_GOLDENS as GOLDENS
from helpers.programs import call

from gatrec_jax.lm.decoder.model import forward
from gatrec_jax.lm.folders.gguf import read_gguf
from gatrec_jax.lm.folders.load import load_decoder
from gatrec_jax.lm.inference.generate import generate
from gatrec_jax.runs.log import SILENT
from launch.benchmarks import llama_cpp


class Peer:
  """Answers as llama_cpp.mjs does, by the same model; `wrong` changes what it answers."""

  def __init__(self, *, wrong=False):
    self.wrong, self.files = wrong, []

  def ask(self, job, **arguments):
    return getattr(self, job)(**arguments)

  def hello(self):
    return {"version": "0"}

  def load(self, file, threads, tokens):
    self.files.append(file)
    self.model = load_decoder(file)
    return {}

  def tokenize(self, texts):
    ids = self.model.tokenizer(texts, add_special_tokens=False)["input_ids"]
    return {"ids": [[*one, 5] for one in ids] if self.wrong else ids}

  def generate(self, prompts, count):
    answers = generate(self.model, prompts, max_tokens=count)
    ids = [list(answer.tokens) for answer in answers]
    if self.wrong:
      ids = [[*one[:2], one[2] ^ 1, *one[3:]] if len(one) > 2 else one for one in ids]
    return {"answers": [{"ids": one, "first": 0.5, "rest": 2.0} for one in ids]}

  def score(self, ids):
    logits = np.asarray(forward(self.model.params, jnp.array([ids]), config=self.model.config)[0])
    logs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True) - self.wrong
    tops = [[[int(token), float(row[token])] for token in np.argsort(-row)[:10]] for row in logs]
    return {"next": [float(logs[at, one]) for at, one in enumerate(ids[1:])], "top": tops[:-1]}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
  path = tmp_path_factory.mktemp("gguf") / "qwen.gguf"
  fields = bpe_fields(GOLDENS / "qwen2", cut="qwen2") | {"tokenizer.ggml.eos_token_id": 2}
  return write_gguf(GOLDENS / "qwen2", path, kind="Q8_0", more=fields)


def measured(file, peer, monkeypatch):
  for name, value in {"STRINGS": 20, "SCORED": 60, "WINDOW": 40}.items():
    monkeypatch.setattr(llama_cpp, name, value)
  monkeypatch.setattr(llama_cpp, "QUESTIONS", llama_cpp.QUESTIONS[:3])
  return llama_cpp.run_llama_cpp(file, peer, prompt_tokens=8, max_tokens=6, log=SILENT)


def test_the_same_model_agrees_in_everything(file, monkeypatch):
  peer = Peer()
  found = measured(file, peer, monkeypatch)
  assert found["strings"] == {"texts": 20, "different": 0, "first": []}
  for one in (found["stored"], found["exact"]):
    assert one["equal"] == one["answers"] == 3 and one["scored"] == 58  # two windows of 40 and 20
    assert one["perplexity"][0] == pytest.approx(one["perplexity"][1], rel=1e-6)
    assert one["difference"] == pytest.approx(0, abs=1e-5)
  assert peer.files[0] == str(file) and peer.files[1].endswith("float32.gguf")
  assert found["speed"]["prefill"][1] == 16 and found["speed"]["decode"][1] == 2.5
  assert found["speed"]["batch"] > 0
  cells = [cell for row in llama_cpp.table(found).rows for cell in row]
  assert "0 of 20 strings" in cells and "3 of 3 to their end, 6.0 tokens on average" in cells


def test_differences_are_found(file, monkeypatch):
  found = measured(file, Peer(wrong=True), monkeypatch)
  assert found["strings"]["different"] == 20 and len(found["strings"]["first"]) == 5
  one = found["stored"]
  assert one["equal"] == 0 and one["agreed"] == 2
  assert one["perplexity"][1] == pytest.approx(np.e * one["perplexity"][0])
  assert one["difference"] == pytest.approx(1)


def test_a_copy_has_the_same_values_and_fields(file, tmp_path):
  llama_cpp.write_as_float32(file, tmp_path / "copy.gguf")
  copy, source = read_gguf(tmp_path / "copy.gguf"), read_gguf(file)
  assert copy.fields == source.fields
  assert {one.kind for one in copy.tensors.values()} == {"F32"}
  assert "Q8_0" in {one.kind for one in source.tensors.values()}


def test_strings_are_varied_and_the_same_each_time():
  texts = llama_cpp.strings(200)
  assert texts == llama_cpp.strings(200) and len(set(texts)) > 190
  assert any("<|im_start|>" in text for text in texts) and any("\n\n" in text for text in texts)


@pytest.mark.parametrize(
  "flags, said",
  [
    ((), "llm: the suite needs a GGUF file"),
    ((f"--llm={GOLDENS / 'qwen2'}",), "the suite needs a GGUF file"),
    (("--llm=FILE",), "must be a folder where `npm install node-llama-cpp --ignore-scripts`"),
  ],
)
def test_what_is_missing_is_one_line(file, tmp_path, flags, said):
  flags = [flag.replace("FILE", str(file)) for flag in flags]
  done = call("benchmark", "--suite=llama_cpp", *flags, cwd=tmp_path)
  assert done.returncode == 1 and said in done.stderr and done.stderr.count("\n") == 1
