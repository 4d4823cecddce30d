"""A run of `best` for all modules, and for each a folder with its table."""

import contextlib

import pytest
from helpers.rerank_table import in_table_folder
from helpers.served import QUICK, TEXTS, trained


@pytest.fixture(scope="session")
def best(tmp_path_factory):
  """Tests that change it work on a copy."""
  with contextlib.contextmanager(in_table_folder)(tmp_path_factory) as place:
    return trained("best", place, **QUICK, **TEXTS)


@pytest.fixture(scope="module", autouse=True)
def folder(best, tmp_path_factory):
  yield from in_table_folder(tmp_path_factory)
