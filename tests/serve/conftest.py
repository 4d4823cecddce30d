"""A run of `best` for the tests of each module."""

import pytest
from helpers.rerank_table import in_table_folder
from helpers.served import QUICK, TEXTS, trained


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  yield from in_table_folder(tmp_path_factory)


@pytest.fixture(scope="module")
def best(folder):
  return trained("best", folder, **QUICK, **TEXTS)
