"""Titles as prompts show them: all different, and short."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from gatrec_jax.data.prepared import Prepared
from gatrec_jax.data.titles import unique_titles
from gatrec_jax.lm.folders.load import LanguageModel
from gatrec_jax.rerank.prompting.prompts import line_end

TITLE_CHARACTERS = 60
"""Longer titles, as shops write them, are cut: what follows costs tokens and says little."""


def prompt_titles(model: LanguageModel, prepared: Prepared) -> tuple[str, ...]:
  """The title of each item in prompts to a model, [I].

  They are cut to `TITLE_CHARACTERS`, unless the model has tokens for whole titles.
  """
  titles = unique_titles(prepared.item_fields, prepared.interactions.item_ids)
  if any(line_end(title) in model.added_tokens for title in titles):
    return titles
  return short_titles(titles, TITLE_CHARACTERS)


def short_titles(titles: Sequence[str], most: int) -> tuple[str, ...]:
  """Titles of at most `most` characters, cut between words; whole where a cut would make two alike.

  Args: titles: all different, also without regard to case.
  """
  cut = [_cut(title, most) for title in titles]
  times = Counter(title.casefold() for title in cut)
  return tuple(
    short if times[short.casefold()] == 1 else title
    for short, title in zip(cut, titles, strict=True)
  )


def _cut(title: str, most: int) -> str:
  if len(title) <= most:
    return title
  head = title[: most + 1].rpartition(" ")[0] or title[:most]
  return head.rstrip(" ,;:-–|/(&")
