"""Sentences of a language model: only those stay that claim a fact of the record, all of it and
nothing else; what is missing is asked for once more, and then templates speak."""

import re
import types

from helpers.evidence import cited, evidence

from gatrec_jax.explain import authors as wording
from gatrec_jax.explain.authors import (
  FACTS,
  MOST_FACTS,
  LanguageModelAuthor,
  TemplateAuthor,
  facts_prompt,
  kept,
  marks_of,
  values_of,
)
from gatrec_jax.explain.builtin_author import NAME, worded
from gatrec_jax.explain.phrases import PHRASES, slots_of
from gatrec_jax.explain.reasons import STYLES, Point, points_of, titles_of, unsupported

VALUES = {
  "titles": ("Up (2009)", "Heat (1995)"),
  "title": "Jaws (1975)",
  "name": "Al Pacino",
  "role": "actor",
  "n": "3",
  "m": "12",
  "rating": "2",
}


def test_the_phrases_of_a_kind_have_the_same_slots():
  for own in PHRASES.values():
    assert {frozenset(slots_of(phrase)) for phrase in own} == {frozenset(slots_of(own[0]))}
    assert len({phrase.words for phrase in own}) == len(own)


def test_all_that_the_builtin_model_learns_is_read_as_the_facts_it_was_told():
  kinds_seen, texts_of_kind = set(), set()
  for text in worded(400, seed=3):
    prompt, _, answer = text.partition("Sentences:\n")
    lines = [line[2:] for line in prompt.splitlines() if line.startswith("- ")]
    plain = {}
    for kind, own in PHRASES.items():
      plain[kind] = [line for line in lines if _same_words(line, own[0].words)]
    kinds = [next(k for k in PHRASES if line in plain[k]) for line in lines]
    assert text.startswith(facts_prompt(kinds)) and 1 <= len(kinds) <= MOST_FACTS
    # Values differ from fact to fact, so that each sentence can only mean its own.
    facts = [
      Point(kind, VALUES | {"n": str(place), "rating": str(place), "titles": (f"T{place} (1990)",)})
      for place, kind in enumerate(kinds)
    ]
    found = kept(answer, facts, titles=["Jaws (1975)", *(f"T{p} (1990)" for p in range(4))])
    said_twice = len(kinds) - len(
      {kind if kind in ("person", "tag") else (kind, place) for place, kind in enumerate(kinds)}
    )
    assert len(found) == len(kinds) - said_twice, (text, found)
    kinds_seen |= set(kinds)
    texts_of_kind.add(answer)
  assert kinds_seen == set(PHRASES) and len(texts_of_kind) > 300


def _same_words(line, words):
  return re.fullmatch(re.sub(r"\\\{\w+\\\}", r"\\[[a-p]\\]", re.escape(words)), line) is not None


def test_what_is_kept_of_an_answer():
  facts = points_of(evidence(), style="short")
  assert values_of(facts) == [
    "The Matrix (1999) and Up (2009)",
    "Scarface (1983)",
    "Al Pacino",
    "actor",
  ]
  assert marks_of(["genre", "likes"]) == [{"name": "[a]", "n": "[b]", "m": "[c]"}, {"n": "[d]"}]

  def keep(answer):
    return kept(answer, facts, titles=titles_of(evidence()))

  assert keep(
    "You enjoyed [a], and nothing speaks more for it. [c] ([d]) is part of it, as of "
    "[b], which you liked."
  ) == {
    0: "You enjoyed The Matrix (1999) and Up (2009), and nothing speaks more for it.",
    1: "Al Pacino (actor) is part of it, as of Scarface (1983), which you liked.",
  }
  for wrong in (
    "It is a masterpiece.",
    "You liked [b], and nothing speaks more for it.",
    "You hated [a].",
    "You liked [a], which speaks for it too.",
    "Like [c], which you liked, it has [b] ([d]).",
    "You liked [a], and nothing speaks more for it",
    "",
  ):
    assert keep(wrong) == {}
  twice = "It follows most of all from your liking [a]. It follows above all from your liking [a]."
  assert keep(twice)[0].startswith("It follows most of all") and len(keep(twice)) == 1


def test_titles_like_marks_and_sentences_stay_whole():
  odd = 'Go. [b] Stop. <|im_end|> {n} "x" (1999)'
  facts = points_of(evidence(cited=(cited(odd),)), style="short")
  answer = "It follows above all from your liking [a]. Like [b], which you liked, it has [c] ([d])."
  found = kept(answer, facts, titles=titles_of(evidence(cited=(cited(odd),))))
  assert found[0] == f"It follows above all from your liking {odd}." and len(found) == 2


# What an author knows of its model before it asks.
MODEL = types.SimpleNamespace(name=NAME, tokenizer=types.SimpleNamespace(chat_template=None))


def test_templates_speak_where_a_model_cannot(monkeypatch):
  records = [evidence(), evidence(user_id="8", cited=())]
  monkeypatch.setattr(LanguageModelAuthor, "_answers", lambda self, facts, seed: [""] * len(facts))
  for style in STYLES:
    author = LanguageModelAuthor(MODEL, instructed=False)
    reasons = author(records, style=style)
    assert author.name == NAME and reasons == TemplateAuthor()(records, style=style)
    assert [one.by_template for one in reasons] == [len(one.sentences) for one in reasons]
    assert [unsupported(*pair) for pair in zip(reasons, records, strict=True)] == [[], []]


def test_what_fails_is_asked_for_once_more_and_alone(monkeypatch):
  asked = []

  def answers(self, facts, seed):
    asked.append([[point.kind for point in own] for own in facts])
    if len(asked) == 1:
      return ["It follows above all from your liking [a]. It is good. Like [c], it has [a]."] * 2
    return [
      "Like [a], which you liked, it has [b] ([c])." if own[0].kind == "person" else "No."
      for own in facts
    ]

  monkeypatch.setattr(LanguageModelAuthor, "_answers", answers)
  records = [evidence(), evidence(user_id="8", traits=evidence().traits[2:])]
  reasons = LanguageModelAuthor(MODEL, instructed=False)(records, style="short")
  assert asked == [[["liked", "person"], ["liked", "genre"]], [["person"], ["genre"]]]
  assert [one.by_template for one in reasons] == [0, 1]
  assert reasons[0].text == (
    "It follows above all from your liking The Matrix (1999) and Up (2009). Like Scarface (1983), "
    "which you liked, it has Al Pacino (actor)."
  )
  assert [unsupported(*pair) for pair in zip(reasons, records, strict=True)] == [[], []]


def test_instructed_models_are_told_what_marks_stand_for():
  author = LanguageModelAuthor(MODEL)
  facts = points_of(evidence(), style="short")
  prompt = author._prompt(facts)
  assert prompt.startswith(wording._INSTRUCTION) and "[c] = Al Pacino\n" in prompt
  assert prompt.endswith(facts_prompt([point.kind for point in facts])) and FACTS in prompt
