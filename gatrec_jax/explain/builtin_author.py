"""The built-in author of reasons: a small language model that rephrases facts.

Titles, names and numbers are placeholders to it, so it needs no knowledge of any catalog. It is
trained from scratch on every kind of fact, in lists like those of real reasons, each followed by
randomly drawn wordings, some with connecting words. It is built once per machine and kept in the
user's cache.
"""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np

from gatrec_jax import runs
from gatrec_jax.explain.language_model_author import MAX_FACTS, facts_prompt, mark, placeholders_of
from gatrec_jax.explain.phrases import CONNECTING, PHRASES, complete
from gatrec_jax.lm.finetune.from_scratch import build_small
from gatrec_jax.lm.folders.load import LanguageModel, load_decoder
from gatrec_jax.runs.log import Log

NAME = "builtin"
# Kinds in the order of `reasons.points_of`, once for each time that a reason may contain them.
_ORDER = (
  ("liked", "rated", "likes"),
  ("liked_too",),
  ("rated_too",),
  ("rated_too",),
  ("strongest",),
  ("person", "maker"),
  ("person", "maker"),
  ("tag",),
  ("tag",),
  ("genre",),
  ("genre",),
  ("both",),
  ("avoided",),
  ("moved",),
  ("leaves", "stays"),
)
_CONNECTED = 0.3  # share of the sentences after the first with connecting words


@dataclasses.dataclass(frozen=True)
class AuthorRecipe:
  """How the built-in author is trained.

  Attributes:
    texts: number of training texts, each a list of facts with their sentences.
    width, layers, heads, kv_heads, context: of the decoder.
    vocabulary: number of tokens, placeholders included.
    steps, batch_size, row_tokens, rate: training steps, rows per step, tokens per row, learning
      rate.
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


def open_builtin_author(*, log: Log, recipe: AuthorRecipe | None = None) -> LanguageModel:
  """Loads the built-in author, and builds it first if the user's cache has none.

  Args:
    log: where messages and progress go.
    recipe: None for the default.
  Raises: Interrupted on a signal; calling again resumes the training.
  """
  recipe = recipe or AuthorRecipe()
  texts = training_texts(recipe.texts, seed=0)
  key = runs.digest(dataclasses.asdict(recipe), texts)
  home = runs.cache_dir() / "author" / key
  folder = home / "model"

  def make() -> dict[str, object]:
    log.info("builtin: building a small language model that rephrases facts (once per machine)")
    home.mkdir(parents=True, exist_ok=True)
    with runs.locked(home), runs.signals("builtin: stopping after this step", log=log) as received:
      shutil.rmtree(folder, ignore_errors=True)  # a damaged one
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
        extra_tokens=[mark(place) for place in range(4 * MAX_FACTS)],
        chat=False,
        steps=recipe.steps,
        batch_size=recipe.batch_size,
        row_tokens=recipe.row_tokens,
        learning_rate=recipe.rate,
        stop=lambda: received[0] if received else 0,
        log=log,
      )
    return {}

  outputs = ("model",)
  runs.stage(home, name="builtin", inputs=key, outputs=outputs, make=make, log=log, says_kept=False)
  return dataclasses.replace(load_decoder(folder), name=NAME, folder=folder)


def training_texts(count: int, *, seed: int) -> list[str]:
  """Prompts with one to `MAX_FACTS` facts, each followed by sentences that state them."""
  rng = np.random.default_rng(seed)
  texts = []
  for _ in range(count):
    size = int(rng.integers(1, MAX_FACTS + 1))
    chosen = np.sort(rng.choice(len(_ORDER), size, replace=False))
    kinds = [str(rng.choice(_ORDER[place])) for place in chosen]
    sentences = []
    for kind, placeholders in zip(kinds, placeholders_of(kinds), strict=True):
      phrase = PHRASES[kind][rng.integers(len(PHRASES[kind]))]
      words = CONNECTING[phrase] if sentences and rng.random() < _CONNECTED else ()
      connecting = str(rng.choice(words)) if words else ""
      sentences.append(complete(phrase, placeholders, connecting=connecting))
    texts.append(facts_prompt(kinds) + " ".join(sentences))
  return texts
