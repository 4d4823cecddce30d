"""Checks whether a text about a recommendation is true, independently of what wrote it.

The text is scanned for statements that can be true or false: titles of the catalog, names, genres,
numbers, and words of liking and disliking near them. Each is looked up in the training ratings and
the metadata; ranks are computed by running the whole network on a graph without the ratings in
question. The checker uses neither the evidence nor the table of phrases.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from gatrec_jax.data.interactions import Interactions
from gatrec_jax.data.prepared import Prepared
from gatrec_jax.explain.phrases import shown_title
from gatrec_jax.profiles.builder import CREDIT_FIELDS, TAG_FIELDS, genres_of, terms_of

Scores = Callable[[int, Sequence[Sequence[int]]], np.ndarray]
"""(user, B sets of items) -> [B, I] float32 scores without each set of the user's ratings."""

_MARK = re.compile(r"⟦(\d+)⟧")
_TITLE = re.compile(r"[A-Z0-9][^,;⟦⟧“”]*?\(\d{4}\)")
# Not after an initial or an abbreviation in a name: George C. Scott, Robert Downey Jr.
_END = re.compile(r"(?<!\b[A-Z]\.)(?<!\b[JSDM]r\.)(?<!\bSt\.)(?<!\bMrs\.)(?<=[.!?]) (?=[“A-Z0-9⟦])")
_ROLE = re.compile(
  r"([^,⟦⟧]+?) \((director|actor|writer|author|artist|composer|crew member|brand|manufacturer|"
  r"developer|publisher|studio)\)"
)
_QUOTED = re.compile(r"“([^”]+)”")
_OTHERS = re.compile(r"\b(?:people|those)(?: who)? liked?\b")
_LIKED = re.compile(r"\byou (?:have |really |also )*(?:liked|loved|enjoyed|love|like)\b", re.I)
_DISLIKED = re.compile(r"\byou (?:have |really |also )*(?:disliked|hated)\b", re.I)
_DEPENDS = re.compile(r"because|so you might|\bsince you\b|\bhelps\b|\b(?:counts|matters)\b", re.I)
_MOST = re.compile(
  r"\bmost\b|\b(?:nothing|anything) else\b|more than any other|above all|\bmainly\b", re.I
)
_GIVEN = (
  re.compile(r"rating of (?P<rating>[\d.]*\d) for ⟦(?P<title>\d+)⟧"),
  re.compile(r"gave ⟦(?P<title>\d+)⟧ a (?:rating of )?(?P<rating>[\d.]*\d)"),
)
_SHARES = (
  re.compile(r"(?P<n>\d+) of the (?P<m>\d+) titles you (?P<kind>liked|disliked)"),
  re.compile(r"of the (?P<m>\d+) titles you (?P<kind>liked|disliked), (?P<n>\d+)", re.I),
)
_BOTH = (
  re.compile(r"(?P<n>\d+) people liked both this and ⟦(?P<title>\d+)⟧"),
  re.compile(r"people who liked ⟦(?P<title>\d+)⟧, (?P<n>\d+) also liked this"),
  re.compile(r"(?P<n>\d+) people who liked ⟦(?P<title>\d+)⟧ also liked this"),
)
_LIKES = re.compile(r"liked by (\d+ (?:people|person)|no one)", re.I)
_LEAVES = re.compile(r"\b(?:without|if|take) .*number (\d+)\b.* top (\d+)", re.I)
_STAYS = (
  re.compile(r"\b(?:remove any one|no single) .*top (\d+)", re.I),
  re.compile(r"stay in your top (\d+) whichever item"),
)
_MOVED = re.compile(r"from position (\d+) to position (\d+)")
_NOT = re.compile(r"\bsteers clear of\b|\bis not\b|\bno\b|\bwithout\b", re.I)


@dataclasses.dataclass(frozen=True)
class Finding:
  """A statement that was looked up.

  Attributes: kind: of the statement. text: its subject. true: whether it holds.
  """

  kind: str
  text: str
  true: bool


