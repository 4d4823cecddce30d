"""Every flag of every program, by topic: its kind, name, help and default.

A program defines the flags that it needs with `launch.cli.define`; a flag means the same wherever
it is defined. A default of None means that the preset decides; help texts then give the usual
value in parentheses.
"""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Flag:
  """A flag.

  Attributes:
    name: without dashes. help: one sentence.
    kind: how absl reads it (`string`, `integer`, `float`, `boolean`, `list` of comma-separated
      values, `multi_string` for flags that may be repeated).
    default: None = not set.
  """

  name: str
  help: str
  kind: str
  default: Any = None


def text(name: str, help: str, default: str | None = None) -> Flag:
  return Flag(name, help, "string", default)


def whole(name: str, help: str, default: int | None = None) -> Flag:
  return Flag(name, help, "integer", default)


def number(name: str, help: str, default: float | None = None) -> Flag:
  return Flag(name, help, "float", default)


def switch(name: str, help: str, default: bool = False) -> Flag:
  return Flag(name, help, "boolean", default)


def listed(name: str, help: str, default: tuple[str, ...] | None = ()) -> Flag:
  return Flag(name, help, "list", None if default is None else list(default))


def repeated(name: str, help: str) -> Flag:
  return Flag(name, help, "multi_string", [])


DATA = (
  text(
    "dataset",
    "demo, ml-100k, ml-1m, ml-10m, ml-20m, ml-25m, ml-32m, ml-latest-small, ml-latest, or the path "
    "of your own table: CSV, TSV, Parquet, JSONL, RecBole's .inter, also compressed, or a folder "
    "of Parquet files (demo)",
  ),
  text("train_file", "instead of --dataset: the training part of a table that is split into files"),
  text("valid_file", "its validation part, if there is one"),
  text("test_file", "its test part; a line may also be a user and all their items, as LightGCN's"),
  text("data_dir", "folder with MovieLens archives ($GATREC_DATA, then the user's cache)"),
  text("user_column", "user id column of your own table (user_id)"),
  text("item_column", "item id column of your own table (item_id)"),
  text("rating_column", "column of ratings or counts; if absent, feedback is implicit (rating)"),
  text("time_column", "time column: numbers since 1970, or dates in many styles (timestamp)"),
  text("event_column", "column of events such as view and purchase (event, action, behavior, …)"),
  text(
    "columns", "names of the columns, comma-separated, of a table that does not begin with them"
  ),
  text("separator", "between fields, such as ';' or tab (found out)"),
  text("encoding", "of files that are not UTF-8, such as latin-1 or utf-16"),
  text("time_format", "of dates, such as %d/%m/%Y (found out)"),
  text("feedback", "what values are: auto, stars, implicit, counts or events (auto)"),
  text("zero_means", "a 0 beside other ratings: unrated or rating (unrated)"),
  text(
    "duplicates",
    "the value of several rows of one user and item: auto, last, first, max, strongest, sum, count "
    "or mean "
    "(auto: the last of ratings, the sum of counts, the strongest of events)",
  ),
  text("event_weights", "view:1,cart:3,purchase:5 for the events of --event_column"),
  number("max_bad_share", "largest tolerated share of unreadable rows (0.01)"),
  text("item_metadata", "CSV, Parquet or JSONL table with ids of items and any text fields"),
  text("item_noun", "what an item is called in texts: film, book, product, … (from the data)"),
)
SPLIT = (
  text("fold", "u1 to u5, ua or ub of ml-100k; with --split=kfold the number of the part"),
  text(
    "split",
    "random, per_user, kfold, temporal, leave_last, next_item (each user's last rating; the one "
    "before it is validation), cold_users, cold_items, none (train on all ratings, test nothing), "
    "or a complete protocol: recbole_a, recbole_b (random)",
  ),
  whole("split_seed", "seed of the split (0)"),
  number("test_share", "share held out for testing (0.2)"),
  number(
    "valid_share",
    "share of the training part held out for model selection, chosen as the test part is (0.1; 0 "
    "where nothing is selected: preset paper, models without epochs)",
  ),
  whole("valid_seed", "seed of the validation part (0)"),
  number("positive_threshold", "ratings at or above this are positives (4 of 5, 8 of 10)"),
  number("negative_threshold", "ratings at or below this are explicit negatives (2 of 5, 4 of 10)"),
)
TEXT = (
  text("item_profiles", "JSONL with item_id and profile (built without an LLM)"),
  text("user_profiles", "JSONL with user_id and profile (built from training ratings)"),
  number("max_missing_share", "largest tolerated share of users or items without text (0.5)"),
  text(
    "encoder",
    "text encoder: a folder, a hub id, minilm, lexical, auto, or a decoder as for --llm (auto)",
  ),
  whole("encoder_max_tokens", "texts are truncated to this many tokens (256)"),
  text("encoder_prompt", "instruction placed before every text (the encoder's own)"),
  text(
    "encoder_pooling", "mean or last: vector of a text from its tokens (the encoder's own, or mean)"
  ),
)
RUN = (
  text("preset", "best, paper, tiny, or any name that --model takes", "best"),
  text(
    "model",
    "a baseline instead of the GAT: popularity, item_knn, ease, ease_rated, gf_cf, slim, "
    "admm_slim, ials, content_knn, text_ridge, bpr_mf, lightgcn, lightgcn_softmax, xsimgcl, "
    "multi_vae, sasrec, gru4rec, markov, recent_popularity",
  ),
  repeated("set", "field=value for any field of the configuration; repeatable"),
  whole("seed", "seed of parameters, negatives, dropout and sampled tokens (0)"),
  text(
    "workdir",
    "the run folder (runs/<dataset>[-<fold or split>]-<preset>-<seed>; compare: "
    "runs/compare-<dataset>-<folds or split>; quickstart: runs/quickstart-<encoder>-<seed>)",
  ),
  switch(
    "verify",
    "first check every stored file of the run folder, however large; otherwise files of 64 MiB and "
    "more are checked only where their size or time of change differ",
  ),
  switch(
    "refit",
    "after choosing the number of epochs, train on training and validation ratings together; "
    "the RecBole protocols never do",
    True,
  ),
  number(
    "memory_limit",
    "GiB that the run may take; what is planned to need more is refused, with settings that would "
    "fit (three quarters of what the machine or its cgroup has)",
  ),
  switch("plan_only", "print the stages with their memory, work and time, and do nothing"),
  text("json_out", "also write the reported numbers to this JSON file"),
  switch("markdown", "also print the table as Markdown"),
  text(
    "trace",
    "folder for a JAX profiler trace of some epochs, or of the evaluation (for XProf, TensorBoard, "
    "Perfetto); the five slowest operations are printed",
  ),
)
SEARCH = (
  number("search", "search hyperparameters first, with a budget of this many full trainings"),
  repeated(
    "search_space",
    "field=low:high, field=low:high:log, field=low:high:linear or field=a|b searches that range; "
    "field=value fixes the field; repeatable",
  ),
  whole("search_seed", "seed of the sampled hyperparameters", 0),
)
DEVICES = (
  text(
    "mesh",
    "devices as DATAxMODEL or DATAxGRAPHxMODEL: 2x4 shards batches over 2 devices and matrices "
    "over 4; 1x8x1 (train only) shards edges and node tables over 8",
    "1x1",
  ),
  text("coordinator", "HOST:PORT of process 0, or auto to detect Slurm, Cloud TPU and others"),
  whole("num_processes", "number of processes that share --coordinator"),
  whole("process_id", "number of this process, from 0"),
)
EVALUATE = (
  text("protocol", "full, judged or both (full)"),
  text("ks", "cut-offs, comma-separated (5,10,20,30,40,50)"),
  whole("bootstrap", "resamples of users for the intervals (1000; compare: 10000)"),
  whole("evaluate_memory_mb", "memory limit of ranking, in MiB (512)"),
  text(
    "recommendations",
    "CSV, Parquet or JSONL of user_id, item_id, rank from any tool (the run's own); --workdir or "
    "--dataset says whose data, unless the file does",
  ),
)
COMPARE = (
  listed(
    "models",
    "presets to train and compare, comma-separated, each with optional settings after colons: "
    "ease:l2=500,lightgcn:layers=3",
  ),
  listed(
    "runs",
    "finished run folders to compare, comma-separated, instead of --models; a name with a comma "
    "stands in double quotes",
  ),
  listed("components", "components to leave out one by one, such as layers,text (all of them)"),
  listed("folds", "ml-100k folds, or parts of --split=kfold; each model is trained on every one"),
  listed("split_seeds", "several split seeds instead of --split_seed; each one is a part"),
  listed("seeds", "training seeds, comma-separated", ("0",)),
  text("reference", "label of the model that the others are compared with (the first)"),
  listed(
    "metrics",
    "metrics of the table; the first one sorts it (ndcg@10,recall@20, or at the first of --ks)",
  ),
  listed("below", "5,10 adds two tables: users with fewer than 5, and than 10, training ratings"),
)
SERVE = (
  listed("users", "user ids, comma-separated, or all", ("all",)),
  listed("liked", "item ids that a new user likes, instead of --users"),
  listed("disliked", "item ids that the new user of --liked dislikes"),
  whole("top_n", "length of each list", 10),
  switch("exclude_seen", "omit items that the user has already rated", True),
  repeated(
    "only",
    "recommend only items with field=value (genres=Comedy|Drama), with a number in a range "
    "(year=1990..1999, age=..5 for years before the newest item), or in this file of item ids; if "
    "repeated, all must hold",
  ),
  repeated("exclude", "omit such items; repeatable"),
  text(
    "candidates",
    "CSV, Parquet or JSONL of user_id, item_id and, for re-ranking, rank: the items to choose from "
    "for each user (all items; re-ranking: the run's own lists)",
  ),
  text("similar_to", "item id: print the items most similar to it, and why"),
  text(
    "new_ratings",
    "table of ratings made after training, by known or new users of known or new items, with the "
    "columns of the run's own table",
  ),
  text(
    "new_items",
    "table of items added after training, with the columns of --item_metadata; until they have "
    "ratings they are ranked by their text",
  ),
  text("out", "write lists to this .parquet, .csv or .jsonl file, or reasons to this .jsonl file"),
  text(
    "export_embeddings",
    "folder for users.npy, items.npy and their ids, whose inner products are the scores",
  ),
)
EXPLAIN = (
  switch("explain", "print a reason below each item"),
  listed(
    "items", "item ids: to explain, instead of the users' own lists, or to write profiles of (all)"
  ),
  text(
    "style", "kind of reason: short, detailed or counterfactual (what would change it)", "short"
  ),
  whole(
    "audit",
    "measure this many reasons instead of printing any, or this many written profiles of items",
    0,
  ),
  whole(
    "retrain",
    "with --audit: also retrain the model without the ratings that the reasons of this many users "
    "cite, and without as many random ones",
    0,
  ),
  whole(
    "prefilter",
    "0 removes every rating of a user in turn; 12 tries only the 12 ratings per item that the "
    "gradient ranks first, which is faster for paper",
    0,
  ),
)
LANGUAGE_MODEL = (
  text(
    "llm",
    "decoder (llama, mistral, qwen2, qwen3, smollm3, gemma2, gemma3): a folder, a GGUF file, a hub "
    "id, ollama:NAME, or a name such as smollm2, which is downloaded on first use; for "
    "re-ranking and reasons also builtin (a small model trained on first use) and none",
  ),
  text("lora", "folder of a LoRA adapter in PEFT's format"),
  text("dtype", "float32 or bfloat16, for weights and arithmetic", "float32"),
  text(
    "quantize",
    "none; keep, for the matrices of a GGUF file to stay in its 4 to 8 bits; or int8, to round "
    "them to 8 bits",
    "none",
  ),
  text("attention", "attention over prompts: auto, xla, cudnn or pallas", "auto"),
  whole("batch_size", "prompts per batch", 8),
)
GENERATE = (
  text("prompt", "the text to continue; empty for the BOS token alone"),
  text("prompts_file", "text file with one prompt per line, or .jsonl with prompt or messages"),
  switch(
    "interactive", "read prompts from the terminal; with a chat template, hold a conversation"
  ),
  text("chat", "apply the chat template: true, false, or auto (if the folder has one)", "auto"),
  text("system", "system message of the chat"),
  whole("max_tokens", "maximum number of new tokens per prompt", 128),
  number("temperature", "0 picks the most likely token", 0.0),
  whole("top_k", "sample from this many of the most likely tokens; 0 for all", 0),
  number("top_p", "sample from the smallest set of tokens with this total probability", 1.0),
  number("min_p", "sample from tokens at least this likely relative to the most likely one", 0.0),
  number("repetition_penalty", "values above 1 make tokens that already occurred less likely", 1.0),
  whole("no_repeat", "no sequence of so many tokens occurs twice in an answer; 0 for any", 0),
  repeated("stop", "end the answer before this text; repeatable"),
  repeated("choice", "restrict the answer to this text or the other choices; repeatable"),
  text("schema", "JSON schema file that the answer must follow"),
  text("truncate", "prompts longer than the context: error, or left to drop their start", "error"),
)
RERANK = (
  listed(
    "strategy",
    "how the language model is queried: label, pointwise, listwise, pairwise, batchwise, "
    "relevancy, title, several of them, or all",
    ("label",),
  ),
  whole("top_candidates", "number of top items that are re-ranked", 20),
  whole("permutations", "label: candidate orders averaged over, if labels are letters", 2),
  text("form", "pairwise: bst (binary search tree) or all (all pairs)", "bst"),
  switch("both_orders", "pairwise: query each pair in both orders", True),
  whole("batch", "batchwise and relevancy: candidates per batch", 5),
  whole("stride", "batchwise and relevancy: offset between batches; below --batch they overlap", 3),
  text("merge", "batchwise: borda or trueskill", "borda"),
  whole("history", "liked titles in a prompt; also a third as many disliked (10; builtin: 30)"),
  text("fusion", "linear, zscore, reciprocal, or auto to choose by cross-fitting", "linear"),
  listed("features", "more scores to fuse: popularity, text, recency"),
  whole("valid_users", "validation users to learn the weight on (as many as --minutes allow)"),
  whole("max_users", "re-rank and measure a random sample of so many test users (all)"),
  switch("measure_only", "score only test lists whose accuracy can change; write no lists"),
  switch("by_segment", "separate weights for users with few and with many ratings, if supported"),
  number("diversity", "MMR weight of the score; values below 1 favor diverse lists", 1.0),
)
FINETUNE = (
  number("minutes", "time to learn: for validation lists, or steps of fine-tuning", 10.0),
  text("objective", "loss over the candidates of a list: softmax, listnet or ranknet", "softmax"),
  whole("out_of_fold", "folds of the training ratings, each predicted by a GAT without it", 4),
  repeated("tune", "field=value of fine-tuning: steps=500, lora_rank=16, mode=full; repeatable"),
)
PROFILES = (
  listed("write", "items, users or both (both; users if --item_profiles is given)", None),
  whole("limit", "write only the first so many items and users; 0 for all", 0),
  text("profile_form", "unified (Markdown sections) or summary (one paragraph)", "unified"),
)
BENCHMARK = (
  text("suite", "what to measure; the suites are listed above", "lm"),
  text("compare", "torch also measures PyTorch, PyG or transformers on the same inputs; implicit"),
  text("peer_python", "Python interpreter that has the peer's packages (this one)"),
  text("peer_node", "suite llama_cpp: folder with the npm package node-llama-cpp (this one)"),
  whole("repeats", "timed runs; the median is reported", 3),
  text("random_shape", "suite lm without --llm: shape of the random model, 0.5b or tiny", "0.5b"),
  listed(
    "shapes",
    "suite size: small, ml-1m, gowalla, ml-20m, ml-25m, 1m-1m, comma-separated",
    ("ml-1m", "gowalla"),
  ),
  whole("epochs", "suite size: epochs of training; each is a step over all users", 10),
  whole("prompt_tokens", "suite lm: tokens per prompt", 512),
  listed("batch_sizes", "suite lm: prompts per batch, comma-separated", ("1", "8")),
  whole("continuations", "suite lm: continuations scored after one prompt", 20),
)
FUZZ = (
  whole("executions", "executions of each parser, those of earlier calls included", 2000),
  listed("parser", "parsers to run, comma-separated, or all", ("all",)),
  whole("processes", "worker processes; 0 runs everything in this one, which a crash ends", 2),
  whole("trials", "damaged files, those of earlier calls included", 1000),
  listed("programs", "what is killed, comma-separated; all leaves out those of minutes", ("all",)),
  number("reader_minutes", "read a run for so long while it is trained, and kill nothing"),
  whole("kills", "signals that each program gets, those of earlier calls included", 20),
)

TOPICS: dict[str, tuple[Flag, ...]] = {
  "Data": DATA,
  "Split and feedback": SPLIT,
  "Text": TEXT,
  "Model and run": RUN,
  "Search": SEARCH,
  "Evaluation": EVALUATE,
  "Comparison": COMPARE,
  "Recommendations": SERVE,
  "Reasons": EXPLAIN,
  "Language model": LANGUAGE_MODEL,
  "Generation": GENERATE,
  "Re-ranking": RERANK,
  "Fine-tuning": FINETUNE,
  "Profiles": PROFILES,
  "Devices": DEVICES,
  "Benchmark": BENCHMARK,
  "Fuzz, damage and soak": FUZZ,
}
