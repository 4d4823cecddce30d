"""Suite `llama_cpp`: a GGUF file read here and by llama.cpp: tokens, probabilities, answers, speed.

llama.cpp multiplies quantized weights with activations that it rounds to 8 bits, and this package
with activations as they are. So answers are also compared on a copy of the file in which the same
weights are float32 numbers, where llama.cpp rounds nothing but the keys and values it keeps.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gatrec_jax.errors import InputError
from gatrec_jax.runs.log import Log
from launch.benchmarks.peers.process import Process
from launch.cli.grid import Table

if TYPE_CHECKING:
  from gatrec_jax.lm.folders.load import LanguageModel

Json = dict[str, Any]
STRINGS = 2_000
"""Texts whose token ids are compared."""
WINDOW = 512
"""Tokens that probabilities are compared in at a time."""
SCORED = 10_000
"""Tokens whose probabilities are compared, for vocabularies of up to 64,000 tokens."""
_FEWER = 10  # times fewer for larger ones: the peer hands over whole distributions
LARGEST_COPY = 500_000_000
"""Weights of the largest model that is copied as float32 numbers."""
QUESTIONS = (
  "Write one sentence about a film with robots.",
  "List three genres of films.",
  "What is a documentary?",
  "Name a city in Italy and say why people visit it.",
  "Explain gravity to a child.",
  "Write a haiku about rain.",
  "What do cats eat?",
  "Translate 'good morning' into French.",
  "Give two tips for better sleep.",
  "What is the boiling point of water?",
  "Describe a comedy in two sentences.",
  "Who wrote Hamlet?",
  "What is a graph in mathematics?",
  "Recommend a book for a long flight.",
  "How do plants make food?",
  "What colors has a rainbow?",
  "Write a short poem about the sea.",
  "Why is the sky blue?",
  "Say something kind.",
  "What is machine learning?",
)
_CHARACTERS = (
  "äöüßéèñçøåœÀÉÎŽčřąęłńśźżğışЖдущ中文字漢日本語한국어العربيةעבריתहिन्दीไทย🙂🚀👩‍👩‍👧🇩🇪e\u0301ﬁ½²№…—“”‘’«»€£"
  "\u00a0\u200b\u3000\t\n\r" + "".join(map(chr, range(32, 127)))
)
_CONTROL = (
  *("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<start_of_turn>", "<end_of_turn>", "<bos>"),
  *("<eos>", "<s>", "</s>", "<unk>", "<pad>", "<unused0>", "<h1>", "<|fim_prefix|>", "<mask>"),
)


def run_llama_cpp_suite(flags: Mapping[str, Any], *, log: Log) -> Json:
  """The suite for the file of --llm and the peer in --peer_node. Raises: InputError."""
  from gatrec_jax.lm.folders.decoder_source import resolve_decoder
  from gatrec_jax.lm.folders.gguf import is_gguf

  if not flags["llm"]:
    raise InputError("the suite needs a GGUF file, or the name of one", field="llm")
  file = resolve_decoder(flags["llm"], log=log).folder
  if not is_gguf(file):
    raise InputError("the suite needs a GGUF file", field="llm", value=flags["llm"])
  folder = Path(flags["peer_node"] or ".")
  if not (folder / "node_modules" / "node-llama-cpp").is_dir() or not shutil.which("node"):
    raise InputError(
      "must be a folder where `npm install node-llama-cpp --ignore-scripts` was run, beside a "
      "node on the path",
      field="peer_node",
      value=str(folder),
    )
  script = Path(__file__).parent / "peers" / "llama_cpp.mjs"
  command = ["node", str(script), str(folder)]
  with Process(command, what=f"--peer_node={folder}") as peer:
    return run_llama_cpp(
      file,
      peer,
      quantize=flags["quantize"],
      prompt_tokens=flags["prompt_tokens"],
      max_tokens=flags["max_tokens"],
      log=log,
    )


def run_llama_cpp(
  file: Path,
  peer: Process,
  *,
  prompt_tokens: int,
  max_tokens: int,
  quantize: str = "none",
  log: Log,
) -> Json:
  """All comparisons of a file.

  Args:
    quantize: as in `load_decoder`.
    prompt_tokens, max_tokens: of the measured speed, and max_tokens of the answers.
  Returns: `peer`, `model`, `strings`, `stored` (the file as it is), `exact` (as float32; None for a
    large model) and `speed`, as plain values.
  """
  from gatrec_jax.lm.folders.load import load_decoder

  log.info(f"{file.name}: reading it")
  model = load_decoder(file, quantize=quantize)
  about = peer.ask("hello")
  threads = os.cpu_count() or 1
  settings = {"threads": threads, "tokens": max(WINDOW, prompt_tokens + max_tokens)}
  peer.ask("load", file=str(file), **settings)
  log.info(f"{STRINGS} strings, {len(QUESTIONS)} answers, probabilities, speed")
  found = {
    "peer": {"name": "node-llama-cpp", "threads": threads, **about},
    "model": model.name,
    "strings": _strings(model, peer),
    "stored": _agreement(model, peer, count=max_tokens),
    "speed": _speed(model, peer, prompt_tokens=prompt_tokens, max_tokens=max_tokens),
    "exact": None,
  }
  if model.parameters <= LARGEST_COPY:
    log.info("the same weights as float32 numbers")
    with tempfile.TemporaryDirectory(prefix="gatrec-gguf-") as folder:
      copy = Path(folder) / "float32.gguf"
      write_as_float32(file, copy)
      peer.ask("load", file=str(copy), **settings)
      found["exact"] = _agreement(load_decoder(copy), peer, count=max_tokens)
  return found


def table(results: Json) -> Table:
  """The table of `run_llama_cpp`'s results."""
  strings, speed = results["strings"], results["speed"]
  rows = [["token ids that differ", f"{strings['different']} of {strings['texts']} strings", ""]]
  for name, words in (("stored", "as stored"), ("exact", "as float32")):
    if (one := results[name]) is None:
      continue
    equal = (
      f"{one['equal']} of {one['answers']} to their end, {one['agreed']:.1f} tokens on average"
    )
    rows += [
      [f"equal greedy answers, {words}", equal, ""],
      [f"perplexity of {one['scored']:,} tokens, {words}", *_two(one["perplexity"], "{:.3f}")],
      [f"mean |log p − log q| of its top 10, {words}", f"{one['difference']:.4f}", ""],
    ]
  for name, words in (("prefill", "prompt, tokens/s"), ("decode", "answer, tokens/s")):
    rows.append([words, *_two(speed[name], "{:.1f}")])
  rows.append(["eight answers at a time, tokens/s", f"{speed['batch']:.1f}", ""])
  peer = results["peer"]
  notes = [f"{peer['name']} {peer['version']}, {peer['threads']} threads; here float32"]
  return Table(f"{results['model']}, here and by llama.cpp", ["", "here", "llama.cpp"], rows, notes)