@dataclasses.dataclass(frozen=True)
class Checker:
  """(text, user, item) -> the statements of the text, and whether they hold.

  Attributes:
    prepared: the ratings and the metadata.
    scores: by runs of the whole network.
    quick_scores: for statements that need a run for every rating of the user.
    titles: [I], as `shown_title` gives them. pattern: matches any of them.
    ratings: [U], training ratings by item index. likers: [I], training users who like the item.
    genres: matches any genre of the catalog.
    tags: [I], in lower case, from the metadata and from given item profiles.
  """

  prepared: Prepared
  scores: Scores
  quick_scores: Scores
  titles: Sequence[str]
  pattern: re.Pattern[str]
  ratings: Sequence[Mapping[int, float]]
  likers: Sequence[frozenset[int]]
  genres: re.Pattern[str]
  tags: Sequence[frozenset[str]]

  def __call__(self, text: str, user: int, item: int, *, rank: int | None = None) -> list[Finding]:
    """Checks a text. A sentence without any statement to look up counts as a false one.

    Args: user, item: indices. rank: the item's position in a re-ranked list; None for others.
    """
    found: list[Finding] = []
    for sentence in self.sentences(text):
      own = self._of_sentence(*sentence, user, item, rank)
      found += own or [Finding("nothing to look up", sentence[0], False)]
    return found

  def sentences(self, text: str) -> list[tuple[str, list[int]]]:
    """Splits a text into sentences.

    Returns: each sentence with ⟦0⟧, ⟦1⟧, … in place of its titles, and the titles' item indices.
    """
    items: list[int] = []

    def mark(match: re.Match[str]) -> str:
      items.append(self.titles.index(match.group()))
      return f"⟦{len(items) - 1}⟧"

    found = []
    for part in _END.split(self.pattern.sub(mark, text)):
      places = [int(place) for place in _MARK.findall(part)]
      own = dict(zip(places, range(len(places)), strict=True))
      renamed = _MARK.sub(lambda match, own=own: f"⟦{own[int(match.group(1))]}⟧", part)
      found.append((renamed, [items[place] for place in places]))
    return found

  def _of_sentence(
    self, sentence: str, named: list[int], user: int, item: int, rank: int | None
  ) -> list[Finding]:
    rated = self.ratings[user]
    others = [other for other in named if other != item]
    found = [
      Finding("title", match.group(), False)
      for match in _TITLE.finditer(sentence)
      if not re.search(r"\((?:director|actor)", match.group())
    ]
    found += [Finding("rated at all", self.titles[other], other in rated) for other in others]
    if others and not _OTHERS.search(sentence):
      found += self._opinions(sentence, others, rated)
      found += self._depends_on(sentence, others, user, item)
    found += self._people(sentence, others, item)
    found += self._tags(sentence, others, item)
    found += self._genres(sentence, rated, item)
    found += self._counts(sentence, named, item)
    return found + self._ranks(sentence, others, user, item, rank)

  def _opinions(
    self, sentence: str, others: Sequence[int], rated: Mapping[int, float]
  ) -> list[Finding]:
    found = []
    for match in (match for pattern in _GIVEN for match in pattern.finditer(sentence)):
      other, given = others[int(match["title"])], float(match["rating"])
      found.append(Finding("rating", f"{self.titles[other]} {given:g}", rated.get(other) == given))
    feedback = self.prepared.feedback
    for other in others:
      rating = rated.get(other)
      if _DISLIKED.search(sentence):
        found.append(
          Finding("disliked", self.titles[other], rating is not None and feedback.disliked(rating))
        )
      elif _LIKED.search(sentence):
        found.append(
          Finding("liked", self.titles[other], rating is not None and feedback.liked(rating))
        )
    return found

  def _depends_on(
    self, sentence: str, others: Sequence[int], user: int, item: int
  ) -> list[Finding]:
    if not _DEPENDS.search(sentence):
      return []
    mine = [other for other in others if other in self.ratings[user]]
    scores = self.scores(user, [[], *([other] for other in mine)])[:, item]
    found = [
      Finding("depends on", self.titles[other], bool(score < scores[0]))
      for other, score in zip(mine, scores[1:], strict=True)
    ]
    if _MOST.search(sentence) and mine:
      every = list(self.ratings[user])
      without = self.quick_scores(user, [[other] for other in every])[:, item]
      furthest = without[every.index(mine[0])] <= without.min() + 1e-5
      found.append(Finding("depends most on", self.titles[mine[0]], bool(furthest)))
    return found

  def _people(self, sentence: str, others: Sequence[int], item: int) -> list[Finding]:
    found = []
    for match in _ROLE.finditer(sentence):
      words = match.group(1).split(" ")
      tails = [" ".join(words[start:]) for start in range(len(words))]
      own = self._named_in(item, role=match.group(2))
      name = next((tail for tail in tails if tail.casefold() in own), None)
      found.append(Finding("person", name or match.group(1), name is not None))
      for other in others if name else ():
        found.append(
          Finding(
            "person of a title",
            f"{name}, {self.titles[other]}",
            name.casefold() in self._named_in(other),
          )
        )
    return found

  def _named_in(self, item: int, role: str = "") -> set[str]:
    fields = self.prepared.item_fields[item]
    of_role = {"actor": ("actors", "cast", "actor"), "crew member": ("crew",)}
    wanted = of_role.get(role, (role, f"{role}s")) if role else CREDIT_FIELDS
    return {name.casefold() for field in wanted for name in terms_of(fields.get(field))}

  def _tags(self, sentence: str, others: Sequence[int], item: int) -> list[Finding]:
    return [
      Finding("tag", f"{tag}, {self.titles[one]}", tag.casefold() in self.tags[one])
      for tag in _QUOTED.findall(sentence)
      for one in (item, *others)
    ]

  def _genres(self, sentence: str, rated: Mapping[int, float], item: int) -> list[Finding]:
    plain = _ROLE.sub("", _QUOTED.sub("", sentence))
    shares = [match for pattern in _SHARES for match in pattern.finditer(plain)]
    names = self.genres.findall(plain) if shares or re.search(r"genre", plain) else []
    found = []
    for name in names:
      has = name in genres_of(self.prepared.item_fields[item])
      found.append(Finding("genre", name, has != bool(_NOT.search(plain))))
    for match in shares:
      n, m, kind = match["n"], match["m"], match["kind"]
      feedback = self.prepared.feedback
      of_kind = feedback.liked if kind == "liked" else feedback.disliked
      own = [one for one, rating in rated.items() if of_kind(rating)]
      having = sum(
        all(name in genres_of(self.prepared.item_fields[one]) for name in names) for one in own
      )
      right = (int(n), int(m)) == (having, len(own)) and bool(names)
      found.append(Finding("share", match.group(), right))
    return found

  def _counts(self, sentence: str, named: Sequence[int], item: int) -> list[Finding]:
    found = []
    for match in (match for pattern in _BOTH for match in pattern.finditer(sentence)):
      both = len(self.likers[item] & self.likers[named[int(match["title"])]])
      found.append(Finding("like both", match.group(), int(match["n"]) == both))
    for match in _LIKES.finditer(sentence):
      people = match.group(1).split(" ")[0]
      count = int(people) if people.isdigit() else 0
      found.append(Finding("like it", match.group(), count == len(self.likers[item])))
    return found

  def _ranks(
    self, sentence: str, others: Sequence[int], user: int, item: int, rank: int | None
  ) -> list[Finding]:
    found = []
    if match := _LEAVES.search(sentence):
      n, m = map(int, match.groups())
      mine = [other for other in others if other in self.ratings[user]]
      there = self.rank(self.scores(user, [mine])[0], user, item)
      found.append(Finding("leaves", match.group(), there == n > m and bool(mine)))
    for match in filter(None, (pattern.search(sentence) for pattern in _STAYS)):
      scores = self.quick_scores(user, [[other] for other in self.ratings[user]])
      last = max(self.rank(row, user, item) for row in scores)
      found.append(Finding("stays", match.group(), last <= int(match.group(1))))
    if match := _MOVED.search(sentence):
      before = self.rank(self.scores(user, [[]])[0], user, item)
      right = (before, before if rank is None else rank) == tuple(map(int, match.groups()))
      found.append(Finding("moved", match.group(), right))
    return found

  def rank(self, scores: np.ndarray, user: int, item: int) -> int:
    """Rank of an item from 1 among those the user has not rated; equal scores by index."""
    known = self.prepared.known
    order = np.lexsort((np.arange(len(scores)), -scores))
    order = order[~np.isin(order, known.item[known.user == user])]
    return 1 + int(np.flatnonzero(order == item)[0])


