"""Sentences of a language model: whatever its weights, a phrase of each fact, with connecting words
at most. They are kept only if they claim their facts, completely and nothing else. The model is
queried once more about what did not fit into its context; then templates state it."""

import dataclasses
import re
import types

import pytest
from helpers.constraints import byte_level, sentence_piece
from helpers.evidence import cited, evidence
from helpers.tiny_decoder import tiny_config, tiny_model

from gatrec_jax.errors import InputError
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
  sentence_network,
  supported_sentences,
  values_of,
)
from gatrec_jax.explain.phrases import CONNECTING, PHRASES, slots_of
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
    assert None not in supported_sentences(answer, facts, titles=titles), text
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

  one = "You enjoyed [a], so you might like this too."
  assert keep(f"{one} And [b] ([c]) also worked on [d], which you liked.") == [
    "You enjoyed The Matrix (1999) and Up (2009), so you might like this too.",
    "And Al Pacino (actor) also worked on Scarface (1983), which you liked.",
  ]
  for wrong in (
    "It is a masterpiece.",
    "Because you liked [d].",  # liked, but not what the score depends on
    "You hated [a].",
    "Of everything in your history, [a] counts most here.",  # not one of these facts
    "Because you liked [a]",
  ):
    assert keep(f"{wrong} [b] ([c]) also worked on [d], which you liked.")[0] is None
  other = "[d] ([c]) also worked on [b], which you liked."
  assert keep(f"{one} {other}")[1] is None
  for wrong in ("", one, f"{other} {one}", f"{one} {one}"):
    assert keep(wrong)[1] is None


def test_titles_that_look_like_placeholders_or_sentences_stay_whole():
  odd = 'Go. [b] Stop. <|im_end|> {n} "x" (1999)'
  facts = points_of(evidence(cited=(cited(odd),)), style="short")
  answer = "Because you liked [a]. [b] ([c]) also worked on [d], which you liked."
  found = supported_sentences(answer, facts, titles=titles_of(evidence(cited=(cited(odd),))))
  assert found[0] == f"Because you liked {odd}." and None not in found


def test_the_grammar_offers_every_phrase_and_a_third_of_the_connecting_words():
  places = sentence_network(["liked", "tag", "leaves"], [0, 1, 2])
  texts = [[text for text, _ in own] for own in places]
  assert texts[0] == texts[1] == [one.words.replace("{titles}", "[a]") for one in PHRASES["liked"]]
  assert " It shares the tag [b] with [c], which you liked." not in texts[2]  # [b] is the title
  assert " It shares the tag [c] with [b], which you liked." in texts[2]
  assert " Also, it shares the tag [c] with [b], which you liked." in texts[2]
  assert " Besides, it shares the tag [c] with [b], which you liked." not in texts[2]
  # After connecting words comes a sentence without any.
  ways = {text: to for text, to in places[2]}
  assert ways[" It shares the tag [c] with [b], which you liked."] == 4
  assert ways[" Also, it shares the tag [c] with [b], which you liked."] == 5
  assert [text for text in texts[5] if "hen again" in text] == []
  assert " Then again, without [d] in your history, it would be number [e], outside your top" in (
    text[: -len(" [f].")] for text in texts[4]
  )
  assert {to for own in places[4:] for _, to in own} == {6} and len(places) == 6


def test_all_connecting_words_are_offered_to_some_sentence():
  for kind, own in PHRASES.items():
    offered = {
      text.split(",")[0] if "," in text else text.split(" ")[1]
      for offer in range(3)
      for text, _ in sentence_network(["liked", kind], [0, offer])[2]
    }
    for words in {words for phrase in own for words in CONNECTING[phrase]}:
      assert any(words.strip(" ,") in one for one in offered), (kind, words)


def untrained(tokenizer, eos, **fields):
  """A decoder with random weights."""
  own = {"vocabulary": len(tokenizer), "context": 1024, "bos": 0, "eos": (eos,)} | fields
  model = tiny_model(layers=tiny_config().layers[:1], **own)
  return dataclasses.replace(model, tokenizer=tokenizer)


RECORDS = [
  evidence(),
  evidence(user_id="8", cited=(), traits=evidence().traits[1:]),
  evidence(user_id="9", rank=1, counterfactual=None, traits=evidence().traits[2:]),
]


@pytest.mark.parametrize(
  ("tokenizer", "eos", "styles"), [(byte_level, 1, STYLES[2:]), (sentence_piece, 2, STYLES[:1])]
)
def test_no_sentence_of_an_untrained_model_is_a_template(tokenizer, eos, styles):
  author = LanguageModelAuthor(untrained(tokenizer(), eos), instructed=False)
  for style in styles:
    reasons = author(RECORDS, style=style)
    assert [one.by_template for one in reasons] == [0, 0, 0]
    for reason, record in zip(reasons, RECORDS, strict=True):
      assert unsupported(reason, record) == []
      assert len(reason.sentences) == len(points_of(record, style=style))
    assert reasons == author(RECORDS, style=style)
  assert author([], style="short") == []


def test_what_does_not_fit_into_the_context_is_asked_alone_and_then_a_template():
  # Sentences of one to two hundred tokens: two do not fit into half of the context, one does.
  tokenizer = byte_level(260)
  by_context = {
    context: LanguageModelAuthor(untrained(tokenizer, 1, context=context), instructed=False)(
      [evidence()], style="short"
    )[0]
    for context in (260, 64)
  }
  assert [one.by_template for one in by_context.values()] == [0, 2]
  assert by_context[64] == TemplateAuthor()([evidence()], style="short")[0]
  assert all(unsupported(one, evidence()) == [] for one in by_context.values())


def test_a_model_that_cannot_write_the_phrases_is_refused():
  model = dataclasses.replace(untrained(byte_level(), 1), tokenizer=None)
  with pytest.raises(InputError, match="no tokenizer"):
    LanguageModelAuthor(model)


# What an author knows of its model before it queries it.
MODEL = types.SimpleNamespace(name=NAME, tokenizer=types.SimpleNamespace(chat_template=None))


def test_templates_replace_sentences_that_a_model_does_not_write(monkeypatch):
  records = [evidence(), evidence(user_id="8", cited=())]
  monkeypatch.setattr(
    LanguageModelAuthor, "_answers", lambda self, groups, seed: [""] * len(groups)
  )
  for style in STYLES:
    author = LanguageModelAuthor(MODEL, instructed=False)
    reasons = author(records, style=style)
    assert author.name == NAME and reasons == TemplateAuthor()(records, style=style)
    assert [one.by_template for one in reasons] == [len(one.sentences) for one in reasons]
    assert [unsupported(*pair) for pair in zip(reasons, records, strict=True)] == [[], []]


def test_a_failed_fact_gets_one_more_query_of_its_own(monkeypatch):
  queried = []

  def answers(self, groups, seed):
    queried.append([[point.kind for point in group.facts] for group in groups])
    if len(queried) == 1:
      return ["Because you liked [a]. [c] also worked on [a]."] * 2
    return [
      "[a] ([b]) also worked on [c], which you liked." if group.facts[0].kind == "person" else "No."
      for group in groups
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
