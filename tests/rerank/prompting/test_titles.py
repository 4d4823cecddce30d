"""Titles as prompts show them."""

from helpers.rerank_rows import TITLES, prepared, rows
from helpers.tiny_reranker import tiny_reranker
from hypothesis import given
from hypothesis import strategies as st

from gatrec_jax.rerank.prompting.titles import prompt_titles, short_titles


def test_long_titles_end_between_words():
  found = short_titles(
    ["HP 65 Black Ink, 2 Cartridges (N9K01AN)", "Tape", "Unbreakablylongword"], 12
  )
  assert found == ("HP 65 Black", "Tape", "Unbreakablyl")


def test_titles_that_a_cut_would_make_alike_stay_whole():
  titles = ["Pen, red, box of 12", "Pen, red, box of 24", "Pen, RED", "Ruler of steel"]
  assert short_titles(titles, 9) == (
    "Pen, red, box of 12",
    "Pen, red, box of 24",
    "Pen, RED",
    "Ruler of",
  )


@given(
  st.lists(st.text("ab ,", min_size=1).map(str.strip).filter(bool), unique=True), st.integers(1, 9)
)
def test_short_titles_differ_and_begin_the_title(titles, most):
  found = short_titles(titles, most)
  assert len(set(found)) == len(titles)
  assert all(title.startswith(short) for short, title in zip(found, titles, strict=True))


def test_prompts_show_titles_whole_where_they_are_short():
  table = rows((0, 0, 5, 1))
  assert prompt_titles(tiny_reranker(TITLES), prepared(table, train=[0])) == TITLES
