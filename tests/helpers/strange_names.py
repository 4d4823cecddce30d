"""Names of files and folders in which some library or shell sees more than a name."""

import unicodedata

NAMES = (
  "a[b]",
  "[",
  "]",
  "*",
  "?",
  "{a,b}",
  " leading",
  "trailing ",
  "it's",
  'say "no"',
  "%41",
  "#",
  "a&b",
  "$HOME",
  "~",
  "~root",
  unicodedata.normalize("NFC", "é"),
  unicodedata.normalize("NFD", "é"),
  "漢字",
  "🎬",
  "-dash",
  "a,b",
  "a=b",
  "a\nb",
  "a\\b",
  "file:",
  ".hidden",
  "x" * 200,
)
# All of them in one, with 200 characters.
ALL = "".join((" -[*", *(name for name in NAMES[:-1] if name != "*"), "? ")).ljust(199, "y") + " "
