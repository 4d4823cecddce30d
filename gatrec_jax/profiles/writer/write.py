"""Profiles by a language model: of items from their texts, of users from batches of item profiles.

A profile that fails its checks is written once more with other random draws, and then built without
the model. The model is an `Author`, such as `local_author.LocalAuthor`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from gatrec_jax import runs
from gatrec_jax.profiles.schema import Profile, render_profile
from gatrec_jax.profiles.writer.answers import Limits, answer_form, read_answer
from gatrec_jax.profiles.writer.batches import HistoryBatches
from gatrec_jax.profiles.writer.checks import Names, item_problems, user_problems
from gatrec_jax.profiles.writer.prompts import (
  Budget,
  item_line,
  item_prompt,
  profile_text,
  user_prompt,
)

_ITEM_FIELDS = ("overview", "genres", "tags", "description", "dislikes")
_USER_FIELDS = ("overview", "genres", "tags", "description")


class Author(Protocol):
  """Answers prompts.

  Attributes: budget: of a prompt. item_limits, user_limits: of the answers.
  """

  budget: Budget
  item_limits: Limits
  user_limits: Limits

  def answers(
    self, prompts: Sequence[str], form: Mapping[str, Any], *, seed: int, again: bool
  ) -> list[dict[str, Any]]:
    """One answer per prompt.

    Args: form: JSON schema. seed: of random draws. again: whether a first answer was refused.
    """


@dataclasses.dataclass(frozen=True)
class Written:
  """A profile and its origin.

  Attributes:
    text: of the profile, "" if there is none.
    source: `llm`, `built` (without the model) or `none`.
    batches: queries to the model in the last attempt.
    attempts: 0 if the model was not queried, else 1 or 2.
    problems: why the model's profile was replaced by a built one.
  """

  text: str
  source: str
  batches: int
  attempts: int
  problems: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class ItemTask:
  """Writes item profiles.

  Attributes:
    fields: [I] as in `Dataset.item_fields`.
    built: [I] profiles without the model, which provide name and genres; None for items without
      any text.
    names: that keywords must not contain.
    noun: what an item is called.
  """

  fields: Sequence[Mapping[str, Any]]
  built: Sequence[Profile | None]
  names: Names
  noun: str

  def write(self, author: Author, items: Sequence[int], *, seed: int) -> list[Written]:
    """Writes the profiles of some items. Args: items: indices. seed: of random draws."""
    every = sorted({g for one in self.built if one is not None for g in one.genres})

    def attempt(rows: Sequence[int], again: bool) -> dict[int, Profile]:
      done = {}
      # Items without genres get a form of their own, which asks for them.
      for known in (True, False):
        chosen = [i for i in rows if bool(self.built[i].genres) == known]
        answer = [field for field in _ITEM_FIELDS if field != "genres" or not known]
        prompts = [
          item_prompt(author.budget, self.fields[i], noun=self.noun, answer=answer) for i in chosen
        ]
        form = answer_form(answer, author.item_limits, genres=every)
        draws = _seed(seed, "item", items[0], known, again)
        for i, found in zip(chosen, _query(author, prompts, form, draws, again), strict=True):
          own = self.built[i]
          done[i] = read_answer(found, name=own.name, genres=own.genres)
      return done

    return _written(
      items,
      [i for i in items if self.built[i] is not None],
      attempt,
      problems=lambda i, profile: item_problems(
        profile, [field for field in _ITEM_FIELDS if field != "genres"], self.names
      ),
      render=render_profile,
      built=lambda i: self.built[i],
      batches=lambda i: 1,
    )


@dataclasses.dataclass(frozen=True)
class UserTask:
  """Writes user profiles.

  Attributes:
    batches: [U] items that each user liked and disliked, from training interactions alone.
    items: [I] profiles of items; None for items without one, which are in no batch.
    titles: [I], "" if unknown.
    built: [U] profiles without the model, None for users without liked items.
    names: that a user's profile must not contain.
    noun: what an item is called.
    form: `unified`, or `summary` for one paragraph.
  """

  batches: Sequence[HistoryBatches]
  items: Sequence[Profile | None]
  titles: Sequence[str]
  built: Sequence[Profile | None]
  names: Names
  noun: str
  form: str = "unified"

  def write(self, author: Author, users: Sequence[int], *, seed: int) -> list[Written]:
    """Writes the profiles of some users. Args: users: indices. seed: of random draws."""
    genres = sorted({g for item in self.items if item is not None for g in item.genres})

    def attempt(rows: Sequence[int], again: bool) -> dict[int, Profile]:
      done: dict[int, Profile] = {}
      for liked in (True, False):
        batches = {u: self.batches[u].liked if liked else self.batches[u].disliked for u in rows}
        answer = self._fields(avoids=not liked)
        form = answer_form(answer, author.user_limits, genres=genres)
        for batch in range(max(map(len, batches.values()), default=0)):
          chosen = [u for u in rows if batch < len(batches[u])]
          prompts = [
            user_prompt(
              author.budget,
              self._lines(batches[u][batch]),
              noun=self.noun,
              liked=liked,
              answer=answer,
              present=profile_text(done[u]) if u in done else "",
            )
            for u in chosen
          ]
          draws = _seed(seed, "user", users[0], liked, batch, again)
          found = _query(author, prompts, form, draws, again)
          done |= {u: read_answer(one) for u, one in zip(chosen, found, strict=True)}
      return done

    return _written(
      users,
      [u for u in users if self.batches[u] != HistoryBatches()],
      attempt,
      problems=lambda u, profile: user_problems(profile, self._sections(u), self.names),
      render=self._render,
      built=lambda u: self.built[u],
      batches=lambda u: len(self.batches[u].liked) + len(self.batches[u].disliked),
    )

  def _fields(self, *, avoids: bool) -> tuple[str, ...]:
    """The fields to write. Dislikes require disliked items, or they would be invented."""
    if self.form == "summary":
      return ("summary",)
    return (*_USER_FIELDS, "dislikes") if avoids else _USER_FIELDS

  def _sections(self, user: int) -> tuple[str, ...]:
    if self.form == "summary":
      return ("overview",)
    return self._fields(avoids=bool(self.batches[user].disliked))

  def _lines(self, items: Sequence[int]) -> list[str]:
    return [item_line(self.items[i], self.titles[i], noun=self.noun) for i in items]

  def _render(self, profile: Profile) -> str:
    if self.form == "summary":
      return " ".join(filter(None, [profile.overview, profile.description]))
    return render_profile(profile)


def _written(
  rows: Sequence[int],
  writable: Sequence[int],
  attempt: Callable[[Sequence[int], bool], Mapping[int, Profile]],
  *,
  problems: Callable[[int, Profile], list[str]],
  render: Callable[[Profile], str],
  built: Callable[[int], Profile | None],
  batches: Callable[[int], int],
) -> list[Written]:
  """Tries the model at most twice, then uses the built profiles.

  Args: rows: to write. writable: those that the model can write.
  """
  written: dict[int, Written] = {}
  found: dict[int, list[str]] = {row: [] for row in writable}
  for number in (1, 2):
    left = [row for row in writable if row not in written]
    if not left:
      break
    for row, profile in attempt(left, number == 2).items():
      found[row] = problems(row, profile)
      if not found[row]:
        written[row] = Written(render(profile), "llm", batches(row), number)
  for row in rows:
    if row not in written:
      own, tried = built(row), row in found
      written[row] = Written(
        "" if own is None else render(own),
        "none" if own is None else "built",
        batches(row) if tried else 0,
        2 if tried else 0,
        tuple(found.get(row, ())),
      )
  return [written[row] for row in rows]


def _query(
  author: Author, prompts: Sequence[str], form: Mapping[str, Any], seed: int, again: bool
) -> list[dict[str, Any]]:
  return author.answers(prompts, form, seed=seed, again=again) if prompts else []


def _seed(*parts: Any) -> int:
  """A seed for each call, which is the same when a run is resumed."""
  return int(runs.digest(*parts)[:7], 16)
