"""Re-ranks the top candidates of a run, or of any tool's lists, with a language model:

  python -m launch.rerank --workdir=RUN                                  (builtin model, label)
  python -m launch.rerank --workdir=RUN --strategy=all                   (compares all six)
  python -m launch.rerank --workdir=RUN --llm=FOLDER --lora=ADAPTER --strategy=pointwise
  python -m launch.rerank --workdir=RUN --users=1,2 --top_n=5            (shows lists)
  python -m launch.rerank --candidates=lists.csv --dataset=ml-100k --fold=u1 --workdir=DIR

RUN is a folder of launch.train with a validation part (--valid_share=0.1): the weight of the
language model beside the GAT is learned there, 0 included, so that the order is the GAT's where the
model brings nothing. --llm=builtin builds a small model of the catalog on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from launch.cli import flags as common

if TYPE_CHECKING:
  from gatrec_jax.rerank.pipeline import Reranked

OPTIONS = ("permutations", "form", "both_orders", "merge", "batch", "stride")

common.define(
  *common.DATA,
  *common.TEXT,
  *common.RUN,
  "llm",
  "lora",
  "dtype",
  "quantize",
  "attention",
  "mesh",
  "strategy",
  "top_candidates",
  "candidates",
  *OPTIONS,
  "batch_size",
  "history",
  "fusion",
  "features",
  "by_segment",
  "diversity",
  "users",
  "top_n",
  "json_out",
  "markdown",
  llm="builtin",
)


def main() -> None:
  """Flags -> candidates and model -> one table."""
  import pathlib

  from gatrec_jax import runs
  from gatrec_jax.errors import InputError
  from gatrec_jax.rerank.pipeline import RerankSettings, rerank
  from gatrec_jax.rerank.sources import open_source
  from gatrec_jax.rerank.strategies.registry import STRATEGIES, Options, make_strategy
  from gatrec_jax.runs.log import CONSOLE
  from launch.cli.language_models import open_model
  from launch.cli.rerank_results import print_comparison, print_lists

  flags = common.FLAGS
  common.require_writable("json_out")
  config = common.config_from_flags()
  names = list(STRATEGIES) if flags["strategy"].value == ["all"] else flags["strategy"].value
  if unknown := [name for name in names if name not in STRATEGIES]:
    raise InputError(f"--strategy={unknown[0]}: not one of {', '.join(STRATEGIES)}, all")
  if flags["top_n"].value < 1:
    raise InputError(f"--top_n={flags['top_n'].value}: must be at least 1")
  if not flags["users"].value:
    raise InputError("--users: give user ids, or all")
  settings = RerankSettings(
    liked=flags["history"].value,
    disliked=flags["history"].value // 3,
    fusion=flags["fusion"].value,
    features=tuple(flags["features"].value),
    by_segment=flags["by_segment"].value,
    diversity=flags["diversity"].value,
  )
  workdir = common.workdir_from_flags(config)
  source = open_source(
    workdir,
    config=config,
    candidates=flags["candidates"].value,
    top=flags["top_candidates"].value,
    users=None if flags["users"].value == ["all"] else flags["users"].value,
    log=CONSOLE,
  )
  common.require_agreement(source.config)
  lists = source.candidates
  CONSOLE.info(f"rerank: the top {lists.top} of {source.name} for {len(lists.users)} users")
  model, lora, model_hash = open_model(source)
  found: dict[str, Reranked] = {}
  with runs.locked(source.workdir):
    for name in names:
      strategy = make_strategy(
        name,
        model,
        options=Options(**{option: flags[option].value for option in OPTIONS}),
        batch_size=flags["batch_size"].value,
        lora=lora,
      )
      found[name] = rerank(
        source,
        strategy,
        model_name=model.name,
        model_hash=model_hash,
        settings=settings,
        log=CONSOLE,
      )
  title = f"{common.label(source.config)} · top {source.candidates.top} of {source.name}"
  print()
  print_comparison(found, title=f"{title} · {model.name}", markdown=flags["markdown"].value)
  if flags["users"].value != ["all"]:
    print_lists(
      next(iter(found.values())),
      source.prepared,
      users=source.candidates.users,
      top_n=flags["top_n"].value,
    )
  print("Lists and results: " + ", ".join(str(one.folder) for one in found.values()))
  if flags["json_out"].value:
    results = {name: one.results for name, one in found.items()}
    runs.write_json(pathlib.Path(flags["json_out"].value), results)


if __name__ == "__main__":
  common.run(main, __doc__)
