"""The one schema of movie and user profiles: a Markdown text and its parsed form."""

from __future__ import annotations

import dataclasses
import re

_SECTIONS = ("overview", "attributes", "description", "dislikes")
_HEADING = re.compile(r"^\s*#{2,6}\s*([A-Za-z]+)\s*(?::\s*(.*?))?\s*$")
_NAME = re.compile(r"^\s*#\s+(.+?)\s*$")
_BULLET = re.compile(r"^\s*[-*•]\s+(.*?)\s*$")
_ATTRIBUTE = re.compile(r"^\s*(?:[-*•]\s+)?\**\s*(genre|tag)s?\s*\**\s*:\s*\**\s*(.*?)\s*$", re.I)


@dataclasses.dataclass(frozen=True)
class Profile:
  """What a movie is, or what a user likes, in one schema so that the two compare as text.

  Attributes:
    name: the item's name; None for users.
    overview: what it is about, or what the user prefers; "" where unknown, as in all fields.
    genres: genre names. tags: short keywords.
    description: a longer text in sentences.
    dislikes: keywords that are not in the movie, or that the user avoids.
  """

  name: str | None = None
  overview: str = ""
  genres: tuple[str, ...] = ()
  tags: tuple[str, ...] = ()
  description: str = ""
  dislikes: tuple[str, ...] = ()


def render_profile(profile: Profile) -> str:
  """The profile as the paper's Markdown (PAPER.md §1.1); every heading stands, also when empty.

  Dislikes are one line of keywords; as bullets where one of them holds a comma of its own.
  """
  dislikes = profile.dislikes
  if any(_split(keyword) != (keyword,) for keyword in dislikes):
    dislike_text = "\n".join(f"- {keyword}" for keyword in dislikes)
  else:
    dislike_text = ", ".join(dislikes)
  sections = [
    f"## Overview\n{profile.overview}",
    f"## Attributes\n- **Genre**: {', '.join(profile.genres)}\n"
    f"- **Tags**: {', '.join(profile.tags)}",
    f"## Description\n{profile.description}",
    f"## Dislikes\n{dislike_text}",
  ]
  if profile.name is not None:
    sections.insert(0, f"# {profile.name}")
  return "\n\n".join(section.rstrip() for section in sections) + "\n"


def parse_profile(text: str) -> Profile:
  """Reads a profile as language models write them; never fails.

  Taken: headings with or without a colon, or with their text on the same line; no `#` line;
  dislikes as bullets or as one line; a text that is cut off anywhere, also inside a heading;
  an empty text (an empty profile). What stands outside the known sections is dropped.
  """
  name: str | None = None
  sections: dict[str, list[str]] = {section: [] for section in _SECTIONS}
  current: list[str] | None = None
  for line in text.splitlines():
    heading, title = _HEADING.match(line), _NAME.match(line)
    if heading:
      section = _section(heading.group(1))
      current = sections[section] if section else None
      if section and heading.group(2):
        current.append(heading.group(2))
    elif title and name is None and not any(sections.values()):
      name = title.group(1)
    elif current is not None:
      current.append(line)
  genres, tags = _attributes(sections["attributes"])
  return Profile(
    name=name,
    overview=_prose(sections["overview"]),
    genres=genres,
    tags=tags,
    description=_prose(sections["description"]),
    dislikes=_keywords(sections["dislikes"]),
  )


def _section(word: str) -> str | None:
  """The section of a heading; a heading cut off after at least three letters still counts."""
  word = word.lower()
  return next((name for name in _SECTIONS if name.startswith(word) and len(word) > 2), None)


def _prose(lines: list[str]) -> str:
  return "\n".join(line.rstrip() for line in lines).strip()


def _attributes(lines: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
  found: dict[str, list[str]] = {"genre": [], "tag": []}
  current: list[str] | None = None
  for line in lines:
    attribute = _ATTRIBUTE.match(line)
    if attribute:
      current = found[attribute.group(1).lower()]
      current.append(attribute.group(2))
    elif current is not None:
      current.append(line)
  return _keywords(found["genre"]), _keywords(found["tag"])


def _keywords(lines: list[str]) -> tuple[str, ...]:
  """A bullet is one keyword with its commas, any other line a comma list."""
  keywords: list[str] = []
  for line in lines:
    bullet = _BULLET.match(line)
    keywords += [bullet.group(1)] if bullet else _split(line)
  return tuple(keyword for keyword in keywords if keyword)


def _split(line: str) -> tuple[str, ...]:
  """Splits at commas outside brackets."""
  parts, depth, start = [], 0, 0
  for position, character in enumerate(line):
    depth = max(0, depth + (character in "([") - (character in ")]"))
    if character == "," and not depth:
      parts.append(line[start:position])
      start = position + 1
  parts.append(line[start:])
  return tuple(part.strip() for part in parts if part.strip())
