"""Re-ranks the top items of a run, or of any tool's lists, with a language model.

  python -m launch.rerank --workdir=RUN                                (builtin model, label)
  python -m launch.rerank --workdir=RUN --strategy=all                 (compares all)
  python -m launch.rerank --workdir=RUN --llm=FOLDER --lora=ADAPTER --strategy=pointwise
  python -m launch.rerank --workdir=RUN --users=1,2 --top_n=5          (also prints their lists)
  python -m launch.rerank --candidates=lists.csv --dataset=ml-100k --fold=u1 --workdir=DIR

RUN is a folder of launch.train with a validation part (--valid_share=0.1). The weight of the
language model relative to the GAT is fitted on the validation ratings and may be 0, so the order is
unchanged if the model does not help. --llm=builtin trains a small model of the catalog on first
use. Before it starts, a line says how many tokens and minutes the model takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from launch.cli import (
  DATA,
  FLAGS,
  LANGUAGE_MODEL,
  RUN,
  TEXT,
  config_from_flags,
  data_label,
  define,
  path_flag,
  require_agreement,
  require_at_least,
  require_one_of,
  require_writable,
  run,
  say,
  workdir_from_flags,
)

if TYPE_CHECKING:
  from gatrec_jax.config.schema import Config
  from gatrec_jax.rerank.pipeline import Reranked, RerankSettings
  from gatrec_jax.rerank.sources import Source

OPTIONS = ("permutations", "form", "both_orders", "merge", "batch", "stride")

define(
  *DATA,
  *TEXT,
  *RUN,
  *LANGUAGE_MODEL,
  "strategy",
  "top_candidates",
  "candidates",
  *OPTIONS,
  "batch_size",
  "history",
  "fusion",
  "features",
  "by_segment",
  "valid_users",
  "minutes",
  "max_users",
  "measure_only",
  "diversity",
  "users",
  "top_n",
  "json_out",
  "markdown",
  llm="builtin",
)


def main() -> None:
  """Flags -> candidates and model -> re-ranked lists -> one table."""

  from gatrec_jax import runs
  from gatrec_jax.errors import InputError
  from gatrec_jax.rerank.strategies.registry import STRATEGIES
  from launch.cli.rerank_results import print_lists, print_strategies

  require_writable("json_out")
  config = config_from_flags()
  require_one_of("strategy", (*STRATEGIES, "all"))
  require_at_least("top_n", 1)
  if FLAGS.measure_only and FLAGS.users != ["all"]:
    raise InputError("writes no lists; leave out `users`", field="measure_only")
  if not FLAGS.users:
    raise InputError("give user ids, or all", field="users")
  settings = settings_from_flags()
  source = source_from_flags(config)
  require_agreement(source.config)
  found, model_name = reranked_by_strategy(source, settings)
  title = f"{data_label(source.config)} · top {source.candidates.top} of {source.name}"
  say()
  print_strategies(found, title=f"{title} · {model_name}", markdown=FLAGS.markdown)
  if FLAGS.users != ["all"]:
    first = next(iter(found.values()))
    print_lists(first, source.prepared, users=source.candidates.users, top_n=FLAGS.top_n)
  say("Lists and results: " + ", ".join(str(one.folder) for one in found.values()))
  if FLAGS.json_out:
    results = {name: one.results for name, one in found.items()}
    runs.write_json(path_flag("json_out"), results)


def settings_from_flags() -> RerankSettings:
  """The prompts' history, the fusion and the diversity. Raises InputError."""
  from gatrec_jax.rerank.pipeline import RerankSettings
  from launch.cli.language_models import history_lines

  return RerankSettings(
    **history_lines(FLAGS.history),
    fusion=FLAGS.fusion,
    features=tuple(FLAGS.features),
    by_segment=FLAGS.by_segment,
    diversity=FLAGS.diversity,
    valid_users=FLAGS.valid_users,
    minutes=FLAGS.minutes,
    measure_only=FLAGS.measure_only,
  )


def source_from_flags(config: Config) -> Source:
  """The candidates: the run's own, or those of --candidates. Raises InputError."""
  from gatrec_jax.rerank.sources import open_source
  from gatrec_jax.runs.log import CONSOLE

  source = open_source(
    workdir_from_flags(config),
    config=config,
    candidates=FLAGS.candidates,
    top=FLAGS.top_candidates,
    users=None if FLAGS.users == ["all"] else FLAGS.users,
    max_users=FLAGS.max_users,
    log=CONSOLE,
  )
  lists = source.candidates
  CONSOLE.info(f"rerank: the top {lists.top} of {source.name} for {len(lists.users)} users")
  return source


def reranked_by_strategy(
  source: Source, settings: RerankSettings
) -> tuple[dict[str, Reranked], str]:
  """Re-ranks by each strategy of --strategy. Returns: by strategy, and the model's name."""
  from gatrec_jax import runs
  from gatrec_jax.rerank.pipeline import rerank
  from gatrec_jax.rerank.strategies.registry import STRATEGIES, Options, make_strategy
  from gatrec_jax.runs.log import CONSOLE
  from launch.cli.language_models import open_model

  model, lora, model_hash = open_model(source)
  options = Options(**{name: FLAGS[name].value for name in OPTIONS})
  found: dict[str, Reranked] = {}
  with runs.locked(source.workdir):
    for name in STRATEGIES if FLAGS.strategy == ["all"] else FLAGS.strategy:
      found[name] = rerank(
        source,
        make_strategy(name, model, options=options, batch_size=FLAGS.batch_size, lora=lora),
        model_name=model.name,
        model_hash=model_hash,
        settings=settings,
        log=CONSOLE,
      )
  return found, model.name


if __name__ == "__main__":
  run(main, __doc__)
