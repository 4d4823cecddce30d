"""What the programs share: the table of flags, flags -> config, errors -> one line."""

from __future__ import annotations

import logging
import os
import pathlib
import sys
import textwrap
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

try:
  from absl import flags
except ModuleNotFoundError:
  sys.exit(
    "error: the packages are not installed in this python; run bash launch/quickstart.sh once, "
    "then source .venv/bin/activate"
  )

if TYPE_CHECKING:
  from gatrec_jax.config.schema import Config

FLAGS = flags.FLAGS

# name -> (kind, default, help). A default of None means "as the preset says".
_TABLE: dict[str, tuple[str, Any, str]] = {
  "dataset": (
    "string",
    None,
    "demo, ml-100k, ml-1m, ml-10m, ml-20m, ml-25m, ml-32m, "
    "ml-latest-small, ml-latest, or a path to your own CSV/TSV/Parquet/JSONL (demo)",
  ),
  "data_dir": (
    "string",
    None,
    "folder with archives or unpacked folders ($GATREC_DATA, then the user's cache)",
  ),
  "user_column": ("string", None, "user id column of your own table (user_id)"),
  "item_column": ("string", None, "item id column (item_id)"),
  "rating_column": ("string", None, "rating column; without one, feedback is implicit (rating)"),
  "time_column": ("string", None, "time column, epoch seconds or ISO dates (timestamp)"),
  "max_bad_share": ("float", None, "largest share of unreadable rows (0.01)"),
  "item_metadata": ("string", None, "CSV/Parquet/JSONL with item_id and any text fields"),
  "item_profiles": ("string", None, "JSONL with item_id and profile; else built without an LLM"),
  "user_profiles": (
    "string",
    None,
    "JSONL with user_id and profile; else built from training ratings",
  ),
  "max_missing_share": ("float", None, "largest share of users or items without text (0.5)"),
  "fold": ("string", None, "u1 … u5, ua, ub of ml-100k; the part's number with --split=kfold"),
  "split": (
    "string",
    None,
    "random, per_user, kfold, temporal, leave_last, cold_users, "
    "cold_items; or a whole protocol: recbole_a, recbole_b (random)",
  ),
  "folds": (
    "list",
    [],
    "shipped folds of ml-100k (or parts of --split=kfold), comma-separated; "
    "all are trained and tested",
  ),
  "split_seeds": (
    "list",
    [],
    "several seeds of the split, each a part of its own, instead of --split_seed",
  ),
  "models": (
    "list",
    [],
    "presets to train and compare, comma-separated, each with settings behind "
    "colons if any: ease:l2=500,lightgcn:layers=3",
  ),
  "seeds": ("list", ["0"], "seeds of the training, comma-separated"),
  "reference": ("string", None, "label of the model that the others are compared with (the first)"),
  "refit": (
    "boolean",
    True,
    "every model ends trained on training and validation ratings; "
    "protocols by name never do (compare: true, train: false)",
  ),
  "runs": ("list", [], "run folders to compare, comma-separated, instead of --models"),
  "metrics": ("list", ["ndcg@10", "recall@20"], "of the table; the first one sorts it"),
  "below": (
    "list",
    [],
    "numbers, comma-separated: a table more for each, of the users with fewer "
    "training ratings, as 5,10,20",
  ),
  "split_seed": ("integer", None, "seed of the split (0)"),
  "test_share": ("float", None, "share held out for the test (0.2)"),
  "valid_share": (
    "float",
    None,
    "share of the training part set aside for choosing (0.1; 0 "
    "where nothing is chosen: preset paper, models without epochs)",
  ),
  "valid_seed": ("integer", None, "seed of the validation part (0)"),
  "positive_threshold": ("float", None, "ratings at or above it are positives (4)"),
  "negative_threshold": ("float", None, "ratings at or below it are explicit negatives (2)"),
  "preset": ("string", "best", "best, paper, tiny, or the name of a --model"),
  "model": (
    "string",
    None,
    "a peer instead of the GAT: popularity, item_knn, ease, "
    "ease_rated, slim, admm_slim, ials, content_knn, text_ridge, bpr_mf, lightgcn, "
    "lightgcn_softmax, xsimgcl, multi_vae",
  ),
  "set": ("multi_string", [], "field=value, any field of gatrec_jax/config; may be repeated"),
  "search": (
    "float",
    None,
    "search settings on validation first; may cost so many full trainings, such as 16",
  ),
  "search_space": (
    "multi_string",
    [],
    "field=low:high, field=low:high:log (or :linear) or "
    "field=a|b to search another range; field=value to fix it; may be repeated",
  ),
  "search_seed": ("integer", 0, "of the settings that a search draws"),
  "encoder": ("string", None, "folder, hub id, minilm, lexical, auto (auto)"),
  "encoder_max_tokens": ("integer", None, "longer texts are cut there (256)"),
  "encoder_prompt": ("string", None, "an instruction put before every text (the encoder's own)"),
  "seed": ("integer", None, "of parameters, negatives, dropout and drawn tokens (0)"),
  "workdir": (
    "string",
    None,
    "the run folder (runs/<dataset>[-<fold or split>]-<preset>-<seed>; "
    "quickstart: runs/quickstart-<encoder>-<seed>; compare: runs/compare-<dataset>-"
    "<folds or split>, a run folder PART/LABEL-SEED for each)",
  ),
  "protocol": ("string", None, "full, judged, both (full)"),
  "ks": ("string", None, "cut-offs (5,10,20,30,40,50)"),
  "bootstrap": ("integer", None, "resamples of users behind the intervals (1000; compare: 10000)"),
  "evaluate_memory_mb": ("integer", None, "memory bound of ranking (512)"),
  "recommendations": (
    "string",
    None,
    "CSV/Parquet of user_id, item_id, rank made by any tool; without it, the run's own",
  ),
  "json_out": ("string", None, "file for the numbers that the table shows"),
  "trace": (
    "string",
    None,
    "folder for a trace by JAX's profiler (for TensorBoard, XProf, "
    "Perfetto) of a block of epochs, or of the evaluation; the five operations that took "
    "most are printed",
  ),
  "users": ("list", ["all"], "user ids, comma-separated, or all"),
  "liked": ("list", [], "item ids that a new user likes, comma-separated, instead of --users"),
  "items": ("list", [], "item ids to explain, comma-separated, instead of the users' lists"),
  "style": (
    "string",
    "short",
    "of reasons: short, detailed, counterfactual (what would have to be different)",
  ),
  "audit": ("integer", 0, "how many reasons to measure instead of showing any"),
  "retrain": (
    "integer",
    0,
    "of an audit: train the model again without what a reason of so many "
    "users cites, and without as many random ratings",
  ),
  "prefilter": (
    "integer",
    0,
    "0 takes every rating of a user out in turn to see what counts; 12 "
    "only the twelve for each item that the gradient puts first: quicker for paper",
  ),
  "explain": ("boolean", False, "print a reason below each item"),
  "disliked": ("list", [], "item ids that the new user dislikes"),
  "top_n": ("integer", 10, "length of the lists"),
  "new_ratings": (
    "string",
    None,
    "CSV, TSV, Parquet or JSONL of ratings that came after training, "
    "of known or new users and items, in the columns of the run's own table",
  ),
  "new_items": (
    "string",
    None,
    "table of items that came after training, in the form of "
    "--item_metadata: their texts speak for them until they have ratings",
  ),
  "exclude_seen": ("boolean", True, "leave out what the user is known to have rated"),
  "out": ("string", None, "file for the lists: .parquet, .csv or .jsonl; for reasons .jsonl"),
  "export_embeddings": ("string", None, "folder for users.npy, items.npy and their ids"),
  "llm": (
    "string",
    None,
    "folder or hub id of a decoder (llama, mistral, qwen2, qwen3, smollm3, "
    "gemma2, gemma3). Where candidates are re-ranked or reasons written also builtin, a "
    "small model made on first use, and none",
  ),
  "lora": ("string", None, "folder of a LoRA adapter (PEFT's format) for that model"),
  "dtype": ("string", "float32", "float32 or bfloat16, of weights and arithmetic"),
  "quantize": ("string", "none", "int8 keeps the matrices in 8 bits; none"),
  "attention": ("string", "auto", "of prompts: auto, xla, cudnn, pallas"),
  "mesh": (
    "string",
    "1x1",
    "devices as data x model, or data x graph x model: 2x4 cuts batches in "
    "2 and matrices in 4; in launch.train 1x8x1 cuts edges and node tables in 8",
  ),
  "coordinator": (
    "string",
    None,
    "host:port of process 0 of several, or auto to take everything "
    "from the environment (Slurm, Cloud TPU, …)",
  ),
  "num_processes": ("integer", None, "of --coordinator: how many there are"),
  "process_id": ("integer", None, "of --coordinator: which this is, from 0"),
  "prompt": ("string", None, "the text to continue; empty for the bare BOS token"),
  "prompts_file": (
    "string",
    None,
    "one prompt a line, an empty line being an empty prompt; or "
    ".jsonl with a prompt or messages a line",
  ),
  "interactive": ("boolean", False, "ask for prompt after prompt; with a chat template, converse"),
  "chat": (
    "string",
    "auto",
    "whether prompts are messages of a user, put through the chat "
    "template: true, false, auto (where the folder has one)",
  ),
  "system": ("string", None, "system message of a chat"),
  "max_tokens": ("integer", 128, "new tokens at most, for each prompt"),
  "temperature": ("float", 0.0, "0 takes the likeliest token"),
  "top_k": ("integer", 0, "draw from so many of the likeliest tokens; 0 for all"),
  "top_p": ("float", 1.0, "draw from the likeliest tokens that together have this probability"),
  "min_p": ("float", 0.0, "draw from tokens with this share of the likeliest one's probability"),
  "repetition_penalty": ("float", 1.0, "above 1 makes tokens that are there already less likely"),
  "stop": ("multi_string", [], "an answer ends before this text; may be repeated"),
  "choice": ("multi_string", [], "the answer is this text or one of the others; repeat it"),
  "schema": (
    "string",
    None,
    "JSON schema file; the answer is JSON that fits it (objects, strings, "
    "enums, bounded integers, booleans, arrays with maxItems)",
  ),
  "batch_size": ("integer", 8, "prompts side by side"),
  "truncate": ("string", "error", "prompts longer than the context: error, or cut from the left"),
  "suite": (
    "string",
    "lm",
    "what to measure: attention, train, eval, embed, lm, rerank, scale, "
    "or all of these; fusion, statistics, sweep, anchors",
  ),
  "compare": (
    "string",
    None,
    "torch measures PyTorch, PyTorch Geometric or transformers too, on the same inputs",
  ),
  "peer_python": ("string", None, "a Python that has torch and transformers, to measure them too"),
  "random_shape": ("string", "0.5b", "without --llm, of the random weights: 0.5b, tiny"),
  "prompt_tokens": ("integer", 512, "random ids in a prompt"),
  "batch_sizes": ("list", ["1", "8"], "prompts side by side, comma-separated"),
  "continuations": ("integer", 20, "how many follow one prompt when they are scored"),
  "repeats": ("integer", 3, "measured runs; their median counts"),
  "markdown": ("boolean", False, "print the table as Markdown too"),
  "strategy": (
    "list",
    ["label"],
    "how the language model is asked, one or several of label, "
    "pointwise, listwise, pairwise, batchwise, relevancy; or all",
  ),
  "top_candidates": ("integer", 20, "how many of the best items are re-ranked"),
  "candidates": (
    "string",
    None,
    "CSV/Parquet of user_id, item_id, rank made by any tool, to "
    "re-rank instead of the run's own lists",
  ),
  "permutations": (
    "integer",
    2,
    "orders of the candidates that label averages over where their "
    "labels are letters; builtin's are titles, without any order",
  ),
  "form": ("string", "bst", "of pairwise: bst (a binary search tree) or all (all pairs)"),
  "both_orders": ("boolean", True, "pairwise asks each pair in both orders"),
  "batch": ("integer", 5, "candidates of a batch of batchwise and relevancy"),
  "stride": ("integer", 3, "places between two of these batches; less than a batch, they overlap"),
  "merge": ("string", "borda", "of batchwise: borda or trueskill"),
  "history": (
    "integer",
    30,
    "liked titles that a prompt tells of a user, and a third as many disliked ones",
  ),
  "fusion": (
    "string",
    "linear",
    "how scores are put together: linear, zscore, reciprocal, or auto "
    "for the best of them by cross-fitting",
  ),
  "features": ("list", [], "fused too: popularity, text, recency"),
  "by_segment": (
    "boolean",
    False,
    "weights of their own for users with few and many ratings, where validation supports them",
  ),
  "diversity": ("float", 1.0, "below 1, MMR puts different items forward"),
  "out_of_fold": (
    "integer",
    4,
    "parts of the training ratings, each predicted by a GAT without it",
  ),
  "tune": (
    "multi_string",
    [],
    "field=value of fine-tuning, such as steps=500, lora_rank=16, "
    "learning_rate=1e-4, mode=full, batch_size=8; may be repeated",
  ),
  "write": (
    "list",
    None,
    "what to write: items, users or both (both; users where --item_profiles gives the items)",
  ),
  "profile_form": (
    "string",
    "unified",
    "of users' profiles: unified (the sections of items' profiles) or summary (one paragraph)",
  ),
}

