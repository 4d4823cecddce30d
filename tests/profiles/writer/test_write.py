"""Profiles by an author with known answers: prompts, their order, and what becomes of answers."""

import json

import hypothesis
import numpy as np
import pytest
from helpers.paths import SHARED
from helpers.writers import Script, words_budget
from hypothesis import strategies as st

from gatrec_jax.data.feedback import Feedback
from gatrec_jax.data.interactions import Interactions
from gatrec_jax.errors import InputError
from gatrec_jax.profiles.builder import build_item_profiles
from gatrec_jax.profiles.schema import Profile, parse_profile
from gatrec_jax.profiles.writer.batches import HistoryBatches, batches_of_users
from gatrec_jax.profiles.writer.checks import Names
from gatrec_jax.profiles.writer.prompts import Budget, allocate, item_line, profile_text, user_query
from gatrec_jax.profiles.writer.write import ItemTask, UserTask

PUBLISHED = SHARED / "data" / "published"
SUMMARY = {"properties": {"summary": {}}}


FILMS = [Profile(name=f"Film {i}", genres=("Drama",), tags=(f"theme {i}",)) for i in range(20)]
TITLES = [f"Film {i} (1999)" for i in range(20)]
BUILT = Profile(overview="Built.", genres=("Drama",), tags=("t",), description="Built text.")


def user_task(*batches, form="unified", **changed):
  return UserTask(
    **{
      "batches": batches,
      "items": FILMS,
      "titles": TITLES,
      "built": [BUILT] * len(batches),
      "names": Names([{"title": title} for title in TITLES]),
      "noun": "film",
      "form": form,
      **changed,
    }
  )


def interactions(*rows, users=2, items=30):
  user, item, rating, time = (np.array(column) for column in zip(*rows, strict=True))
  return Interactions(
    user.astype(np.int32),
    item.astype(np.int32),
    rating.astype(np.float32),
    time.astype(np.int64),
    tuple(map(str, range(users))),
    tuple(map(str, range(items))),
  )


def test_batches_are_the_ten_latest_of_each_kind_the_oldest_first():
  rows = [(0, i, 5, 100 - i) for i in range(12)]  # item 11 is the oldest
  rows += [(0, 15, 5, 300), (0, 15, 1, 301)]  # an item without a profile
  rows += [(0, 12, 3, 200), (0, 13, 2, 50), (0, 14, 1, 40), (1, 3, 2, 7)]
  # At equal times, the higher item index counts as later.
  rows += [(0, i, 2, 60) for i in (20, 19, 18, 17)]
  for order in (rows, rows[::-1]):
    first, second = batches_of_users(
      interactions(*order), feedback=Feedback(), described=np.arange(30) != 15
    )
    assert first == HistoryBatches(
      ((9, 8, 7, 6, 5), (4, 3, 2, 1, 0)), ((14, 13, 17, 18, 19), (20,))
    )
    assert second == HistoryBatches((), ((3,),))


def test_each_batch_refines_the_profile_so_far():
  author = Script()
  batches = HistoryBatches(((0, 1, 2, 3, 4), (5,)), ((6, 7),))
  (found,) = user_task(batches).write(author, [0], seed=0)
  (first,), (second,), (third,) = author.asked
  assert "A user liked these films." in first and "Profile:" not in first
  assert all(f"{n + 1}. Genres: Drama. Tags: theme {n}." in first for n in range(5))
  assert "A user with this profile also liked these films." in second
  assert "Profile:\nGenres: Drama.\nTags: tag 1.\nOver 1.\nText 1." in second
  assert "theme 5" in second and "theme 4" not in second and "Avoids" not in second
  assert "also disliked these films" in third and "tag 2" in third and "theme 6" in third
  assert "dislikes (" in third and "dislikes (" not in first + second
  assert not any("Film 0" in prompt for prompt in (first, second, third))
  assert (found.source, found.batches, found.attempts, found.problems) == ("llm", 3, 1, ())
  assert parse_profile(found.text) == Profile(
    None, "Over 3.", ("Drama",), ("tag 3",), "Text 3.", ("not 3",)
  )
  assert len(set(author.seeds)) == 3


def test_several_users_share_a_call():
  author = Script()
  both = user_task(
    HistoryBatches(((0,), (1,))),
    HistoryBatches(((2,),), ((3,),)),
    HistoryBatches(),
    HistoryBatches((), ((4,),)),
  )
  found = both.write(author, [0, 1, 2, 3], seed=0)
  assert [len(prompts) for prompts in author.asked] == [2, 1, 2]
  assert [one.batches for one in found] == [2, 2, 0, 1]
  assert "A user disliked these films." in author.asked[2][1]
  # The model is not queried about the third user, who gets the built profile, or none.
  assert (found[2].source, found[2].attempts) == ("built", 0)
  none = user_task(HistoryBatches(), built=[None]).write(Script(), [0], seed=0)
  assert (none[0].source, none[0].text) == ("none", "")


