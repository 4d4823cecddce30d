"""The built-in author of reasons: a small language model that says facts in other words.

Titles, names and numbers are marks to it, so it needs to know nothing of any catalog: what it
learns from is every kind of fact that a record may hold, in lists such as records have, each told
in wordings drawn at random. It is made once on a machine.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from gatrec_jax import runs
from gatrec_jax.explain.authors import MOST_FACTS, facts_prompt, marks_of
from gatrec_jax.explain.phrases import PHRASES, fill
from gatrec_jax.lm.constraints.placeholders import mark
from gatrec_jax.lm.finetune.from_scratch import build_small
from gatrec_jax.lm.folders.load import LanguageModel, load_decoder
from gatrec_jax.runs.log import Log

NAME = "builtin"
# In the order of `reasons.points_of`; those that a record may hold twice are there twice.
_ORDER = (
  ("liked", "liked_some", "rated_most", "rated_some", "likes"),
  ("liked_too",),
  ("rated",),
  ("rated",),
  ("person",),
  ("person",),
  ("tag",),
  ("tag",),
  ("genre",),
  ("genre",),
  ("both",),
  ("avoided",),
  ("moved",),
  ("leaves", "stays"),
)


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How the model is made.

  Attributes:
    texts: lists of facts with their sentences.
    width, layers, heads, kv_heads, context: of the decoder.
    vocabulary: tokens, marks included.
    steps, batch_size, row_tokens, rate: of training.
  """

  texts: int = 6000
  width: int = 64
  layers: int = 2
  heads: int = 4
  kv_heads: int = 2
  context: int = 512
  vocabulary: int = 600
  steps: int = 500
  batch_size: int = 16
  row_tokens: int = 192
  rate: float = 8e-3


def open_builtin_author(*, log: Log, recipe: Recipe | None = None) -> LanguageModel:
  """The built-in author, made now if the user's cache has none.

  Args: recipe: None for the usual one.
  Raises: Interrupted: a signal came; the same call goes on.
  """
  recipe = recipe or Recipe()
  texts = worded(recipe.texts, seed=0)
  home = runs.cache_dir() / "verbalizer" / runs.digest(dataclasses.asdict(recipe), texts)
  folder = home / "model"
  if not folder.exists():
    log.info("builtin: a small language model that puts facts into words is built now, once")
    home.mkdir(parents=True, exist_ok=True)
    with runs.locked(home), runs.signals("builtin: stopping after this step", log=log) as received:
      build_small(
        texts,
        folder,
        vocabulary=recipe.vocabulary,
        width=recipe.width,
        layers=recipe.layers,
        heads=recipe.heads,
        kv_heads=recipe.kv_heads,
        inner=3 * recipe.width,
        context=recipe.context,
        extra_tokens=[mark(place) for place in range(4 * MOST_FACTS)],
        chat=False,
        steps=recipe.steps,
        batch_size=recipe.batch_size,
        row_tokens=recipe.row_tokens,
        learning_rate=recipe.rate,
        stop=lambda: received[0] if received else 0,
        log=log,
      )
  return dataclasses.replace(load_decoder(folder), name=NAME, folder=folder)


def worded(count: int, *, seed: int) -> list[str]:
  """Lists of one to `MOST_FACTS` facts, each followed by sentences that say them."""
  rng = np.random.default_rng(seed)
  texts = []
  for _ in range(count):
    size = int(rng.integers(1, MOST_FACTS + 1))
    chosen = np.sort(rng.choice(len(_ORDER), size, replace=False))
    kinds = [str(rng.choice(_ORDER[place])) for place in chosen]
    sentences = [
      fill(PHRASES[kind][rng.integers(len(PHRASES[kind]))], marks)
      for kind, marks in zip(kinds, marks_of(kinds), strict=True)
    ]
    texts.append(facts_prompt(kinds) + " ".join(sentences))
  return texts