def make_checker(
  prepared: Prepared,
  titles: Sequence[str],
  scores: Scores,
  quick_scores: Scores,
  profile_tags: Sequence[Sequence[str]],
  *,
  histories: Interactions,
) -> Checker:
  """Prepares a Checker.

  Args:
    prepared: the ratings and the metadata.
    titles: [I], all different. scores, quick_scores: as in `Checker`.
    profile_tags: [I], tags of given item profiles.
    histories: the ratings that the run serves from.
  """
  shown = [shown_title(title) for title in titles]
  ratings: list[dict[int, float]] = [{} for _ in range(histories.num_users)]
  likers: list[set[int]] = [set() for _ in range(histories.num_items)]
  for user, item, rating in zip(histories.user, histories.item, histories.rating, strict=True):
    ratings[user][int(item)] = float(rating)
    if prepared.feedback.liked(rating):
      likers[item].add(int(user))
  genres = {name for fields in prepared.item_fields for name in genres_of(fields)}
  return Checker(
    prepared,
    scores,
    quick_scores,
    shown,
    _any_of(shown, ends=r"(?!\w)"),
    ratings,
    [frozenset(one) for one in likers],
    _any_of(genres, starts=r"(?<!\w)", ends=r"(?!\w)"),
    [
      frozenset(
        tag.casefold()
        for tag in (*(t for field in TAG_FIELDS for t in terms_of(fields.get(field))), *own)
      )
      for fields, own in zip(prepared.item_fields, profile_tags, strict=True)
    ],
  )


def _any_of(texts: Iterable[str], *, starts: str = "", ends: str = "") -> re.Pattern[str]:
  """A pattern for any of the texts, the longest first; it never matches if there are none."""
  longest_first = sorted(map(re.escape, texts), key=len, reverse=True)
  return re.compile(f"{starts}(?:{'|'.join(longest_first) or '(?!)'}){ends}")
