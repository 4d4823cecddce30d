"""launch.benchmark: its file, its table, and its errors for wrong input."""

import json
import os

import jax
import numpy as np
import pytest
from helpers.programs import call, error_line, launch

from gatrec_jax.errors import InputError
from gatrec_jax.lm.decoder.config import DecoderConfig, Layer
from gatrec_jax.lm.decoder.model import init_params
from gatrec_jax.lm.decoder.rope import Rope
from gatrec_jax.lm.folders.load import LanguageModel, load_decoder
from launch.benchmarks.hardware import known_peak
from launch.benchmarks.lm.random_folder import SHAPES, random_folder
from launch.benchmarks.lm.timing import compile_clock, decode_bytes, prefill_flops, spread

SMALL = (
  "--suite=lm",
  "--random_shape=tiny",
  "--prompt_tokens=24",
  "--max_tokens=4",
  "--continuations=3",
  "--repeats=2",
)
CONFIG = DecoderConfig(
  family="llama",
  vocabulary=10,
  width=4,
  inner=6,
  heads=2,
  kv_heads=1,
  head_size=2,
  layers=(Layer(None, Rope()), Layer(3, Rope())),
  context=32,
)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
  """The file of a run without a peer, and its output."""
  folder = tmp_path_factory.mktemp("benchmark")
  flags = (*SMALL, "--batch_sizes=2", "--markdown", "--json_out=lm.json")
  # Every program is cached, however fast this machine compiles it.
  kept = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
  done = call("benchmark", *flags, cwd=folder, check=0, env=kept)
  return json.loads((folder / "lm.json").read_text()), done.stdout


def test_figures_are_there_and_agree_with_each_other(results):
  tree, _ = results
  assert tree["suite"] == "lm" and tree["peer"] is None
  (entry,) = tree["generation"]
  assert entry["batch"] == 2 and entry["peer"] is None and entry["greedy_tokens_agree"] is None
  ours = entry["ours"]
  for part, tokens in (("prefill", 2 * 24), ("decode", 2 * 3)):
    seconds, rate = ours[f"{part}_seconds"], ours[f"{part}_tokens_per_second"]
    assert 0 < seconds["min"] <= seconds["median"] <= seconds["max"]
    assert rate["median"] == pytest.approx(tokens / seconds["median"])
    assert rate["max"] == pytest.approx(tokens / seconds["min"])
  machine = tree["machine"]
  flops = entry["prefill_flops_share"] * ours["prefill_seconds"]["median"] * machine["flops"]
  # Twice all weights but embedding, norms and biases for 48 tokens, the head for 2, attention.
  block = 64 * (64 + 32 + 32 + 64) + 3 * 64 * 128
  assert flops == pytest.approx(2 * (48 * 2 * block + 2 * 64 * 512 + 2 * 2 * 2 * 64 * 300))


def test_a_shared_prefix_changes_no_likelihood(results):
  scored = results[0]["continuations"]
  assert scored["continuations"] == 3 and scored["peer"] is None
  assert 0 <= scored["shared_against_separate_max_difference"] < 1e-3
  assert scored["ours_shared_seconds"]["min"] > 0 < scored["ours_separate_seconds"]["min"]


def test_a_second_start_takes_its_programs_from_the_cache(results):
  compiled = results[0]["compile"]
  cold, cached = (compiled[name]["batches"]["2"] for name in ("cold", "cached"))
  assert cold["programs_from_cache"] == 0 < cached["programs_from_cache"]
  for one in (cold, cached):
    assert 0 < one["compile_seconds"] <= one["first_call_seconds"]


def test_the_table_is_printed_and_kept(results):
  tree, printed = results
  assert tree["markdown"].strip() in printed
  assert "| decode, batch 2 | tokens/s |" in tree["markdown"]
  assert "no peer: --peer_python" in tree["markdown"]
  assert tree["environment"]["cpu_count"] == os.cpu_count()


@pytest.mark.skipif("GATREC_PEER_PYTHON" not in os.environ, reason="no Python with torch is named")
def test_a_peer_computes_the_same(tmp_path):
  flags = ("--batch_sizes=1", f"--peer_python={os.environ['GATREC_PEER_PYTHON']}")
  launch("benchmark", *SMALL, *flags, "--json_out=lm.json", cwd=tmp_path, check=0)
  tree = json.loads((tmp_path / "lm.json").read_text())
  (entry,) = tree["generation"]
  assert entry["greedy_tokens_agree"] == 4
  assert entry["peer"]["decode_tokens_per_second"]["median"] > 0
  assert tree["continuations"]["ours_against_peer_max_difference"] < 1e-3
  assert tree["continuations"]["peer"]["by"] in ("separate", "batched")


