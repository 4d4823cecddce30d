"""The common schema of item and user profiles, as Markdown text and in parsed form."""

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
  """What an item is about, or what a user likes, in one schema so that the two are comparable.

  Attributes:
    name: the item's name; None for users.
    overview: what the item is about, or what the user prefers. As in all fields, "" if unknown.
    genres: genre names. tags: short keywords.
    description: a longer text in sentences.
    dislikes: keywords that do not fit the item, or that the user avoids.
  """

  name: str | None = None
  overview: str = ""
  genres: tuple[str, ...] = ()
  tags: tuple[str, ...] = ()
  description: str = ""
  dislikes: tuple[str, ...] = ()


def render_profile(profile: Profile) -> str:
  """The profile as Markdown in the layout of Ebrat et al. 2025 (arXiv 2508.01514).

  Every heading is written, even without content. Dislikes are one line of keywords, or bullets if
  one of them contains a comma.
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
  """Parses a profile as language models write them; never fails.

  Accepts headings with or without a colon or with their text on the same line, a missing `#` line,
  dislikes as bullets or in one line, a text that is truncated anywhere, even within a heading, and
  an empty text (an empty profile). Text outside the known sections is dropped.
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
  """The section of a heading, which may be truncated to at least three letters; None for others."""
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
  """Keywords of lines: a bullet is one keyword, any other line a list separated by commas."""
  keywords: list[str] = []
  for line in lines:
    bullet = _BULLET.match(line)
    keywords += [bullet.group(1)] if bullet else _split(line)
  return tuple(keyword for keyword in keywords if keyword)


def _split(line: str) -> tuple[str, ...]:
  """Splits at commas outside parentheses and brackets."""
  if "," not in line:
    return (line.strip(),) if line.strip() else ()
  parts, depth, start = [], 0, 0
  for position, character in enumerate(line):
    depth = max(0, depth + (character in "([") - (character in ")]"))
    if character == "," and not depth:
      parts.append(line[start:position])
      start = position + 1
  parts.append(line[start:])
  return tuple(part.strip() for part in parts if part.strip())
