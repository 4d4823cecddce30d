"""What is printed steers no terminal and hides nothing."""

import unicodedata

import hypothesis
import pytest
from hypothesis import strategies as st

from gatrec_jax.runs.log import Console
from gatrec_jax.runs.visible import visible

BIDI = "\u061c\u200e\u200f" + "".join(map(chr, [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]))


@pytest.mark.parametrize(
  "text, shown",
  [
    ("\x1b[2J\x07", r"\x1b[2J\x07"),
    ("\x9b31m\x85", r"\x9b31m\x85"),
    ("a\rb\tc", r"a\rb\tc"),
    ("\u202egnp.exe", r"\u202egnp.exe"),
    ("a\u200bb\ufeff\u2028", r"a\u200bb\ufeff\u2028"),
    ("\U000e0041\ud800", r"\U000e0041\ud800"),
    ("[bold]x[/bold] :smile: \\x1b", "[bold]x[/bold] :smile: \\x1b"),
  ],
)
def test_control_and_invisible_characters_are_escaped(text, shown):
  assert visible(text) == shown


@pytest.mark.parametrize(
  "text",
  ["Amélie", "漢字", "مرحبا", "שלום", "👩‍🚀", "👍🏽", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "می‌خواهم", "e\u0301", "❤️", "×½ – …"],
)
def test_ordinary_text_is_unchanged(text):
  assert visible(text) == text


@hypothesis.given(st.text(st.characters(exclude_categories=())))
def test_nothing_controls_or_reorders(text):
  for lines in (False, True):
    found = visible(text, lines=lines)
    kept = "\n" if lines else ""
    assert not [c for c in found if unicodedata.category(c) in ("Cc", "Cs") and c not in kept]
    assert not set(found) & set(BIDI)
    assert not {"\u2028", "\u2029"} & set(found)


def test_the_console_shows_one_line(capsys):
  Console().info("user a\nerror: fake \x1b[31m")
  with Console().progress("job \x1b]0;x\x07", total=1) as update:
    update(1, best="\u202e")
  out, err = capsys.readouterr()
  assert out == "user a\\nerror: fake \\x1b[31m\n"
  assert err == "job \\x1b]0;x\\x07 1/1 best \\u202e\n"