def strings(count: int, *, seed: int = 0) -> list[str]:
  """Varied texts: sentences, characters of many scripts, digits, whitespace, control tokens."""
  draws = random.Random(seed)
  words = [word for question in QUESTIONS for word in question.split()]

  def title() -> str:
    return " ".join(draws.choices(words, k=draws.randint(1, 8)))

  def characters() -> str:
    return "".join(draws.choices(_CHARACTERS, k=draws.randint(1, 40)))

  def digits() -> str:
    return "".join(draws.choices("0123456789.,- ", k=draws.randint(1, 20)))

  def spaced() -> str:
    gap = draws.choice(("  ", "\n\n", "\t", " \n ", "\r\n")) * draws.randint(1, 4)
    return gap + title() + gap + title() + draws.choice(("", gap))

  def controlled() -> str:
    parts = range(draws.randint(1, 4))
    return "".join(draws.choice(_CONTROL) + draws.choice(("", " ", "\n")) + title() for _ in parts)

  kinds = (title, characters, digits, spaced, controlled)
  return [kinds[number % len(kinds)]() for number in range(count)]


def write_as_float32(source: Path, target: Path) -> None:
  """Copies a GGUF file with its tensors dequantized."""
  import gguf

  from gatrec_jax.lm.folders.gguf import dequantized, read_gguf

  reader, file = gguf.GGUFReader(source), read_gguf(source)
  writer = gguf.GGUFWriter(target, file.fields["general.architecture"])
  for key, field in reader.fields.items():
    if key.startswith("GGUF.") or key in ("general.architecture", "general.file_type"):
      continue
    inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
    writer.add_key_value(key, field.contents(), field.types[0], sub_type=inner)
  for name, stored in file.tensors.items():
    writer.add_tensor(name, np.ascontiguousarray(dequantized(stored)))
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()


