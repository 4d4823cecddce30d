"""Embedding with a cache: only missing texts are encoded, and damaged shards are rebuilt."""

import dataclasses
import subprocess
import sys
import time

import numpy as np
import pytest
from helpers.paths import DECODER_GOLDENS, LM_GOLDENS

from gatrec_jax.errors import InputError
from gatrec_jax.lm.folders.encoder_source import resolve_encoder
from gatrec_jax.profiles import embed
from gatrec_jax.profiles.embed import TextEncoder, embed_texts, lexical_text_encoder, open_encoder
from gatrec_jax.profiles.lexical import fit_lexical
from gatrec_jax.runs.log import SILENT

GOLDEN = LM_GOLDENS / "bert"


@pytest.fixture
def counting():
  """A stand-in encoder with batches of 4 that records its texts."""
  asked = []

  def encode_batches(texts):
    asked.extend(texts)
    for start in range(0, len(texts), 4):
      part = texts[start : start + 4]
      vectors = np.array([[len(t), sum(map(ord, t)) % 97, 1.0] for t in part], np.float32)
      yield np.arange(start, start + len(part)), vectors, np.array([len(t) > 9 for t in part])

  encoder = TextEncoder("counting", "here", "c" * 64, 3, 10, True, encode_batches)
  return encoder, asked


def texts_of(count):
  return [f"text {i}" for i in range(count)]


def embed_quietly(texts, encoder, folder):
  return embed_texts(texts, encoder, cache_dir=folder, log=SILENT)


def test_changing_ten_texts_encodes_ten(tmp_path, counting):
  encoder, asked = counting
  texts = texts_of(100)
  first, report = embed_quietly(texts, encoder, tmp_path)
  assert (report.encoded, report.cached) == (100, 0)
  asked.clear()
  changed = [f"changed {i}" if i % 10 == 3 else text for i, text in enumerate(texts)]
  second, report = embed_quietly(changed, encoder, tmp_path)
  assert (report.encoded, report.cached) == (10, 90)
  assert sorted(asked) == sorted(set(changed) - set(texts))
  kept = np.array([i % 10 != 3 for i in range(100)])
  np.testing.assert_array_equal(second[kept], first[kept])
  asked.clear()
  third, report = embed_quietly(changed[::-1], encoder, tmp_path)
  assert asked == [] and report.encoded == 0
  np.testing.assert_array_equal(third[::-1], second)


def test_missing_equal_and_empty_texts(tmp_path, counting):
  encoder, asked = counting
  vectors, report = embed_quietly(["same", None, "", "same", None], encoder, tmp_path)
  assert asked == ["same", ""]
  assert (report.texts, report.missing, report.encoded) == (5, 2, 2)
  assert not vectors[1].any() and not vectors[4].any()
  assert vectors[2].any()
  np.testing.assert_array_equal(vectors[0], vectors[3])
  assert vectors.dtype == np.float32


def test_the_truncated_share_includes_cached_texts(tmp_path, counting):
  encoder, _ = counting
  texts = ["a very long text", "short", None, "a very long text"]
  for _ in range(2):
    _, report = embed_quietly(texts, encoder, tmp_path)
    assert report.truncated == 2
    assert report.truncated_share == pytest.approx(2 / 3)


def test_encoders_do_not_share_a_cache(tmp_path, counting):
  encoder, asked = counting
  embed_quietly(texts_of(8), encoder, tmp_path)
  other = dataclasses.replace(encoder, content_hash="d" * 64)
  _, report = embed_quietly(texts_of(8), other, tmp_path)
  assert report.encoded == 8
  assert len(list(tmp_path.glob("*/*.npz"))) == 2


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "other arrays"])
def test_damaged_shard_is_rebuilt(tmp_path, counting, damage):
  encoder, _ = counting
  good, _ = embed_quietly(texts_of(8), encoder, tmp_path)
  embed_quietly(texts_of(12), encoder, tmp_path)
  shards = {p.stat().st_size: p for p in tmp_path.glob("*/*.npz")}
  shard = shards[max(shards)]  # the one with the first 8 texts
  content = shard.read_bytes()
  if damage == "cut":
    shard.write_bytes(content[: len(content) // 2])
  elif damage == "flipped":
    place = content.index(np.float32(6).tobytes())
    shard.write_bytes(content[:place] + b"\x7f" + content[place + 1 :])
  elif damage == "emptied":
    shard.write_bytes(b"")
  else:
    np.savez(shard, keys=np.zeros((2, 32), np.uint8), vectors=np.zeros(2), truncated=np.zeros(2))
  with pytest.warns(UserWarning, match=shard.name):
    again, report = embed_quietly(texts_of(8), encoder, tmp_path)
  assert report.encoded == 8
  np.testing.assert_array_equal(again, good)
  _, report = embed_quietly(texts_of(12), encoder, tmp_path)
  assert report.cached == 12


def test_interrupted_work_is_kept(tmp_path, counting):
  encoder, asked = counting

  def interrupted(texts):
    for number, batch in enumerate(encoder.encode_batches(texts)):
      if number == 3:
        raise KeyboardInterrupt
      yield batch

  with pytest.raises(KeyboardInterrupt):
    embed_quietly(texts_of(40), dataclasses.replace(encoder, encode_batches=interrupted), tmp_path)
  asked.clear()
  _, report = embed_quietly(texts_of(40), encoder, tmp_path)
  assert (report.encoded, report.cached) == (28, 12)


def test_long_work_is_saved_at_intervals(tmp_path, counting, monkeypatch):
  encoder, _ = counting
  monkeypatch.setattr(embed, "SAVE_EVERY_SECONDS", 0.0)
  embed_quietly(texts_of(40), encoder, tmp_path)
  assert len(list(tmp_path.glob("*/*.npz"))) == 10
  _, report = embed_quietly(texts_of(40), encoder, tmp_path)
  assert report.cached == 40


def test_killed_run_leaves_a_readable_cache(tmp_path, counting):
  """After a process is killed, what it had saved is used, and leftovers do no harm."""
  program = (
    "import sys, time, numpy as np\n"
    "from gatrec_jax.profiles import embed\n"
    "embed.SAVE_EVERY_SECONDS = 0.0\n"
    "def slowly(texts):\n"
    "  for i, text in enumerate(texts):\n"
    "    time.sleep(0.002)\n"
    "    yield np.array([i]), np.ones((1, 3), np.float32), np.zeros(1, bool)\n"
    "encoder = embed.TextEncoder('slow', '', 'c' * 64, 3, 10, True, slowly)\n"
    "texts = [f'text {i}' for i in range(100_000)]\n"
    "embed.embed_texts(texts, encoder, cache_dir=sys.argv[1], log=embed.CONSOLE)\n"
  )
  process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
  try:
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("*/*.npz"))) < 5 and time.monotonic() < deadline:
      time.sleep(0.01)
  finally:
    process.kill()
    process.wait()
  shards = len(list(tmp_path.glob("*/*.npz")))
  assert shards >= 5
  vectors, report = embed_quietly(texts_of(5000), counting[0], tmp_path)
  assert report.cached == shards
  assert (vectors[:shards] == 1).all()


