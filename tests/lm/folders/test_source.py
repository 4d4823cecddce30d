"""Hashes of model folders."""

import shutil

from gatrec_jax.lm.folders import source


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
