"""The small model folders of ../shared/cases on which an earlier version was wrong, and their kinds
made from a golden folder."""

import json
import re
import shutil
import struct

import numpy as np
import pytest
from helpers.paths import DATA
from helpers.paths import DECODER_GOLDENS as GOLDENS
from safetensors.numpy import load_file, save_file

from gatrec_jax.errors import InputError
from gatrec_jax.lm.decoder.config import read_decoder_config
from gatrec_jax.lm.decoder.model import forward
from gatrec_jax.lm.folders.load import load_decoder
from gatrec_jax.lm.inference.generate import generate
from gatrec_jax.runs.log import SILENT, Recorder

CASES = DATA.parent / "cases" / "models"
shared = pytest.mark.skipif(not CASES.is_dir(), reason=f"no shared cases in {CASES}")


@pytest.fixture
def folder(tmp_path):
  """A writable copy of a decoder with a tokenizer."""
  target = tmp_path / "qwen"
  shutil.copytree(GOLDENS / "qwen2", target)
  return target


def edit(path, **fields):
  values = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
  path.write_text(json.dumps(values | fields), encoding="utf-8")


def error_of(folder):
  with pytest.raises(InputError) as error:
    load_decoder(folder, log=SILENT)
  message = str(error.value)
  assert message and "\n" not in message and len(message) < 6000
  return message


def last_logits(model, tokens):
  ids = np.array([tokens], np.int32)
  return np.asarray(forward(model.params, ids, config=model.config))[0, -1]


@shared
@pytest.mark.parametrize(
  ("name", "token"), [("gemma3_text", 320), ("llama_pad", 320), ("three", 322)]
)
def test_shared_token_ids_past_the_table(name, token):
  model = load_decoder(CASES / name)
  assert len(model.tokenizer) == token + 1 > model.config.vocabulary
  text = model.tokenizer.convert_ids_to_tokens(token)
  with pytest.raises(InputError, match=re.escape(f"the token {text!r} (id {token}) has no row")):
    generate(model, [f"a {text} b"], max_tokens=2)
  assert len(generate(model, ["a b"], max_tokens=2)[0].tokens) <= 2


@shared
def test_shared_head_beside_tied_embeddings():
  lines = []
  model = load_decoder(CASES / "tied_both_differ", log=Recorder(lines))
  assert len(lines) == 1 and "lm_head.weight counts" in lines[0]
  found = last_logits(model, [3, 7, 11, 200])[:3]
  np.testing.assert_allclose(found, [0.277, 0.323, -0.825], atol=6e-4)


@shared
def test_shared_stale_index():
  assert load_decoder(CASES / "stale").config.vocabulary == 320


@shared
def test_shared_weights_that_are_not_finite():
  model = load_decoder(CASES / "nan_weight")
  with pytest.raises(InputError, match="^nan_weight: the model gives non-finite logits"):
    generate(model, ["a"], max_tokens=2)


@shared
@pytest.mark.parametrize(
  ("name", "expected"),
  [
    ("gen_eos_text", "generation_config.json: eos_token_id is '</s>'; it must be a whole number"),
    ("gen_is_list", "generation_config.json: holds a list of 0; a JSON object is needed"),
    ("heads_float", "config.json: rms_norm_eps is '1e-6'; it must be a number"),
  ],
)
def test_shared_fields_of_a_wrong_type(name, expected):
  assert error_of(CASES / name) == f"{CASES / name}/{expected}"


@shared
def test_shared_whole_numbers_as_floats(tmp_path):
  assert load_decoder(CASES / "int_floats").config.layers[0].rope.theta == 10_000.0
  shutil.copytree(CASES / "heads_float", tmp_path / "model")
  edit(tmp_path / "model" / "config.json", rms_norm_eps=1e-6)
  assert load_decoder(tmp_path / "model").config.kv_heads == 2


@shared
def test_shared_tokenizer_of_bytes():
  from tokenizers import Tokenizer

  folder = CASES / "llama_class_bytelevel"
  text = "Hello, Wörld! 1234\n  end"
  expected = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
  assert load_decoder(folder).tokenizer(text)["input_ids"] == expected


