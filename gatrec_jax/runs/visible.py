"""Shows characters that steer a terminal, or that nobody sees, as escapes such as `\\x1b`."""

from __future__ import annotations

import re

# Controls (C0, DEL, C1); bidi marks, embeddings, overrides and isolates; line and paragraph
# separators; invisible characters but the joiners of emoji and Persian; tags; lone surrogates.
_INVISIBLE = (
  "\x00-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
  "\U000e0001\U000e0020-\U000e007f\ud800-\udfff"
)
# The flags of England, Scotland and Wales are a black flag with tags, which are let through.
_FLAG = "\U0001f3f4[\U000e0030-\U000e007a]+\U000e007f"
_ONE_LINE = re.compile(f"{_FLAG}|[{_INVISIBLE}]")
_LINES = re.compile(f"{_FLAG}|(?!\n)[{_INVISIBLE}]")


def visible(text: str, *, lines: bool = False) -> str:
  r"""The text with control and invisible characters as escapes; other Unicode is unchanged.

  Everything that users see goes through here, since data may hold what moves the cursor, hides
  text, reverses it or begins a line of its own. Files keep the data as they are.

  Args: text: any. lines: whether "\n" ends a line instead of being shown.

  >>> print(visible("Amélie\x1b[2J\u202e\n"))
  Amélie\x1b[2J\u202e\n
  """
  if text.isascii() and text.isprintable():
    return text
  return (_LINES if lines else _ONE_LINE).sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
  found = match.group()
  return found if len(found) > 1 else found.encode("unicode_escape").decode("ascii")