def _strings(model: LanguageModel, peer: Process) -> Json:
  texts = strings(STRINGS)
  ours = model.tokenizer(texts, add_special_tokens=False)["input_ids"]
  theirs = peer.ask("tokenize", texts=texts)["ids"]
  different = [text for text, a, b in zip(texts, ours, theirs, strict=True) if a != b]
  return {"texts": len(texts), "different": len(different), "first": different[:5]}


def _agreement(model: LanguageModel, peer: Process, *, count: int) -> Json:
  """Greedy answers up to the first other token, and probabilities of a text."""
  import jax.numpy as jnp

  from gatrec_jax.lm.decoder.model import forward
  from gatrec_jax.lm.inference.generate import generate

  prompts = [_prompt(model, text) for text in QUESTIONS]
  theirs = peer.ask("generate", prompts=prompts, count=count)["answers"]
  lengths, equal = [], 0
  for own, other in zip(generate(model, prompts, max_tokens=count), theirs, strict=True):
    ids = [token for token in other["ids"] if token not in model.eos]
    shared = _shared(own.tokens, ids)
    lengths.append(shared)
    equal += shared == len(ids) == len(own.tokens)
  scored = SCORED if model.config.vocabulary <= 64_000 else SCORED // _FEWER
  ours, peers, differences = [], [], []
  for window in _windows(model, scored):
    logits = np.asarray(forward(model.params, jnp.array([window]), config=model.config)[0])
    logs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    found = peer.ask("score", ids=window)
    ours += [logs[place, token] for place, token in enumerate(window[1:])]
    peers += found["next"]
    for place, top in enumerate(found["top"]):
      ids, values = zip(*top, strict=True)
      differences.append(float(np.abs(logs[place, list(ids)] - np.array(values)).mean()))
  return {
    "answers": len(prompts),
    "agreed": float(np.mean(lengths)),
    "equal": int(equal),
    "scored": len(ours),
    "perplexity": [float(np.exp(-np.mean(logs))) for logs in (ours, peers)],
    "difference": float(np.mean(differences)),
  }


def _prompt(model: LanguageModel, text: str) -> list[int]:
  if model.tokenizer.chat_template:
    return list(map(int, model.encode([{"role": "user", "content": text}])))
  return list(map(int, model.tokenizer(text)["input_ids"]))


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
  """How many tokens two answers have in common at their beginning."""
  pairs = zip(one, other, strict=False)
  return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _windows(model: LanguageModel, tokens: int) -> list[list[int]]:
  """A text of this Python's documentation, cut into windows."""
  from pydoc_data.topics import topics

  text = "\n\n".join(topics[name] for name in sorted(topics))[: tokens * 8]
  ids = model.tokenizer(text, add_special_tokens=False)["input_ids"][:tokens]
  begin = [] if model.bos is None else [model.bos]
  step = WINDOW - len(begin)
  return [begin + ids[first : first + step] for first in range(0, len(ids), step)]


def _speed(model: LanguageModel, peer: Process, *, prompt_tokens: int, max_tokens: int) -> Json:
  """Tokens a second of a prompt, of an answer, and of eight answers at a time."""
  from launch.benchmarks.lm.timing import endless, random_rows, time_generation

  rows = random_rows(model.config.vocabulary // 2, 8, prompt_tokens, seed=0)
  own = endless(model)
  found: Json = {"prefill": [], "decode": []}
  for batch in (1, 8):
    time_generation(own, rows[:batch], max_tokens=max_tokens)  # compiles
    timed = time_generation(own, rows[:batch], max_tokens=max_tokens)
    rate = batch * (max_tokens - 1) / timed.decode_seconds
    if batch == 1:
      found |= {"prefill": [prompt_tokens / timed.prefill_seconds], "decode": [rate]}
    else:
      found["batch"] = rate
  for _ in range(2):  # the first reads the file
    (answer,) = peer.ask("generate", prompts=rows[:1], count=max_tokens)["answers"]
  found["prefill"].append(prompt_tokens / answer["first"])
  found["decode"].append(max(len(answer["ids"]) - 1, 1) / answer["rest"])
  return found


def _two(values: Sequence[float], form: str) -> list[str]:
  return [form.format(value) for value in values]