DATA = (
  "dataset",
  "data_dir",
  "user_column",
  "item_column",
  "rating_column",
  "time_column",
  "max_bad_share",
  "item_metadata",
  "fold",
  "split",
  "split_seed",
  "test_share",
  "valid_share",
  "valid_seed",
  "positive_threshold",
  "negative_threshold",
)
TEXT = (
  "item_profiles",
  "user_profiles",
  "max_missing_share",
  "encoder",
  "encoder_max_tokens",
  "encoder_prompt",
)
_OF_LM = ("attention",)  # flags of language models that a field of the GAT is called like
RUN = ("preset", "model", "set", "seed", "workdir")
EVALUATE = ("protocol", "ks", "bootstrap", "evaluate_memory_mb")


def define(*names: str, **defaults: str) -> None:
  """Defines the named flags of the table for this program, some with defaults of its own."""
  for name in names:
    kind, default, text = _TABLE[name]
    getattr(flags, f"DEFINE_{kind}")(name, defaults.get(name, default), text)


def run(main: Callable[[], None], doc: str, argv: Sequence[str] | None = None) -> None:
  """Parses the flags, calls `main`, and turns what users can mend into one line.

  Exit codes: 0 done, 1 bad input (or the machine: disk full, no memory), 2 wrong usage, 128 + the
  signal's number when a signal stopped training after it was saved.
  """
  args = list(sys.argv if argv is None else argv)
  if any(a in ("--help", "-h", "-help") for a in args[1:]):
    try:
      print(_help(doc), flush=True)
    except BrokenPipeError:  # of `--help | head`
      _close_output()
    sys.exit(0)
  try:
    rest = FLAGS(args)[1:]
  except flags.Error as error:
    _fail(f"{error} (--help lists the flags)", 2)
  if rest:
    _fail(f"'{rest[0]}' is not a flag; write --name=value (--help lists the flags)", 2)
  try:
    from gatrec_jax.errors import InputError, Interrupted
  except KeyboardInterrupt:
    _fail("stopped", 130)
  _keep_compiled_programs()
  logging.basicConfig(format="warning: %(message)s", level=logging.WARNING)
  logging.captureWarnings(True)
  warnings.formatwarning = lambda message, *_: str(message)
  # Orbax logs whole tracebacks; what users can mend is told in one line.
  logging.getLogger("absl").setLevel(logging.CRITICAL)
  # Else transformers tells every user that PyTorch is missing, which is as it should be.
  os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
  try:
    main()
  except InputError as error:
    _fail(error.named(_flag_of), 1)
  except Interrupted as error:
    print(error, file=sys.stderr)
    sys.exit(128 + error.signum)
  except KeyboardInterrupt:
    _fail("stopped; what is done is kept, and the same command goes on from there", 130)
  except BrokenPipeError:
    _close_output()
    sys.exit(0)
  except OSError as error:
    _fail(f"{error.filename or 'files'}: {error.strerror or error}", 1)
  except MemoryError:
    _fail("out of memory; lower --set batch_size=… or --evaluate_memory_mb", 1)
  except RuntimeError as error:
    # JAX's own error for a device without room; others are ours to mend and keep their traceback.
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    _fail(f"out of device memory: {str(error).splitlines()[0]}", 1)