def test_a_token_past_the_table_is_refused_by_name(folder):
  tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
  added = {"id": 128, "content": "<image>", "special": True, "single_word": False}
  added |= {"lstrip": False, "rstrip": False, "normalized": False}
  tokenizer["added_tokens"].append(added)
  (folder / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
  assert read_decoder_config(folder).vocabulary == 128
  model = load_decoder(folder)
  with pytest.raises(InputError, match="prompt 1: the token '<image>' .id 128. has no row"):
    generate(model, ["film <image>"], max_tokens=1)


def test_a_head_beside_tied_embeddings(folder):
  tensors = load_file(folder / "model.safetensors")
  table = tensors["model.embed_tokens.weight"]
  edit(folder / "config.json", tie_word_embeddings=True)
  lines = []
  save_file(tensors | {"lm_head.weight": table.copy()}, folder / "model.safetensors")
  tied = load_decoder(folder, log=Recorder(lines))
  assert tied.config.tied and not lines
  save_file(tensors | {"lm_head.weight": 2 * table}, folder / "model.safetensors")
  own = load_decoder(folder, log=Recorder(lines))
  assert not own.config.tied and len(lines) == 1
  np.testing.assert_allclose(
    last_logits(own, [3, 7]), 2 * last_logits(tied, [3, 7]), rtol=1e-5, atol=1e-6
  )


def test_an_index_of_shards_that_are_gone(folder):
  index = folder / "model.safetensors.index.json"
  index.write_text('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}', "utf-8")
  load_decoder(folder)
  (folder / "model.safetensors").unlink()
  assert "shards named by model.safetensors.index.json are missing" in error_of(folder)


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ('{"weight_map": {"a": "../model.safetensors"}}', "lies outside of the folder"),
    ('{"weight_map": {"a": "/etc/x.safetensors"}}', "lies outside of the folder"),
    ('{"weight_map": {"a": "pytorch_model.bin"}}', "is no .safetensors file"),
    ('{"weight_map": {"a": 1}}', "is no .safetensors file"),
    ('{"weight_map": []}', "not a valid index of weights"),
    ("[" * 100_000, "not a valid index of weights"),
  ],
)
def test_a_bad_index(folder, text, expected):
  (folder / "model.safetensors.index.json").write_text(text, "utf-8")
  message = error_of(folder)
  assert expected in message and "model.safetensors.index.json" in message


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(folder, value):
  tensors = load_file(folder / "model.safetensors")
  tensors["model.norm.weight"][3] = value
  save_file(tensors, folder / "model.safetensors")
  with pytest.raises(InputError, match="^qwen: the model gives non-finite logits"):
    generate(load_decoder(folder), ["film"], max_tokens=2)


@pytest.mark.parametrize(
  ("field", "value", "expected"),
  [
    ("vocab_size", 10**12, f"vocab_size is {10**12}; it must be 2147483647 or less"),
    ("vocab_size", 10**9, "expected [1000000000, 32]"),
    ("num_hidden_layers", 10**9, "num_hidden_layers is 1000000000; it must be 10000 or less"),
    ("num_hidden_layers", 9_000, "the weights do not match config.json"),
    ("hidden_size", -4, "hidden_size is -4; it must be 1 or more"),
    ("hidden_size", "32", "hidden_size is '32'; it must be a whole number"),
    ("hidden_size", True, "hidden_size is True; it must be a whole number"),
    ("hidden_size", [32], "hidden_size is a list of 1; it must be a whole number"),
    ("num_attention_heads", 2.5, "num_attention_heads is 2.5; it must be a whole number"),
    ("num_attention_heads", {"a": 1}, "num_attention_heads is an object of 1"),
    ("num_attention_heads", 10**400, "num_attention_heads is a number of about 400 digits"),
    ("rope_theta", "x", "rope_theta is 'x'; it must be a number"),
    ("rope_theta", float("nan"), "rope_theta is nan; it must be finite"),
    ("rms_norm_eps", float("inf"), "rms_norm_eps is inf; it must be finite"),
    ("rms_norm_eps", -1, "rms_norm_eps is -1; it must be 0.0 or more"),
    ("rope_scaling", [1], "rope_scaling: holds a list of 1; a JSON object is needed"),
    ("rope_scaling", {"rope_type": []}, "rope type a list of 0 is not one of"),
    ("rope_scaling", {"rope_type": "linear", "factor": 0}, "factor is 0; it must be above 0"),
    ("layer_types", "full_attention", "layer_types is 'full_attention'; it must be a list"),
    ("layer_types", [[]], "layer_types a list of 0 is not one of"),
    ("tie_word_embeddings", "no", "tie_word_embeddings is 'no'; it must be true or false"),
    ("eos_token_id", ["a"], "eos_token_id is 'a'; it must be a whole number"),
    ("bos_token_id", -1, "bos_token_id is -1; it must be 0 or more"),
    ("hidden_act", ["silu"], "hidden_act a list of 1 is not one of"),
    ("model_type", ["llama"], "model_type a list of 1 is not one of"),
  ],
)
def test_a_field_that_cannot_be(folder, field, value, expected):
  edit(folder / "config.json", **{field: value})
  assert expected in error_of(folder)


