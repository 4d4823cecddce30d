"""Sentences of a language model: kept only if they claim a fact of the record, completely and
nothing else. The model is queried once more about the rest; then templates state it."""

import re
import types

from helpers.evidence import cited, evidence

from gatrec_jax.explain import language_model_author
from gatrec_jax.explain.authors import TemplateAuthor
from gatrec_jax.explain.builtin_author import NAME, training_texts
from gatrec_jax.explain.language_model_author import (
  FACTS,
  MAX_FACTS,
  LanguageModelAuthor,
  facts_prompt,
  instructed_prompt,
  placeholders_of,
  supported_sentences,
  values_of,
)
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


def test_training_texts_of_the_builtin_author_state_exactly_their_facts():
  kinds_seen, answers = set(), set()
  for text in training_texts(400, seed=3):
    prompt, _, answer = text.partition("Sentences:\n")
    lines = [line[2:] for line in prompt.splitlines() if line.startswith("- ")]
    plain = {}
    for kind, own in PHRASES.items():
      plain[kind] = [line for line in lines if _same_words(line, own[0].words)]
    kinds = [next(k for k in PHRASES if line in plain[k]) for line in lines]
    assert text.startswith(facts_prompt(kinds)) and 1 <= len(kinds) <= MAX_FACTS
    # Values differ from fact to fact, so that a sentence can only mean its own fact.
    facts = [
      Point(kind, VALUES | {"n": str(place), "rating": str(place), "titles": (f"T{place} (1990)",)})
      for place, kind in enumerate(kinds)
    ]
    titles = ["Jaws (1975)", *(f"T{p} (1990)" for p in range(4))]
    found = supported_sentences(answer, facts, titles=titles)
    # Facts of the same name and title claim the same.
    same = {"person": "shared", "maker": "shared", "tag": "tag"}
    repeated = len(kinds) - len({same.get(kind, (kind, n)) for n, kind in enumerate(kinds)})
    assert len(found) == len(kinds) - repeated, (text, found)
    kinds_seen |= set(kinds)
    answers.add(answer)
  assert kinds_seen == set(PHRASES) and len(answers) > 300


def _same_words(line, words):
  return re.fullmatch(re.sub(r"\\\{\w+\\\}", r"\\[[a-p]\\]", re.escape(words)), line) is not None


def test_only_sentences_that_state_a_fact_are_kept():
  facts = points_of(evidence(), style="short")
  assert values_of(facts) == [
    "The Matrix (1999) and Up (2009)",
    "Al Pacino",
    "actor",
    "Scarface (1983)",
  ]
  assert placeholders_of(["genre", "likes"]) == [
    {"name": "[a]", "n": "[b]", "m": "[c]"},
    {"people": "[d]"},
  ]

  def keep(answer):
    return supported_sentences(answer, facts, titles=titles_of(evidence()))

  assert keep(
    "You enjoyed [a], so you might like this too. [b] ([c]) also worked on [d], which you liked."
  ) == {
    0: "You enjoyed The Matrix (1999) and Up (2009), so you might like this too.",
    1: "Al Pacino (actor) also worked on Scarface (1983), which you liked.",
  }
  for wrong in (
    "It is a masterpiece.",
    "Because you liked [d].",  # liked, but not what the score depends on
    "You hated [a].",
    "Of everything in your history, [a] counts most here.",  # not one of these facts
    "[d] ([c]) also worked on [b], which you liked.",
    "Because you liked [a]",
    "",
  ):
    assert keep(wrong) == {}
  twice = "Recommended because you liked [a]. Because you liked [a]."
  assert keep(twice)[0].startswith("Recommended because") and len(keep(twice)) == 1


def test_titles_that_look_like_placeholders_or_sentences_stay_whole():
  odd = 'Go. [b] Stop. <|im_end|> {n} "x" (1999)'
  facts = points_of(evidence(cited=(cited(odd),)), style="short")
  answer = "Because you liked [a]. [b] ([c]) also worked on [d], which you liked."
  found = supported_sentences(answer, facts, titles=titles_of(evidence(cited=(cited(odd),))))
  assert found[0] == f"Because you liked {odd}." and len(found) == 2


# What an author knows of its model before it queries it.
MODEL = types.SimpleNamespace(name=NAME, tokenizer=types.SimpleNamespace(chat_template=None))


def test_templates_replace_sentences_that_a_model_does_not_write(monkeypatch):
  records = [evidence(), evidence(user_id="8", cited=())]
  monkeypatch.setattr(LanguageModelAuthor, "_answers", lambda self, facts, seed: [""] * len(facts))
  for style in STYLES:
    author = LanguageModelAuthor(MODEL, instructed=False)
    reasons = author(records, style=style)
    assert author.name == NAME and reasons == TemplateAuthor()(records, style=style)
    assert [one.by_template for one in reasons] == [len(one.sentences) for one in reasons]
    assert [unsupported(*pair) for pair in zip(reasons, records, strict=True)] == [[], []]


def test_a_failed_fact_gets_one_more_query_of_its_own(monkeypatch):
  queried = []

  def answers(self, facts, seed):
    queried.append([[point.kind for point in own] for own in facts])
    if len(queried) == 1:
      return ["Because you liked [a]. It is good. [c] also worked on [a]."] * 2
    return [
      "[a] ([b]) also worked on [c], which you liked." if own[0].kind == "person" else "No."
      for own in facts
    ]

  monkeypatch.setattr(LanguageModelAuthor, "_answers", answers)
  records = [evidence(), evidence(user_id="8", traits=evidence().traits[2:])]
  reasons = LanguageModelAuthor(MODEL, instructed=False)(records, style="short")
  assert queried == [[["liked", "person"], ["liked", "genre"]], [["person"], ["genre"]]]
  assert [one.by_template for one in reasons] == [0, 1]
  assert reasons[0].text == (
    "Because you liked The Matrix (1999) and Up (2009). Al Pacino (actor) also worked on Scarface "
    "(1983), which you liked."
  )
  assert [unsupported(*pair) for pair in zip(reasons, records, strict=True)] == [[], []]


def test_prompts_of_instructed_models_explain_the_placeholders():
  facts = points_of(evidence(), style="short")
  prompt = instructed_prompt(facts)
  assert prompt.startswith(language_model_author._INSTRUCTION) and "[b] = Al Pacino\n" in prompt
  assert prompt.endswith(facts_prompt([point.kind for point in facts])) and FACTS in prompt