def _flag_of(name: str) -> str | None:
  """The flag that gives an argument of the library, or None where there is none."""
  from gatrec_jax.config.overrides import is_field

  if name in FLAGS and name in _TABLE:
    return f"--{name}"
  return f"--set {name}" if is_field(name) else None


def _close_output() -> None:
  """Nobody reads on: what is still to be flushed goes nowhere."""
  os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, code: int) -> None:
  print(f"error: {' '.join(message.split())}", file=sys.stderr)
  sys.exit(code)


def _help(doc: str) -> str:
  lines = [doc.strip(), "", "Flags (default in brackets):"]
  for name in sorted(n for n in FLAGS if n in _TABLE):
    text, default = _TABLE[name][2], FLAGS[name].default
    if default not in (None, []):
      shown = f" ({','.join(default) if isinstance(default, list) else default})"
      text = text.removesuffix(shown) + shown
    lines += textwrap.wrap(
      f"--{name}: {text}", width=98, initial_indent="  ", subsequent_indent="      "
    )
  return "\n".join(lines)


def config_from_flags() -> Config:
  """The preset with everything that was given on the command line. Raises InputError."""
  from gatrec_jax.config.overrides import field_types, parse_assignments, with_fields

  preset = preset_from_flags()
  known = field_types(preset)
  values: dict[str, Any] = {}
  for name in FLAGS:
    if name in _TABLE and name in known and name not in _OF_LM and FLAGS[name].present:
      values[name] = FLAGS[name].value
  values |= parse_assignments(FLAGS["set"].value if "set" in FLAGS else [])
  return with_fields(preset, values)


