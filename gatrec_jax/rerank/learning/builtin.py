"""The built-in re-ranker: a small language model of one catalog, trained without any download.

Its vocabulary has a token for the end of each line with a title, so that a history of thirty titles
takes sixty tokens. It first learns to continue histories, then to choose among out-of-fold
candidates of the GAT (`examples.py`). It knows nothing beyond the catalog, so it can re-rank but
not write profiles.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import shutil
from collections.abc import Callable, Sequence

import numpy as np

from gatrec_jax import runs
from gatrec_jax.config.overrides import to_json
from gatrec_jax.config.schema import Config
from gatrec_jax.data.prepared import Prepared
from gatrec_jax.data.titles import unique_titles
from gatrec_jax.lm.finetune.from_scratch import build_small
from gatrec_jax.lm.finetune.step import FinetuneConfig
from gatrec_jax.lm.folders.export import export_folder
from gatrec_jax.lm.folders.load import LanguageModel, load_decoder
from gatrec_jax.rerank.learning.examples import ExampleSettings
from gatrec_jax.rerank.learning.finetune import learn_to_rerank
from gatrec_jax.rerank.learning.out_of_fold import out_of_fold_lists
from gatrec_jax.rerank.learning.pretraining_texts import pretraining_texts
from gatrec_jax.rerank.prompting.prompts import (
  BEST,
  BEST_TITLE,
  CANDIDATE,
  CANDIDATES,
  DISLIKED,
  FITS,
  HISTORY,
  LIKED,
  PROFILE,
  PROMPT_VERSION,
  RANK_LABELS,
  RANK_TITLES,
  RATE,
  YES_NO,
  data_spans,
  line_end,
)
from gatrec_jax.runs.log import Log

NAME = "builtin"
_PIECES = (PROFILE, HISTORY, CANDIDATES, BEST, BEST_TITLE, FITS, RANK_TITLES, RANK_LABELS, RATE)


@dataclasses.dataclass(frozen=True)
class RerankerRecipe:
  """How a built-in re-ranker is trained. The defaults were chosen on validation ratings.

  Attributes:
    version: incremented if a change of the code changes the model.
    width, layers, heads, kv_heads: of the decoder, whose inner width is three times the width.
    context: in tokens.
    words: number of tokens other than those of titles.
    most_titles: maximum number of titles with a token of their own; those with the most training
      ratings get one.
    rounds: maximum number of pretraining texts per user (`pretraining_texts.py`).
    most_texts: maximum number of pretraining texts about users in total.
    reading_steps, reading_rows, reading_tokens, reading_rate: of pretraining: steps, rows per step,
      tokens per row, learning rate.
    folds, length: number of folds and candidates per list of the out-of-fold lists.
    top: candidates per example.
    epochs, most_steps, batch_size, rate: of fine-tuning on these lists.
    weight_decay: of fine-tuning.
    shares: of the tasks, as in `ExampleSettings`.
  """

  version: int = 2
  width: int = 96
  layers: int = 3
  heads: int = 4
  kv_heads: int = 2
  context: int = 512
  words: int = 1024
  most_titles: int = 8192
  rounds: int = 20
  most_texts: int = 40_000
  reading_steps: int = 1200
  reading_rows: int = 24
  reading_tokens: int = 192
  reading_rate: float = 2e-3
  folds: int = 4
  length: int = 50
  top: int = 20
  epochs: int = 4
  most_steps: int = 3000
  batch_size: int = 32
  rate: float = 1e-3
  weight_decay: float = 0.1
  shares: tuple[tuple[str, float], ...] = (("label", 0.7), ("pairwise", 0.1), ("pointwise", 0.2))


# The recipe for catalogs with fewer training ratings than SMALL.
SMALL = 50_000
SMALL_RECIPE = RerankerRecipe(width=64, layers=2, reading_steps=600, epochs=4)


def recipe_for(prepared: Prepared) -> RerankerRecipe:
  """The default recipe for the number of training ratings."""
  return SMALL_RECIPE if len(prepared.train) < SMALL else RerankerRecipe()


def open_builtin(
  config: Config,
  workdir: pathlib.Path,
  prepared: Prepared,
  *,
  user_profiles: Sequence[str | None],
  item_profiles: Sequence[str | None],
  log: Log,
  recipe: RerankerRecipe | None = None,
) -> LanguageModel:
  """Loads the built-in re-ranker of this training data, and builds it first if it is not cached.

  It is cached under the hash of everything that it depends on: training ratings, titles, profiles,
  the GAT's configuration, prompts and recipe. Validation and test ratings are never read.

  Args:
    config, workdir, prepared: of a run, for `out_of_fold_lists`.
    user_profiles: [U] texts from training ratings. item_profiles: [I] texts.
    log: where messages and progress go.
    recipe: None for `recipe_for`.
  Raises:
    Interrupted: on a signal; calling again resumes the work.
  """
  recipe = recipe or recipe_for(prepared)
  titles = unique_titles(prepared.item_fields, prepared.interactions.item_ids)
  train = prepared.train
  key = runs.digest(
    dataclasses.asdict(recipe),
    PROMPT_VERSION,
    list(titles),
    list(user_profiles),
    list(item_profiles),
    [to_json(config)[stage] for stage in ("model", "train")],
    config.text.encoder,
    *dataclasses.astuple(prepared.feedback),
    *(column.tobytes() for column in (train.user, train.item, train.rating, train.timestamp)),
  )
  home = runs.cache_dir() / "builtin" / key
  folder = home / "model"

  def make() -> dict[str, object]:
    log.info(
      "builtin: building a small language model of this catalog from its training ratings (once, "
      "no download needed)"
    )
    home.mkdir(parents=True, exist_ok=True)
    with runs.locked(home):
      shutil.rmtree(folder, ignore_errors=True)  # a damaged one
      texts = pretraining_texts(
        train,
        titles=titles,
        user_profiles=user_profiles,
        item_profiles=item_profiles,
        feedback=prepared.feedback,
        seed=recipe.version,
        rounds=max(1, min(recipe.rounds, recipe.most_texts // max(1, train.num_users))),
      )
      return _build(config, workdir, prepared, texts, titles, home=home, recipe=recipe, log=log)

  outputs = ("model",)
  runs.stage(home, name="builtin", inputs=key, outputs=outputs, make=make, log=log, says_kept=False)
  model = dataclasses.replace(load_decoder(folder), name=NAME, folder=folder)
  log.info(
    f"builtin: {model.parameters / 1e6:.2f} M parameters, {model.config.vocabulary} tokens, "
    f"trained on this catalog's ratings alone; can re-rank but not write profiles ({folder})"
  )
  return model


def _build(
  config: Config,
  workdir: pathlib.Path,
  prepared: Prepared,
  texts: Sequence[str],
  titles: Sequence[str],
  *,
  home: pathlib.Path,
  recipe: RerankerRecipe,
  log: Log,
) -> dict[str, object]:
  """Builds the model and writes it to `home`/model. Returns: a record of how it was built."""
  lists = out_of_fold_lists(
    config, workdir, prepared, folds=recipe.folds, length=recipe.length, log=log
  )
  with runs.signals("builtin: stopping after this step", log=log) as received:

    def stop() -> int:
      return received[0] if received else 0

    reader = _reader(texts, titles, prepared, home / "reader", recipe=recipe, stop=stop, log=log)
    settings = ExampleSettings(top=recipe.top, shares=dict(recipe.shares))
    steps = sum(len(part.users) for part in lists) * recipe.epochs // recipe.batch_size
    tuning = FinetuneConfig(
      mode="full",
      learning_rate=recipe.rate,
      weight_decay=recipe.weight_decay,
      steps=max(1, min(steps, recipe.most_steps)),
      batch_size=recipe.batch_size,
      max_tokens=recipe.context,
      evaluate_every=100,
    )
    tuned = learn_to_rerank(
      reader,
      lists,
      prepared,
      settings=settings,
      tuning=tuning,
      workdir=home / "choosing",
      stop=stop,
      log=log,
    )
  export_folder(tuned.model, home / "model")
  for leftover in ("reader", "choosing"):
    shutil.rmtree(home / leftover, ignore_errors=True)
  return {
    "recipe": dataclasses.asdict(recipe),
    "prompt_version": PROMPT_VERSION,
    "lists": sum(len(part.users) for part in lists),
    "history": tuned.history,
    "best_step": tuned.best_step,
    "environment": runs.environment(),
  }


def _reader(
  texts: Sequence[str],
  titles: Sequence[str],
  prepared: Prepared,
  folder: pathlib.Path,
  *,
  recipe: RerankerRecipe,
  stop: Callable[[], int],
  log: Log,
) -> LanguageModel:
  """The model pretrained on the texts, in `folder`/model; made unless an earlier call did."""

  def make() -> dict[str, object]:
    shutil.rmtree(folder / "model", ignore_errors=True)
    common = _common(titles, prepared, recipe.most_titles)
    extra = [*map(line_end, common), *_PIECES]
    build_small(
      texts,
      folder / "model",
      vocabulary=recipe.words + len(extra),
      extra_tokens=extra,
      data_of=functools.partial(data_spans, tokens=frozenset(extra)),
      words=_words(texts, sorted(set(titles) - set(common))),
      chat=False,
      batch_size=recipe.reading_rows,
      row_tokens=recipe.reading_tokens,
      width=recipe.width,
      layers=recipe.layers,
      heads=recipe.heads,
      kv_heads=recipe.kv_heads,
      inner=3 * recipe.width,
      context=recipe.context,
      steps=recipe.reading_steps,
      learning_rate=recipe.reading_rate,
      stop=stop,
      log=log,
    )
    return {}

  inputs = runs.digest(dataclasses.asdict(recipe), texts, titles)
  outputs = ("model",)
  runs.stage(
    folder, name="reader", inputs=inputs, outputs=outputs, make=make, log=log, says_kept=False
  )
  return load_decoder(folder / "model")


def _common(titles: Sequence[str], prepared: Prepared, most: int) -> list[str]:
  """The titles with the most training ratings, in catalog order."""
  counts = np.bincount(prepared.train.item, minlength=len(titles))
  chosen = np.sort(np.argsort(-counts, kind="stable")[:most])
  return [titles[item] for item in chosen]


def _words(texts: Sequence[str], rare: Sequence[str]) -> list[str]:
  """Texts to learn tokens from: profiles, titles without a token of their own, and answers."""
  profiles = [text.split("\n", 2)[1] for text in texts if text.startswith(PROFILE)]
  answers = "\n".join((LIKED, DISLIKED, CANDIDATE, *YES_NO, *map(str, range(101))))
  return [*profiles, *rare, *[answers] * (1 + len(profiles))]
