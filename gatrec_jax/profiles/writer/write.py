"""Profiles by a language model: of items from their texts, of users from batches of item profiles.

A profile that fails its checks is written once more with other random draws, and then built without
the model. The model is an `Author`, such as `local_author.LocalAuthor`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from gatrec_jax import runs
from gatrec_jax.data.nouns import plural
from gatrec_jax.profiles.schema import Profile, render_profile
from gatrec_jax.profiles.writer import answers
from gatrec_jax.profiles.writer.batches import HistoryBatches
from gatrec_jax.profiles.writer.candidates import Candidates, Catalog, taste_candidates
from gatrec_jax.profiles.writer.checks import Names, item_problems, user_problems
from gatrec_jax.profiles.writer.domains import LINKS, TASTE_STARTS, domain_of
from gatrec_jax.profiles.writer.prompts import (
  Budget,
  Query,
  item_line,
  item_query,
  profile_text,
  user_query,
)

# Sections of a profile that the answers about an item make, and that of another name.
_SECTIONS = frozenset(("genres", "tags", "description", "dislikes"))
_SECTION_OF = {"summary": "overview"}


class Author(Protocol):
  """Answers queries.

  Attributes: budget: of a query, without its answer. examples: how many a query shows at most.
  """

  budget: Budget
  examples: int

  def answers(self, queries: Sequence[Query], *, seed: int, again: bool) -> list[dict[str, Any]]:
    """One answer per query, in its form.

    Args: seed: of random draws. again: whether a first answer was refused.
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

  Name, genres and overview stay as given; the model chooses tags, moods and dislikes, genres where
  there are none, and writes the description.

  Attributes:
    fields: [I] as in `Dataset.item_fields`.
    built: [I] profiles without the model, which provide what is given; None for items without any
      text.
    names: that keywords must not contain.
    noun: what an item is called.
  """

  fields: Sequence[Mapping[str, Any]]
  built: Sequence[Profile | None]
  names: Names
  noun: str

  @functools.cached_property
  def catalog(self) -> Catalog:
    """The candidates of all items."""
    return Catalog(self.fields, self.built, domain_of(self.noun))

  def write(self, author: Author, items: Sequence[int], *, seed: int) -> list[Written]:
    """Writes the profiles of some items. Args: items: indices. seed: of random draws."""
    candidates = {i: self.catalog.of(i) for i in items if self.built[i] is not None}

    def attempt(rows: Sequence[int], again: bool) -> dict[int, Profile]:
      queries = [self._query(author, i, candidates[i]) for i in rows]
      found = author.answers(queries, seed=_seed(seed, "item", items[0], again), again=again)
      return {i: self._read(i, answer) for i, answer in zip(rows, found, strict=True)}

    return _written(
      items,
      list(candidates),
      attempt,
      problems=lambda i, profile: item_problems(
        profile, self._form(i, candidates[i])["properties"].keys() & _SECTIONS, self.names
      ),
      render=render_profile,
      built=lambda i: self.built[i],
      batches=lambda i: 1,
    )

  def size(self, item: int) -> int:
    """About how long the query about an item is, so that similar ones can be asked together."""
    return sum(len(value) for value in self.fields[item].values() if isinstance(value, str))

  def _query(self, author: Author, item: int, candidates: Candidates) -> Query:
    return item_query(
      author.budget,
      self.fields[item],
      noun=self.noun,
      others=candidates.others,
      form=self._form(item, candidates),
      examples=domain_of(self.noun).examples[: author.examples],
    )

  def _form(self, item: int, candidates: Candidates) -> dict[str, Any]:
    return item_form(candidates, noun=self.noun, genres=self.built[item].genres)

  def _read(self, item: int, answer: Mapping[str, Any]) -> Profile:
    own = self.built[item]
    profile = answers.read_answer(answer, name=own.name, genres=own.genres)
    if own.overview:
      return dataclasses.replace(profile, overview=own.overview)
    # Without a given text, the model's sentence is all that tells what the item is about.
    described = own.description or profile.description
    return dataclasses.replace(profile, overview=profile.description, description=described)


def item_form(candidates: Candidates, *, noun: str, genres: Sequence[str]) -> dict[str, Any]:
  """The schema of an answer about an item; fields without candidates are left out.

  Args: candidates: of the item. noun: what an item is called. genres: of the item, if known.
  """
  domain = domain_of(noun)
  lists = {"genres": candidates.genres, "tags": candidates.tags, "moods": candidates.moods}
  fields = {
    field: answers.chosen(terms, answers.COUNTS[field]) for field, terms in lists.items() if terms
  }
  if candidates.words:
    fields["description"] = answers.sentence(
      candidates.words,
      LINKS,
      domain.starts(noun, genres, candidates.moods),
      answers.LENGTHS["description"],
    )
  if candidates.others:
    fields["dislikes"] = answers.chosen(candidates.others, answers.COUNTS["dislikes"])
  return answers.answer_form(fields)


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

    asked: dict[int, set[str]] = {u: set() for u in users}

    def attempt(rows: Sequence[int], again: bool) -> dict[int, Profile]:
      done: dict[int, Profile] = {}
      for liked in (True, False):
        batches = {u: self.batches[u].liked if liked else self.batches[u].disliked for u in rows}
        for batch in range(max(map(len, batches.values()), default=0)):
          chosen = [u for u in rows if batch < len(batches[u])]
          queries = [
            self._query(author, batches[u][batch], done.get(u), liked=liked) for u in chosen
          ]
          for u, query in zip(chosen, queries, strict=True):
            asked[u] |= {_SECTION_OF.get(field, field) for field in query.form["properties"]}
          draws = _seed(seed, "user", users[0], liked, batch, again)
          found = author.answers(queries, seed=draws, again=again)
          done |= {u: answers.read_answer(one) for u, one in zip(chosen, found, strict=True)}
      return done

    return _written(
      users,
      [u for u in users if self.batches[u] != HistoryBatches()],
      attempt,
      problems=lambda u, profile: user_problems(profile, sorted(asked[u]), self.names),
      render=self._render,
      built=lambda u: self.built[u],
      batches=lambda u: len(self.batches[u].liked) + len(self.batches[u].disliked),
    )

  def size(self, user: int) -> int:
    """Queries about users are alike, so that users are asked in their order."""
    return 0

  def _query(
    self, author: Author, items: Sequence[int], present: Profile | None, *, liked: bool
  ) -> Query:
    candidates = taste_candidates([self.items[i] for i in items], present or Profile(), liked=liked)
    return user_query(
      author.budget,
      [item_line(self.items[i], self.titles[i], noun=self.noun) for i in items],
      noun=self.noun,
      liked=liked,
      present=profile_text(present) if present else "",
      form=self._form(candidates),
    )

  def _form(self, candidates: Candidates) -> dict[str, Any]:
    words = [*candidates.words, self.noun, plural(self.noun)]

    def prose(field: str) -> dict[str, Any]:
      return answers.sentence(words, LINKS, TASTE_STARTS, answers.LENGTHS[field])

    if self.form == "summary":
      return answers.answer_form({"summary": prose("summary")})
    lists = {"genres": candidates.genres, "tags": candidates.tags, "dislikes": candidates.others}
    fields = {
      field: answers.chosen(terms, answers.USER_COUNTS[field])
      for field, terms in lists.items()
      if terms
    }
    order = ("genres", "tags", "overview", "description", "dislikes")
    fields |= {field: prose(field) for field in ("overview", "description")}
    return answers.answer_form({field: fields[field] for field in order if field in fields})

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


def _seed(*parts: Any) -> int:
  """A seed for each call, which is the same when a run is resumed."""
  return int(runs.digest(*parts)[:7], 16)