def preset_from_flags() -> Config:
  """What --preset or --model names. Raises InputError where it is unknown, or both differ."""
  from gatrec_jax.config.presets import get_preset
  from gatrec_jax.errors import InputError

  preset = FLAGS["preset"].value if "preset" in FLAGS else "best"
  model = FLAGS["model"].value if "model" in FLAGS else None
  if model and FLAGS["preset"].present and model != preset:
    raise InputError(f"--preset={preset} and --model={model}: give one of them")
  return get_preset(model, field="model") if model else get_preset(preset)


def require_agreement(config: Config) -> None:
  """For programs that open a run: settings given beside --workdir must be those of the run.

  Raises:
    InputError: a flag says something else than the run's configuration.
  """
  from gatrec_jax.config.overrides import parse_assignments, setting_of, with_fields
  from gatrec_jax.errors import InputError

  given = {
    name: FLAGS[name].value
    for name in DATA + TEXT + ("seed",)
    if name != "data_dir" and name in FLAGS and FLAGS[name].present
  }
  given |= parse_assignments(FLAGS["set"].value if "set" in FLAGS else [])
  asked = with_fields(config, given)
  for name in given:
    wanted, own = (setting_of(one, name) for one in (asked, config))
    if wanted != own:
      raise InputError(f"--{name}={wanted}: the run was made with {name}={own!r}; leave it out")


