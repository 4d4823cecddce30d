"""What strategies may ask a language model about users: the one place where they meet it.

A strategy is an algorithm over the answers: letters by their logits, yes or no, orders, ratings.
Every question is asked for many users at once, in batches on the device.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from gatrec_jax.errors import InputError
from gatrec_jax.lm.constraints.api import answer_schema
from gatrec_jax.lm.constraints.choices import min_tokens
from gatrec_jax.lm.constraints.permutation import Constraint, Ordering, make_ordering, order_of
from gatrec_jax.lm.decoder.model import Lora
from gatrec_jax.lm.inference.generate import Generation, Speed, generate
from gatrec_jax.lm.inference.scoring import label_tokens
from gatrec_jax.lm.inference.shared_prefix import score_labels_shared
from gatrec_jax.lm.tokens.token_bytes import spell
from gatrec_jax.rerank.prompting.prompts import (
  CONTENT_FREE,
  LABELS,
  UNKNOWN,
  YES_NO,
  Context,
  batchwise_prompt,
  choice_prompt,
  line_end,
  listwise_prompt,
  next_prompt,
  pointwise_prompt,
  relevancy_prompt,
  require_labels,
  title_tokens,
)
from gatrec_jax.rerank.prompting.truncation import Reader, fitted

MOST_RATING = 100


@dataclasses.dataclass
class Usage:
  """What re-ranking took, added up over calls; pass one in to have it filled.

  Attributes:
    users: that were re-ranked. questions: prompts that a model was given.
    prompt_tokens: that it read; what the questions of a user share counts once a batch.
    new_tokens: that it wrote. shortened: users whose history was shortened to fit.
    seconds: of the whole.
  """

  users: int = 0
  questions: int = 0
  prompt_tokens: int = 0
  new_tokens: int = 0
  shortened: int = 0
  seconds: float = 0.0

  @property
  def forward_tokens(self) -> int:
    """Tokens that went through the model."""
    return self.prompt_tokens + self.new_tokens


class Questions:
  """The questions about some users; their contexts get shorter where a question does not fit."""

  def __init__(
    self,
    read: Reader,
    contexts: Sequence[Context],
    *,
    batch_size: int = 8,
    lora: Lora | None = None,
    usage: Usage | None = None,
  ) -> None:
    """Args: read: of the model that is asked. contexts: of the users. batch_size: users side by
    side. lora: low-rank additions. usage: is filled."""
    self.model, self.batch_size, self.lora = read.model, batch_size, lora
    self.contexts = list(contexts)
    self.usage = usage if usage is not None else Usage()
    self._read = read
    self._shortened: set[int] = set()
    self._spellings: dict[str, list[int]] = {}

  def choices(
    self, users: Sequence[int], lists: Sequence[Sequence[Sequence[str]]]
  ) -> list[np.ndarray]:
    """Which of the candidates fits best, by the logits of their labels.

    The labels are letters; or the titles themselves, where the model has a token for each.

    Args: users: numbers of N users. lists: for each of them C lists of k titles, in the order in
      which they are lettered.
    Returns: for each user [C, k] float32 log-probabilities of the labels among themselves.
    Raises: InputError for more titles than there are letters of one token.
    """
    own = self.own_labels(title for several in lists for titles in several for title in titles)
    longest = max((len(titles) for several in lists for titles in several), default=0)
    if own is None:
      self._require_letters(longest)
    labels = self._letters[:longest] if own is None else _padded(list(own.values()))
    texts = [
      lambda context, several=several: [
        choice_prompt(context, titles, by_title=own is not None) for titles in several
      ]
      for several in lists
    ]
    logits = self._logits(users, texts, labels)
    if own is not None:
      column = {title: place for place, title in enumerate(own)}
      logits = [
        np.take_along_axis(found, np.array([[column[t] for t in row] for row in several]), axis=1)
        for found, several in zip(logits, lists, strict=True)
      ]
    return [
      log_softmax(found[:, : len(several[0]) if several else 0])
      for found, several in zip(logits, lists, strict=True)
    ]

  def next_titles(self, users: Sequence[int], lists: Sequence[Sequence[str]]) -> list[np.ndarray]:
    """How likely each title is the next that the user likes, for models with a token for each.

    One forward pass a user, however many titles; there is no list whose order could matter.

    Args: users: numbers of N users. lists: titles for each.
    Returns: for each user [k] float32 log-probabilities of its titles among themselves.
    """
    own = self.own_labels(title for titles in lists for title in titles)
    column = {title: place for place, title in enumerate(own)}
    texts = [lambda context: [next_prompt(context)]] * len(lists)
    logits = self._logits(users, texts, _padded(list(own.values())))
    return [
      log_softmax(found[0, [column[title] for title in titles]])
      for found, titles in zip(logits, lists, strict=True)
    ]

  def own_labels(self, titles: Iterable[str]) -> dict[str, int] | None:
    """The token of each title, each once; None where the model does not have one for all."""
    distinct = list(dict.fromkeys(titles))
    tokens = title_tokens(self.model, distinct)
    return None if tokens is None else dict(zip(distinct, tokens.tolist(), strict=True))

  def empty_choice(self, count: int) -> np.ndarray:
    """[k] float32 log-probabilities of `count` letters where nothing is known of anything."""
    self._require_letters(count)

    def make(context):
      return [choice_prompt(context, [UNKNOWN] * count)]

    (questions,), _ = fitted(self._read, [CONTENT_FREE], [make], [0])
    return log_softmax(self._score([questions], self._letters[:count])[0][0])

  def fits(self, users: Sequence[int], lists: Sequence[Sequence[str]]) -> list[np.ndarray]:
    """Whether each title fits: the logit of yes less that of no.

    Args: users: numbers of N users. lists: titles for each.
    Returns: for each user [C] float32.
    """
    texts = [
      lambda context, titles=titles: [pointwise_prompt(context, title) for title in titles]
      for titles in lists
    ]
    try:
      yes_no = label_tokens(self.model, YES_NO)
    except InputError:
      raise InputError(
        f"{self.model.name} has no single token for yes and for no; take "
        "another strategy, or another model",
        field="strategy",
        value="pointwise",
      ) from None
    return [found[:, 0] - found[:, 1] for found in self._logits(users, texts, yes_no)]

  def orders_of_titles(
    self, users: Sequence[int], lists: Sequence[Sequence[str]]
  ) -> list[list[int]]:
    """The model's ranking of titles, written out as numbered lines, each title once.

    Args: users: numbers of N users. lists: titles for each.
    Returns: for each user places in its list, the best first.
    Raises: InputError for more titles than there are letters.
    """

    def ordering(titles: Sequence[str]) -> Ordering:
      numbers = [self._spelled(str(line)) for line in range(1, len(titles) + 1)]
      return self._ordering(map(line_end, titles), numbers)

    nested = [[titles] for titles in lists]
    return [order for (order,) in self._orders(users, nested, listwise_prompt, ordering)]

  def orders_of_letters(
    self, users: Sequence[int], lists: Sequence[Sequence[Sequence[str]]]
  ) -> list[list[list[int]]]:
    """The model's rankings of a few titles each, written as their letters, one a line.

    Args: users: numbers of N users. lists: for each of them several lists of titles.
    Returns: for each user and list places in it, the best first.
    """

    def ordering(titles):
      return self._ordering(f"{label}\n" for label in LABELS[: len(titles)])

    return self._orders(users, lists, batchwise_prompt, ordering)

  def ratings(
    self, users: Sequence[int], lists: Sequence[Sequence[Sequence[str]]]
  ) -> list[list[list[int]]]:
    """How well each title fits, as an integer from 0 to `MOST_RATING`.

    Args: as in `orders_of_letters`. Returns: for each user and list [k] integers.
    """
    rating = {"type": "integer", "minimum": 0, "maximum": MOST_RATING}
    schema = functools.cache(
      lambda count: answer_schema(
        self.model, {"type": "object", "properties": dict.fromkeys(LABELS[:count], rating)}
      )
    )

    # A token writes one character at least.
    def most(titles):
      return len(json.dumps(dict.fromkeys(LABELS[: len(titles)], MOST_RATING)))

    def constraint(titles):
      return schema(len(titles))

    answers = self._answers(users, lists, relevancy_prompt, constraint, most)
    return [
      [list(json.loads(answer.text).values()) for _, answer in several] for several in answers
    ]

  def _orders(
    self,
    users: Sequence[int],
    lists: Sequence[Sequence[Sequence[str]]],
    prompt: Callable[[Context, Sequence[str]], str],
    ordering: Callable[[Sequence[str]], Ordering],
  ) -> list[list[list[int]]]:
    def most(titles):
      return min_tokens(ordering(titles))

    answers = self._answers(users, lists, prompt, ordering, most)
    return [[order_of(one, answer.tokens) for one, answer in several] for several in answers]

  def _answers(
    self,
    users: Sequence[int],
    lists: Sequence[Sequence[Sequence[str]]],
    prompt: Callable[[Context, Sequence[str]], str],
    constraint: Callable[[Sequence[str]], Constraint],
    most: Callable[[Sequence[str]], int],
  ) -> list[list[tuple[Constraint, Generation]]]:
    """Answers of at most `most` tokens to a prompt for each list of titles, with constraints."""
    texts = [
      lambda context, several=several: [prompt(context, titles) for titles in several]
      for several in lists
    ]
    rooms = [max(map(most, several), default=0) for several in lists]
    prompts = [ids for several in self._fitted(users, texts, rooms) for ids in several]
    flat = [titles for several in lists for titles in several]
    constraints = list(map(constraint, flat))
    answers = generate(
      self.model,
      prompts,
      max_tokens=list(map(most, flat)),
      constraint=constraints,
      batch_size=self.batch_size,
      lora=self.lora,
    )
    self.usage.questions += len(prompts)
    self.usage.prompt_tokens += sum(map(len, prompts))
    self.usage.new_tokens += sum(len(answer.tokens) for answer in answers)
    pairs = iter(zip(constraints, answers, strict=True))
    return [[next(pairs) for _ in several] for several in lists]

  def _ordering(self, texts: Iterable[str], leads: Sequence[Sequence[int]] = ()) -> Ordering:
    return make_ordering(
      [self._spelled(text) for text in texts],
      leads,
      vocabulary=self.model.config.vocabulary,
      eos=self.model.eos,
    )

  def _spelled(self, text: str) -> list[int]:
    """Tokens of a piece of an answer; titles come again and again."""
    if text not in self._spellings:
      self._spellings[text] = spell(self.model.spelling, text)
    return self._spellings[text]

  @functools.cached_property
  def _letters(self) -> np.ndarray:
    """[L] int32, the tokens of as many of `LABELS` as are one token each."""
    tokens: list[int] = []
    for letter in LABELS:
      spelled = spell(self.model.spelling, letter)
      if len(spelled) != 1 or spelled[0] in tokens:
        break
      tokens += spelled
    return np.array(tokens, np.int32)

  def _require_letters(self, count: int) -> None:
    require_labels(count, len(self._letters))

  def _logits(
    self, users: Sequence[int], texts: Sequence[Callable[[Context], list[str]]], labels: np.ndarray
  ) -> list[np.ndarray]:
    return self._score(self._fitted(users, texts, [0] * len(users)), labels)

  def _score(
    self, questions: Sequence[Sequence[Sequence[int]]], labels: np.ndarray
  ) -> list[np.ndarray]:
    speed = Speed()
    found = score_labels_shared(
      self.model, questions, labels, batch_size=self.batch_size, lora=self.lora, speed=speed
    )
    self.usage.questions += sum(map(len, questions))
    self.usage.prompt_tokens += speed.prompt_tokens
    return found

  def _fitted(
    self,
    users: Sequence[int],
    texts: Sequence[Callable[[Context], list[str]]],
    rooms: Sequence[int],
  ) -> list[list[list[int]]]:
    """The questions of these users as ids; their contexts are shortened for good."""
    before = [self.contexts[user] for user in users]
    questions, after = fitted(self._read, before, texts, rooms)
    for user, old, new in zip(users, before, after, strict=True):
      self.contexts[user] = new
      if new is not old and user not in self._shortened:
        self._shortened.add(user)
        self.usage.shortened += 1
    return questions


def _padded(tokens: Sequence[int]) -> np.ndarray:
  """[L] int32, the last token repeated up to a power of two: few shapes, whoever is asked about."""
  size = 1 << max(len(tokens) - 1, 0).bit_length()
  return np.pad(np.array(tokens, np.int32), (0, size - len(tokens)), mode="edge")


def log_softmax(logits: np.ndarray) -> np.ndarray:
  """Over the last axis, [..., k] float."""
  if not logits.size:
    return logits
  shifted = logits - logits.max(axis=-1, keepdims=True)
  return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