def test_full_disk_is_one_clear_line(tmp_path, counting, monkeypatch):
  encoder, _ = counting

  def no_space(*_, **__):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(np, "savez", no_space)
  with pytest.raises(InputError, match="the disk is full"):
    embed_quietly(texts_of(8), encoder, tmp_path)
  assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_cache_below_a_file_is_one_clear_line(tmp_path, counting):
  encoder, _ = counting
  (tmp_path / "file").write_text("")
  with pytest.raises(InputError, match="cannot be saved"):
    embed_quietly(texts_of(4), encoder, tmp_path / "file")


def test_non_finite_vectors_are_refused(tmp_path, counting):
  encoder, _ = counting

  def broken(texts):
    yield np.arange(len(texts)), np.full((len(texts), 3), np.nan, np.float32), np.zeros(1, bool)

  with pytest.raises(InputError, match="non-finite"):
    embed_quietly(["a"], dataclasses.replace(encoder, encode_batches=broken), tmp_path)
  assert not list(tmp_path.glob("*/*.npz"))


def test_folder_encoder_end_to_end(tmp_path):
  source = resolve_encoder(str(GOLDEN))
  encoder = open_encoder(source, max_tokens=32)
  texts = ["a quiet film", "lighthouse " * 50, None]
  vectors, report = embed_texts(texts, encoder, cache_dir=tmp_path)
  assert vectors.shape == (3, encoder.dimension) == (3, 32)
  assert (report.encoder, report.truncated, report.encoded) == ("bert", 1, 2)
  direct, cut = encoder.encode(texts[:2])
  np.testing.assert_allclose(direct, vectors[:2], atol=1e-6)
  assert cut.tolist() == [False, True]
  hashes = {encoder.content_hash, open_encoder(source, max_tokens=16).content_hash}
  hashes.add(open_encoder(source, max_tokens=32, dtype="bfloat16").content_hash)
  assert len(hashes) == 3


def test_vectors_of_a_decoder_are_cached_by_pooling_and_prompt(tmp_path):
  folder = DECODER_GOLDENS / "qwen2"
  source, texts = resolve_encoder(str(folder)), ["a quiet film", "space", "a quiet film"]
  settings = [{}, {"pooling": "mean"}, {"pooling": "last"}, {"prompt": "Find: "}]
  encoders = [open_encoder(source, **one) for one in settings]
  # A folder without modules has the mean; saying so changes nothing.
  assert encoders[0].content_hash == encoders[1].content_hash
  assert len({one.content_hash for one in encoders}) == 3
  found = [embed_texts(texts, one, cache_dir=tmp_path, log=SILENT) for one in encoders]
  assert [report.encoded for _, report in found] == [2, 0, 2, 2]
  np.testing.assert_array_equal(found[0][0], found[1][0])
  again = open_encoder(source, pooling="last")
  kept, report = embed_texts(texts, again, cache_dir=tmp_path, log=SILENT)
  assert report.encoded == 0 and np.abs(kept - found[0][0]).max() > 1e-3
  np.testing.assert_array_equal(kept, found[2][0])


def test_lexical_encoder_end_to_end(tmp_path):
  texts = ["space rocket moon", "space moon crew", "police murder trial", None, "murder trial"]
  encoder = lexical_text_encoder(fit_lexical([t for t in texts if t]), where="here")
  vectors, report = embed_texts(texts, encoder, cache_dir=tmp_path, log=SILENT)
  assert vectors.shape == (5, encoder.dimension)
  assert vectors[2] @ vectors[4] > vectors[2] @ vectors[0]
  assert "lexical" in report.encoder and report.missing == 1
  assert not list(tmp_path.iterdir())


def test_the_lexical_encoder_works_in_batches(monkeypatch):
  texts = ["space rocket moon", "space moon crew", "police murder trial", "", "murder trial"]
  encoder = lexical_text_encoder(fit_lexical(texts), where="here")
  whole, _ = encoder.encode(texts)
  monkeypatch.setattr(embed, "_LEXICAL_BATCH", 2)
  batches = list(encoder.encode_batches(texts))
  assert [rows.tolist() for rows, _, _ in batches] == [[0, 1], [2, 3], [4]]
  np.testing.assert_array_equal(np.concatenate([part for _, part, _ in batches]), whole)