@pytest.mark.parametrize(
  ("flag", "words"),
  [
    ("--suite=speed", "--suite=speed: must be one of attention, train"),
    ("--peer_python=/no/python", "--peer_python=/no/python: no such program"),
    ("--peer_python=true", "--peer_python=true: ended with exit code 0"),
    ("--batch_sizes=1,x", "--batch_sizes=1,x: must be whole numbers"),
  ],
)
def test_wrong_flags_are_one_line(tmp_path, flag, words):
  by = launch if "suite" in flag else call  # one as a process
  assert words in error_line(by("benchmark", *SMALL, flag, cwd=tmp_path, check=1))
  assert not (tmp_path / "runs").exists()


def test_random_folders_load_and_are_kept(tmp_path):
  folder = random_folder(tmp_path / "model", "tiny")
  params = load_decoder(folder).params
  kernel = np.asarray(params["layer_1"]["mlp"]["down"]["kernel"])
  assert kernel.shape == (64, 128) and kernel.std() == pytest.approx(0.02, rel=0.05)
  assert np.asarray(params["layer_0"]["attention"]["q"]["bias"]).std() > 0
  assert (np.asarray(params["final_norm"]["scale"]) == 1).all()
  written = (folder / "model.safetensors").stat().st_mtime_ns
  assert random_folder(folder, "tiny") == folder
  assert (folder / "model.safetensors").stat().st_mtime_ns == written
  with pytest.raises(InputError, match="holds another model"):
    random_folder(folder, "tiny", seed=1)
  again = random_folder(tmp_path / "again", "tiny") / "model.safetensors"
  assert again.read_bytes() == (folder / "model.safetensors").read_bytes()
  with pytest.raises(InputError, match="random_shape=huge: must be one of 0.5b, tiny"):
    random_folder(tmp_path, "huge")
  assert SHAPES["0.5b"]["vocab_size"] == 151_936


def test_operations_of_a_prefill_by_hand():
  # A block: q and o 4·4 each, k and v 2·4 each, three matrices of 4·6; the head is 4·10.
  weights = 5 * 2 * (16 + 16 + 8 + 8 + 72) + 40
  # Scores and their products with the values, 2·4 a pair: 15 pairs, and 12 in a window of 3.
  attention = 2 * 4 * (15 + 12)
  assert prefill_flops(CONFIG, rows=3, tokens=5) == 2 * 3 * (weights + attention)


def test_bytes_of_a_step_leave_out_an_embedding_that_is_no_head():
  shapes = jax.eval_shape(lambda key: init_params(key, CONFIG), jax.random.key(0))
  params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
  model = LanguageModel("m", None, CONFIG, params, None)
  block = 16 + 16 + 8 + 8 + 72 + 4 + 4
  cache = 2 * 7 * (2 * 2 * 2 * 4 + 4)  # 2 rows of 7 slots: keys and values, and positions
  assert decode_bytes(model, rows=2, slots=7) == 4 * (2 * block + 4 + 40) + cache


def test_nested_compile_spans_count_once():
  with compile_clock() as compiled:
    for begun, ended in ((10.0, 14.0), (11.0, 12.0), (13.0, 15.0), (20.0, 21.0)):
      jax.monitoring.record_event_time_span("/jax/core/compile/part", begun, ended)
    jax.monitoring.record_event_time_span("/jax/other", 0.0, 100.0)
    for event in ("cache_hits", "cache_misses", "cache_hits"):
      jax.monitoring.record_event(f"/jax/compilation_cache/{event}")
  assert (compiled.seconds, compiled.from_cache) == (6.0, 2)
  assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0}


@pytest.mark.parametrize(
  ("kind", "bandwidth"),
  [
    ("NVIDIA H200", 4.8e12),
    ("NVIDIA H100 80GB HBM3", 3.35e12),
    ("NVIDIA H100 PCIe", 2.0e12),
    ("NVIDIA A100-SXM4-40GB", 1.555e12),
    ("NVIDIA L4", 0.3e12),
    ("TPU v4", 1.228e12),
    ("TPU v5 lite", 0.819e12),
    ("TPU v5", 2.765e12),
    ("TPU v6 lite", 1.638e12),
    ("NVIDIA L40S", None),
    ("NVIDIA GH200 480GB", None),
    ("cpu", None),
  ],
)
def test_peaks_by_device_kind(kind, bandwidth):
  peak = known_peak(kind)
  assert (peak and peak.bandwidth) == bandwidth
