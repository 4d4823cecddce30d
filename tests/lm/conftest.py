"""Copies of committed golden folders that tests may damage."""

import shutil
from pathlib import Path

import pytest

GOLDENS = Path(__file__).parent / "goldens"


@pytest.fixture
def bert_copy(tmp_path):
  """A writable copy of the golden BERT folder."""
  folder = tmp_path / "bert"
  shutil.copytree(GOLDENS / "bert", folder)
  return folder