def test_whole_numbers_may_be_written_as_floats(folder):
  plain = read_decoder_config(folder)
  fields = json.loads((folder / "config.json").read_text("utf-8"))
  names = ("hidden_size", "num_hidden_layers", "vocab_size", "num_attention_heads")
  edit(folder / "config.json", **{name: float(fields[name]) for name in names})
  assert read_decoder_config(folder) == plain
  load_decoder(folder)


@pytest.mark.parametrize(
  "text", ["[]", "null", '"a"', "[" * 100_000, '{"a": 1e999}', "{", "", "9" * 5000, "\x00"]
)
@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json"])
def test_a_file_that_is_no_object(folder, name, text):
  (folder / name).write_text(text, "utf-8")
  if (name, text) in (
    ("generation_config.json", '{"a": 1e999}'),
    ("tokenizer_config.json", '{"a": 1e999}'),
  ):
    load_decoder(folder)
  else:
    error_of(folder)


def header(path, change):
  """Rewrites the header of a safetensors file."""
  data = path.read_bytes()
  (size,) = struct.unpack("<Q", data[:8])
  text = change(json.loads(data[8 : 8 + size]))
  text = text if isinstance(text, bytes) else json.dumps(text).encode()
  path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])


NORM = "model.norm.weight"


@pytest.mark.parametrize(
  "change",
  [
    lambda fields: fields | {NORM: fields[NORM] | {"data_offsets": [-4, 124]}},
    lambda fields: fields | {NORM: fields[NORM] | {"data_offsets": [0, 128]}},
    lambda fields: fields | {NORM: fields[NORM] | {"data_offsets": [0, 1 << 62]}},
    lambda fields: fields | {NORM: fields[NORM] | {"shape": [1 << 62, 1 << 62]}},
    lambda fields: fields | {NORM: fields[NORM] | {"dtype": "F99"}},
    lambda fields: fields | {NORM: fields[NORM] | {"dtype": "I32"}},
    lambda fields: fields | {NORM: fields[NORM] | {"shape": "32"}},
    lambda fields: fields | {NORM: []},
    lambda fields: [],
    lambda fields: b"\xff\xfe",
    lambda fields: b"[" * 100_000,
    lambda fields: (json.dumps(fields)[:-1] + f', "{NORM}": {json.dumps(fields[NORM])}}}').encode()[
      :-1
    ],
  ],
)
def test_a_damaged_header(folder, change):
  header(folder / "model.safetensors", change)
  assert str(folder) in error_of(folder)


def test_a_header_longer_than_the_file(folder):
  path = folder / "model.safetensors"
  path.write_bytes(struct.pack("<Q", 1 << 60) + path.read_bytes()[8:])
  assert error_of(folder).startswith(f"{path}: damaged or truncated (")


def test_two_names_of_one_tensor(folder):
  tensors = load_file(folder / "model.safetensors")
  save_file(tensors | {"norm.weight": tensors[NORM]}, folder / "model.safetensors")
  assert "has both" in error_of(folder)


def test_many_problems_are_cut_short(folder):
  edit(folder / "config.json", num_hidden_layers=500)
  message = error_of(folder)
  assert " and " in message and message.endswith(" more") and len(message) < 3000