def workdir_from_flags(config: Config) -> pathlib.Path:
  """`--workdir`, else runs/<dataset>-<preset>-<seed>, with fold or split behind the data set."""
  if FLAGS["workdir"].value:
    return pathlib.Path(FLAGS["workdir"].value)
  data = config.data
  part = data.fold or (data.split if data.split != "random" else "")
  name = pathlib.Path(data.dataset).stem + (f"-{part}" if part else "")
  return pathlib.Path("runs") / f"{name}-{config.preset}-{config.train.seed}"


def label(config: Config) -> str:
  """The data of a run, for titles: "ml-100k u1", "mine.csv kfold 2"."""
  data = config.data
  kind = data.split if data.split != "random" and (not data.fold or data.split == "kfold") else ""
  return " ".join(filter(None, (pathlib.Path(data.dataset).name, kind, data.fold)))


def whole_numbers(flag: str) -> list[int]:
  """The different whole numbers that a list flag holds. Raises InputError for anything else."""
  from gatrec_jax.errors import InputError

  texts = FLAGS[flag].value
  try:
    numbers = [int(text) for text in texts]
  except ValueError:
    numbers = []
  if len(set(numbers)) < len(texts):
    raise InputError(f"--{flag}={','.join(texts)}: different whole numbers, as 0,1,2")
  return numbers


def require_writable(flag: str) -> None:
  """Before the work: raises InputError where the file that the flag names could not be written."""
  import pathlib

  from gatrec_jax.errors import InputError

  value = FLAGS[flag].value
  if not value:
    return
  path = pathlib.Path(value)
  if path.is_dir():
    raise InputError(f"--{flag}={value}: is a folder; name a file")
  if not path.absolute().parent.is_dir() or not os.access(path.absolute().parent, os.W_OK):
    raise InputError(f"--{flag}={value}: its folder is not there, or cannot be written to")


def _keep_compiled_programs() -> None:
  """Compiled programs go to the user's cache, so that a second start does not compile again.

  Small ones too: a run has some fifty, which together take seconds. $JAX_COMPILATION_CACHE_DIR
  names another folder. Where the cache cannot be written to, nothing is kept.
  """
  import contextlib

  import jax

  from gatrec_jax.runs.folder import cache_dir

  if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
    return
  folder = cache_dir() / "compiled"
  with contextlib.suppress(OSError):
    folder.mkdir(parents=True, exist_ok=True)
    if os.access(folder, os.W_OK):  # else JAX warns of every program that it cannot keep
      jax.config.update("jax_compilation_cache_dir", str(folder))
      jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
