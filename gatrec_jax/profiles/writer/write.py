"""Profiles by a language model: items from their texts, users in turns from items' profiles.

What fails its checks is written once more, with other draws, and then built without the model. The
model is an `Author`; `writer_model.LocalAuthor` is the one that runs here.
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
  Room,
  film_text,
  item_prompt,
  profile_text,
  user_prompt,
)

_ITEM_FIELDS = ("overview", "genres", "tags", "description", "dislikes")
_USER_FIELDS = ("overview", "genres", "tags", "description")


class Author(Protocol):
  """Who answers prompts.

  Attributes: room: for a prompt. item_limits, user_limits: of the answers.
  """

  room: Room
  item_limits: Limits
  user_limits: Limits

  def answers(
    self, prompts: Sequence[str], form: Mapping[str, Any], *, seed: int, again: bool
  ) -> list[dict[str, Any]]:
    """One answer a prompt. Args: form: JSON schema. again: what came first was refused."""


@dataclasses.dataclass(frozen=True)
class Written:
  """A profile and how it came about.

  Attributes:
    text: of the profile, "" where there is none.
    source: `llm`, `built` (without the model), `none`.
    turns: of the model, in the attempt that counts.
    attempts: 0 where the model was not asked, else 1 or 2.
    problems: why a built profile is not the model's.
  """

  text: str
  source: str
  batches: int
  attempts: int
  problems: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class ItemTask:
  """What items are written from.

  Attributes:
    fields: [I] as in `Dataset.item_fields`.
    built: [I] profiles without the model: name and genres are theirs; None without any text.
    names: what keywords may not be.
  """

  fields: Sequence[Mapping[str, Any]]
  built: Sequence[Profile | None]
  names: Names

  def write(self, author: Author, items: Sequence[int], *, seed: int) -> list[Written]:
    """The profiles of some items, in their order. Args: seed: of the draws."""
    every = sorted({g for one in self.built if one is not None for g in one.genres})

    def attempt(rows: Sequence[int], again: bool) -> dict[int, Profile]:
      done = {}
      # Those without genres are asked for them too, in a form of their own.
      for known in (True, False):
        asked = [i for i in rows if bool(self.built[i].genres) == known]
        answer = [field for field in _ITEM_FIELDS if field != "genres" or not known]
        prompts = [item_prompt(author.room, self.fields[i], answer=answer) for i in asked]
        form = answer_form(answer, author.item_limits, genres=every)
        draws = _seed(seed, "item", items[0], known, again)
        for i, found in zip(asked, _ask(author, prompts, form, draws, again), strict=True):
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
  """What users are written from.

  Attributes:
    turns: [U] which items each user liked and disliked, from training interactions alone.
    films: [I] profiles of items; None where there is none, and then in nobody's turns.
    titles: [I], "" where unknown.
    built: [U] profiles without the model, None for users who liked nothing.
    names: what a user's profile may not hold.
    form: `unified`, or `summary` for one paragraph.
  """

  batches: Sequence[HistoryBatches]
  films: Sequence[Profile | None]
  titles: Sequence[str]
  built: Sequence[Profile | None]
  names: Names
  form: str = "unified"

  def write(self, author: Author, users: Sequence[int], *, seed: int) -> list[Written]:
    """The profiles of some users, in their order. Args: seed: of the draws."""
    genres = sorted({g for film in self.films if film is not None for g in film.genres})

    def attempt(rows: Sequence[int], again: bool) -> dict[int, Profile]:
      done: dict[int, Profile] = {}
      for liked in (True, False):
        batches = {u: self.batches[u].liked if liked else self.batches[u].disliked for u in rows}
        answer = self._fields(avoids=not liked)
        form = answer_form(answer, author.user_limits, genres=genres)
        for batch in range(max(map(len, batches.values()), default=0)):
          asked = [u for u in rows if batch < len(batches[u])]
          prompts = [
            user_prompt(
              author.room,
              self._films(batches[u][batch]),
              liked=liked,
              answer=answer,
              present=profile_text(done[u]) if u in done else "",
            )
            for u in asked
          ]
          draws = _seed(seed, "user", users[0], liked, batch, again)
          found = _ask(author, prompts, form, draws, again)
          done |= {u: read_answer(one) for u, one in zip(asked, found, strict=True)}
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
    """What is asked for. Dislikes wait for disliked films, or they would be made up."""
    if self.form == "summary":
      return ("summary",)
    return (*_USER_FIELDS, "dislikes") if avoids else _USER_FIELDS

  def _sections(self, user: int) -> tuple[str, ...]:
    if self.form == "summary":
      return ("overview",)
    return self._fields(avoids=bool(self.batches[user].disliked))

  def _films(self, items: Sequence[int]) -> list[str]:
    return [film_text(self.films[i], self.titles[i]) for i in items]

  def _render(self, profile: Profile) -> str:
    if self.form == "summary":
      return " ".join(filter(None, [profile.overview, profile.description]))
    return render_profile(profile)


def _written(
  rows: Sequence[int],
  asked: Sequence[int],
  attempt: Callable[[Sequence[int], bool], Mapping[int, Profile]],
  *,
  problems: Callable[[int, Profile], list[str]],
  render: Callable[[Profile], str],
  built: Callable[[int], Profile | None],
  batches: Callable[[int], int],
) -> list[Written]:
  """Twice at most by the model, then without it. Args: asked: rows that the model can write."""
  written: dict[int, Written] = {}
  found: dict[int, list[str]] = {row: [] for row in asked}
  for number in (1, 2):
    left = [row for row in asked if row not in written]
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


def _ask(
  author: Author, prompts: Sequence[str], form: Mapping[str, Any], seed: int, again: bool
) -> list[dict[str, Any]]:
  return author.answers(prompts, form, seed=seed, again=again) if prompts else []


def _seed(*parts: Any) -> int:
  """Draws of their own for every call, the same whenever a run goes on."""
  return int(runs.digest(*parts)[:7], 16)