def test_a_failed_profile_is_written_once_more_and_then_built():
  def answer(prompt, again):
    if "theme 0" in prompt and not again:
      return {"description": "Like Film 7."}
    return {"tags": ["Film 8"], "overview": " "} if "theme 1" in prompt else {}

  author = Script(answer)
  found = user_task(
    HistoryBatches(((0,),)), HistoryBatches(((1,),)), HistoryBatches(((2,),))
  ).write(author, [0, 1, 2], seed=4)
  assert [len(prompts) for prompts in author.asked] == [3, 2]
  assert author.seeds[0] != author.seeds[1]
  assert [one.source for one in found] == ["llm", "built", "llm"]
  assert [one.attempts for one in found] == [2, 2, 1]
  assert found[0].problems == () and "Text 2." in found[0].text
  assert found[1].problems == ("overview is empty", 'has title "Film 8"')
  assert parse_profile(found[1].text) == BUILT


def test_a_summary_is_one_paragraph():
  author = Script(lambda prompt, again: {"summary": "Like Film 3."} if "theme 9" in prompt else {})
  found = user_task(
    HistoryBatches(((0,), (1,)), ((2,),)), HistoryBatches(((9,),)), form="summary"
  ).write(author, [0, 1], seed=0)
  assert "Profile:\nSummary 1." in author.asked[1][0]
  assert found[0].text == "Summary 3." and found[0].batches == 3
  assert found[1].text == "Built. Built text." and found[1].source == "built"


def test_items_keep_their_title_and_genres():
  fields = [
    {"title": "Heat (1995)", "genres": ["Crime"], "overview": "Two men.", "director": "M. Mann"},
    {"title": "Matrix, The (1999)", "overview": "A hacker."},
    {},
    {"title": "Odd (2000)", "genres": ["Drama"], "overview": "Two odd men."},
  ]
  author = Script(lambda prompt, again: {"tags": ["The Matrix"]} if "Odd" in prompt else {})
  task = ItemTask(fields, build_item_profiles(fields, noun="film"), Names(fields), "film")
  found = task.write(author, range(4), seed=0)
  (known, without, odd), (again,) = author.asked
  assert "Film: Heat (1995)\nGenres: Crime\nText: Two men." in known and "Mann" not in known
  assert again == odd
  fields = [list(query.form["properties"]) for query in author.queries[0]]
  assert "genres" in fields[1] and "genres" not in fields[0] and "overview" not in fields[0]
  heat, matrix = (parse_profile(found[i].text) for i in (0, 1))
  assert (heat.name, heat.genres, heat.tags) == ("Heat", ("Crime",), ("tag 1",))
  assert (matrix.name, matrix.genres) == ("The Matrix", ("Drama",))
  assert [one.source for one in found] == ["llm", "llm", "none", "built"]
  assert found[3].problems == ('has title "The Matrix"',)


@hypothesis.settings(max_examples=80, deadline=None)
@hypothesis.given(
  st.lists(st.integers(0, 300), min_size=1, max_size=5), st.integers(0, 500), st.integers(100, 400)
)
def test_prompts_fit_and_keep_their_instructions(lengths, present, tokens):
  films = [" ".join(f"f{n}" for _ in range(length)) for n, length in enumerate(lengths)]
  settings = {"noun": "film", "liked": False, "present": "p " * present, "form": SUMMARY}
  prompt = user_query(words_budget(tokens), films, **settings).prompt
  assert len(prompt.split()) <= tokens
  assert "no titles, no names of people." in prompt
  whole = user_query(words_budget(10_000), films, **settings).prompt
  if len(whole.split()) <= tokens:
    assert prompt == whole
  elif sum(lengths):
    assert len(prompt.split()) > tokens - len(films) - 2 * max(1, len(films))  # and use the budget


def test_tokens_are_allocated_in_proportion_to_weights():
  assert allocate([10, 2, 10], [1, 1, 1], 12) == [5, 2, 5]
  assert allocate([10, 10], [1, 3], 8) == [2, 6]
  assert allocate([3, 4], [1, 1], 100) == [3, 4]
  assert allocate([3, 4], [1, 1], 0) == [0, 0] and allocate([], [], 5) == []


def test_a_context_too_short_for_the_instructions_is_refused():
  with pytest.raises(InputError, match="llm: its context leaves 20 tokens"):
    user_query(words_budget(20), ["Heat"], noun="film", liked=True, present="", form=SUMMARY)


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="needs ../shared/data")
def test_published_profiles_fit_untruncated_into_four_thousand_tokens():
  def read(name):
    lines = [json.loads(line) for line in (PUBLISHED / name).read_text("utf-8").splitlines()]
    return [parse_profile(line["profile"]) for line in lines]

  films = [
    item_line(one, one.name or "", noun="film") for one in read("profiles_ml100k_items.jsonl")
  ]
  users = [profile_text(one) for one in read("profiles_ml100k_users.jsonl")]
  # Four characters per token, as for current tokenizers; 1024 of 4096 are for the answer.
  budget = Budget(3072, *[lambda text: -(-len(text) // 4)] * 2, lambda text, n: text[: 4 * n])
  for n, present in enumerate(users):
    chosen = films[n : n + 5]
    prompt = user_query(
      budget, chosen, noun="film", liked=True, present=present, form=SUMMARY
    ).prompt
    assert present in prompt and all(film in prompt for film in chosen)
