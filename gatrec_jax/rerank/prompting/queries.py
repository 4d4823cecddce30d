"""The queries that strategies may send to a language model about users.

A strategy is an algorithm over the answers: log-probabilities of letters, yes or no, orders and
ratings. Each query is made for many users at once, in batches on the device.
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
from gatrec_jax.lm.inference.shared_prefix import score_continuations_shared, score_labels_shared
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
from gatrec_jax.rerank.prompting.truncation import PromptEncoder, Prompts, fit_prompts

MAX_RATING = 100


@dataclasses.dataclass
class Usage:
  """Counts of what re-ranking used. A call adds its counts to the object that it is given.

  Attributes:
    users: that were re-ranked. queries: prompts that the model was given.
    prompt_tokens: of the prompts; a prefix that a user's prompts share counts once per batch.
    new_tokens: that the model generated. shortened: users whose history was shortened to fit.
    seconds: in total.
  """

  users: int = 0
  queries: int = 0
  prompt_tokens: int = 0
  new_tokens: int = 0
  shortened: int = 0
  seconds: float = 0.0

  @property
  def forward_tokens(self) -> int:
    """Tokens that the model processed."""
    return self.prompt_tokens + self.new_tokens


class Queries:
  """Queries about some users, whose contexts are shortened if a prompt does not fit."""

  def __init__(
    self,
    encode: PromptEncoder,
    contexts: Sequence[Context],
    *,
    batch_size: int = 8,
    lora: Lora | None = None,
    usage: Usage | None = None,
  ) -> None:
    """Args:
    encode: of the model that is queried.
    contexts: of the users.
    batch_size: users per batch.
    lora: low-rank additions to the weights.
    usage: counts to add to.
    """
    self.model, self.batch_size, self.lora = encode.model, batch_size, lora
    self.contexts = list(contexts)
    self.usage = usage if usage is not None else Usage()
    self._encode = encode
    self._shortened: set[int] = set()
    self._spellings: dict[str, list[int]] = {}

  def choices(
    self, users: Sequence[int], lists: Sequence[Sequence[Sequence[str]]]
  ) -> list[np.ndarray]:
    """Log-probabilities that each candidate fits best, from the logits of their labels.

    The labels are letters, or the titles themselves if the model has a token for each.

    Args:
      users: indices of N users. lists: for each, C lists of k titles in the order of the letters.
    Returns: for each user [C, k] float32, normalized over the labels.
    Raises: InputError for more titles than single-token letters.
    """
    own = self.own_labels(title for several in lists for titles in several for title in titles)
    longest = max((len(titles) for several in lists for titles in several), default=0)
    if own is None:
      self._require_letters(longest)
    labels = self._letters[:longest] if own is None else _padded(list(own.values()))
    prompts = [
      lambda context, several=several: [
        choice_prompt(context, titles, by_title=own is not None) for titles in several
      ]
      for several in lists
    ]
    logits = self._logits(users, prompts, labels)
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
    """Log-probabilities that each title is the next liked one, for models with a token per title.

    One forward pass per user, for any number of titles. The candidates are not listed, so their
    order cannot matter.

    Args: users: indices of N users. lists: titles for each.
    Returns: for each user [k] float32, normalized over the titles.
    """
    own = self.own_labels(title for titles in lists for title in titles)
    column = {title: place for place, title in enumerate(own)}
    prompts = [lambda context: [next_prompt(context)]] * len(lists)
    logits = self._logits(users, prompts, _padded(list(own.values())))
    return [
      log_softmax(found[0, [column[title] for title in titles]])
      for found, titles in zip(logits, lists, strict=True)
    ]

  def likelihoods(self, users: Sequence[int], lists: Sequence[Sequence[str]]) -> list[np.ndarray]:
    """How much more likely each title is as the next liked one because of the user, in nats.

    log p(title | user) − log p(title | nobody): the pointwise mutual information, in which what
    is likely for everybody (short and common words) cancels. Each user's description is evaluated
    once, and each title once without a user.

    Args: users: indices of N users. lists: titles for each.
    Returns: for each user [k] float32.
    """
    if not lists:
      return []
    spelled = {t: self._spelled(line_end(t)) for titles in lists for t in titles}
    reserved = [max((len(spelled[t]) for t in titles), default=0) for titles in lists]
    # A profile would have told a model in training what it is to predict.
    prompts = [lambda context: [next_prompt(Context(history=context.history))]] * len(lists)
    encode = PromptEncoder(self.model, chat=False)  # a text that goes on, not an answer
    encoded = [ids for (ids,) in self._fitted(users, prompts, reserved, encode)]
    (alone,) = encode([next_prompt(Context())])
    # Titles are scored alone in groups as large as the lists, which needs no other program.
    known, size = list(spelled), max(map(len, lists))
    known += known[-1:] * (-len(known) % size)
    groups = [known[start : start + size] for start in range(0, len(known), size)]
    speed, endings = Speed(), [[spelled[title] for title in titles] for titles in [*lists, *groups]]
    shared = {"batch_size": self.batch_size, "lora": self.lora, "speed": speed}
    asked = [*encoded, *[alone] * len(groups)]
    scored = score_continuations_shared(self.model, asked, endings, **shared)
    self.usage.queries += len(scored)
    self.usage.prompt_tokens += speed.prompt_tokens
    prior = dict(zip(known, np.concatenate(scored[len(lists) :]), strict=True))
    return [
      found - np.array([prior[title] for title in titles], np.float32)
      for found, titles in zip(scored, lists, strict=False)
    ]

  def own_labels(self, titles: Iterable[str]) -> dict[str, int] | None:
    """The token of each distinct title; None if the model does not have one for all."""
    distinct = list(dict.fromkeys(titles))
    tokens = title_tokens(self.model, distinct)
    return None if tokens is None else dict(zip(distinct, tokens.tolist(), strict=True))

  def empty_choice(self, count: int) -> np.ndarray:
    """[k] float32 log-probabilities of `count` letters for a content-free prompt."""
    self._require_letters(count)

    def make(context: Context) -> list[str]:
      return [choice_prompt(context, [UNKNOWN] * count)]

    (ids,), _ = fit_prompts(self._encode, [CONTENT_FREE], [make], [0])
    return log_softmax(self._score([ids], self._letters[:count])[0][0])

  def fits(self, users: Sequence[int], lists: Sequence[Sequence[str]]) -> list[np.ndarray]:
    """Whether each title fits: the logit of yes minus that of no.

    Args: users: indices of N users. lists: titles for each.
    Returns: for each user [C] float32.
    """
    prompts = [
      lambda context, titles=titles: [pointwise_prompt(context, title) for title in titles]
      for titles in lists
    ]
    try:
      yes_no = label_tokens(self.model, YES_NO)
    except InputError:
      raise InputError(
        f"{self.model.name} has no single tokens for yes and no; use another strategy or model",
        field="strategy",
        value="pointwise",
      ) from None
    return [found[:, 0] - found[:, 1] for found in self._logits(users, prompts, yes_no)]

  def orders_of_titles(
    self, users: Sequence[int], lists: Sequence[Sequence[str]]
  ) -> list[list[int]]:
    """The model's rankings of titles, generated as numbered lines with each title once.

    Args: users: indices of N users. lists: titles for each.
    Returns: for each user, places in the list, the best first.
    Raises: InputError for more titles than letters.
    """

    def ordering(titles: Sequence[str]) -> Ordering:
      numbers = [self._spelled(str(line)) for line in range(1, len(titles) + 1)]
      return self._ordering(map(line_end, titles), numbers)

    nested = [[titles] for titles in lists]
    return [order for (order,) in self._orders(users, nested, listwise_prompt, ordering)]

  def orders_of_letters(
    self, users: Sequence[int], lists: Sequence[Sequence[Sequence[str]]]
  ) -> list[list[list[int]]]:
    """The model's rankings of a few titles each, generated as letters, one per line.

    Args: users: indices of N users. lists: for each, several lists of titles.
    Returns: for each user and list, places in the list, the best first.
    """

    def ordering(titles: Sequence[str]) -> Ordering:
      return self._ordering(f"{label}\n" for label in LABELS[: len(titles)])

    return self._orders(users, lists, batchwise_prompt, ordering)

  def ratings(
    self, users: Sequence[int], lists: Sequence[Sequence[Sequence[str]]]
  ) -> list[list[list[int]]]:
    """How well each title fits, as an integer from 0 to `MAX_RATING`.

    Args: as in `orders_of_letters`.
    Returns: for each user and list, [k] integers.
    """
    rating = {"type": "integer", "minimum": 0, "maximum": MAX_RATING}

    @functools.cache
    def schema(count: int) -> Constraint:
      return answer_schema(
        self.model, {"type": "object", "properties": dict.fromkeys(LABELS[:count], rating)}
      )

    def most(titles: Sequence[str]) -> int:
      # A token stands for at least one character.
      return len(json.dumps(dict.fromkeys(LABELS[: len(titles)], MAX_RATING)))

    def constraint(titles: Sequence[str]) -> Constraint:
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
    def most(titles: Sequence[str]) -> int:
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
    """Generates an answer to a prompt for each list of titles.

    Args: prompt, constraint: of a list. most: maximum number of tokens of its answer.
    Returns: for each user and list, the constraint and the answer.
    """
    prompts = [
      lambda context, several=several: [prompt(context, titles) for titles in several]
      for several in lists
    ]
    reserved = [max(map(most, several), default=0) for several in lists]
    encoded = [ids for several in self._fitted(users, prompts, reserved) for ids in several]
    flat = [titles for several in lists for titles in several]
    constraints = list(map(constraint, flat))
    answers = generate(
      self.model,
      encoded,
      max_tokens=list(map(most, flat)),
      constraint=constraints,
      batch_size=self.batch_size,
      lora=self.lora,
    )
    self.usage.queries += len(encoded)
    self.usage.prompt_tokens += sum(map(len, encoded))
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
    """Tokens of a piece of an answer, cached because titles recur."""
    if text not in self._spellings:
      self._spellings[text] = spell(self.model.spelling, text)
    return self._spellings[text]

  @functools.cached_property
  def _letters(self) -> np.ndarray:
    """[L] int32, the tokens of the first `LABELS` that are single tokens."""
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
    self, users: Sequence[int], prompts: Sequence[Prompts], labels: np.ndarray
  ) -> list[np.ndarray]:
    return self._score(self._fitted(users, prompts, [0] * len(users)), labels)

  def _score(
    self, encoded: Sequence[Sequence[Sequence[int]]], labels: np.ndarray
  ) -> list[np.ndarray]:
    speed = Speed()
    found = score_labels_shared(
      self.model, encoded, labels, batch_size=self.batch_size, lora=self.lora, speed=speed
    )
    self.usage.queries += sum(map(len, encoded))
    self.usage.prompt_tokens += speed.prompt_tokens
    return found

  def _fitted(
    self,
    users: Sequence[int],
    prompts: Sequence[Prompts],
    reserved: Sequence[int],
    encode: PromptEncoder | None = None,
  ) -> list[list[list[int]]]:
    """The token ids of these users' prompts. Contexts stay shortened for later queries."""
    before = [self.contexts[user] for user in users]
    encoded, after = fit_prompts(encode or self._encode, before, prompts, reserved)
    for user, old, new in zip(users, before, after, strict=True):
      self.contexts[user] = new
      if new is not old and user not in self._shortened:
        self._shortened.add(user)
        self.usage.shortened += 1
    return encoded


def _padded(tokens: Sequence[int]) -> np.ndarray:
  """[L] int32, the last token repeated up to a power of two, so that few shapes are compiled."""
  size = 1 << max(len(tokens) - 1, 0).bit_length()
  return np.pad(np.array(tokens, np.int32), (0, size - len(tokens)), mode="edge")


def log_softmax(logits: np.ndarray) -> np.ndarray:
  """Log-softmax over the last axis. Args: logits: [..., k] float."""
  if not logits.size:
    return logits
  shifted = logits - logits.max(axis=-1, keepdims=True)
  return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
