"""Continues prompts with a local language model, in JAX alone.

  python -m launch.generate --llm=FOLDER --prompt="Once upon a time" --max_tokens=200
  python -m launch.generate --llm=FOLDER --prompts_file=prompts.txt --temperature=0.8 --json_out=F
  python -m launch.generate --llm=FOLDER --interactive

Text goes to the output as it comes, then what it took: tokens/s of the prompts (prefill) and of new
tokens (decode), compile time apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from launch.cli import flags as common

if TYPE_CHECKING:
  from collections.abc import Sequence

  from gatrec_jax.lm.folders.load import LanguageModel
  from gatrec_jax.lm.inference.generate import Generation, Speed

common.define(
  "llm",
  "lora",
  "dtype",
  "quantize",
  "attention",
  "mesh",
  "prompt",
  "prompts_file",
  "interactive",
  "chat",
  "system",
  "max_tokens",
  "temperature",
  "top_k",
  "top_p",
  "min_p",
  "repetition_penalty",
  "stop",
  "choice",
  "schema",
  "batch_size",
  "truncate",
  "seed",
  "json_out",
  seed="0",
)


def main() -> None:
  """Flags -> model and prompts -> text."""
  import pathlib
  import sys

  from gatrec_jax.errors import InputError
  from gatrec_jax.lm.folders.load import open_decoder
  from gatrec_jax.lm.folders.source import read_json
  from gatrec_jax.lm.inference.generate import Speed, generate, warm_up
  from gatrec_jax.lm.inference.sampling import Sampling
  from gatrec_jax.lm.tokens.prompt_files import as_text, is_chat, read_prompts

  flags = {name: common.FLAGS[name].value for name in common.FLAGS}
  given = [name for name in ("prompt", "prompts_file", "interactive") if common.FLAGS[name].present]
  if len(given) != 1:
    raise InputError("give one of --prompt, --prompts_file and --interactive")
  if flags["interactive"] and flags["json_out"]:
    raise InputError("--json_out: is not written with --interactive; leave it out")
  prompts = read_prompts(flags["prompts_file"]) if given == ["prompts_file"] else [flags["prompt"]]
  # What can be refused without the model is refused before it is loaded.
  common.require_writable("json_out")
  names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
  sampling = Sampling(**{name: flags[name] for name in names})
  if flags["choice"] and flags["schema"]:
    raise InputError("--choice and --schema: give one of them")
  schema = read_json(pathlib.Path(flags["schema"])) if flags["schema"] else None
  model = open_decoder(
    flags["llm"],
    dtype=flags["dtype"],
    quantize=flags["quantize"],
    attention=flags["attention"],
    mesh=flags["mesh"],
  )
  print(
    f"{model.name}: {model.config.family}, {model.parameters / 1e6:.3g} M parameters, "
    f"{model.dtype}, attention {model.attention}",
    file=sys.stderr,
  )
  settings = {name: flags[name] for name in ("max_tokens", "truncate", "batch_size")}
  settings |= {"sampling": sampling, **_from_model(model, flags, schema)}
  chat = is_chat(flags["chat"], model.tokenizer)
  if flags["system"] and not chat and not any(isinstance(one, list) for one in prompts):
    raise InputError("--system: these prompts are no chat; --chat=true makes them one")
  if given == ["interactive"]:
    return _converse(model, flags, settings, chat=chat)
  texts, templated = zip(
    *(as_text(model.tokenizer, one, chat=chat, system=flags["system"]) for one in prompts),
    strict=True,
  )
  if len(set(templated)) > 1:
    raise InputError("--prompts_file: has both plain prompts and messages; give --chat=true")
  settings["special_tokens"] = not templated[0]
  seconds = warm_up(model, texts, **settings)
  speed, single = Speed(), len(texts) == 1
  answers = generate(
    model,
    texts,
    seed=flags["seed"],
    stop=flags["stop"],
    speed=speed,
    on_text=(lambda _, text: print(text, end="", flush=True)) if single else None,
    **settings,
  )
  if single:
    print("" if model.tokenizer is not None else _ids(answers[0]))
  else:
    for number, answer in enumerate(answers, 1):
      print(f"--- {number}\n{answer.text if model.tokenizer is not None else _ids(answer)}")
  cut = sum(answer.truncated for answer in answers)
  if cut:
    print(f"{cut} tokens were cut from the left of prompts", file=sys.stderr)
  print(f"\n{speed.line()}; compiling and first run {seconds:.1f} s")
  if flags["json_out"]:
    _write(flags["json_out"], prompts, answers, speed, seconds)


def _from_model(
  model: LanguageModel, flags: dict[str, object], schema: dict[str, object] | None
) -> dict[str, object]:
  """What `generate` and `warm_up` take alike and needs the model: adapters, constraint."""
  from gatrec_jax.lm.constraints.api import answer_choices, answer_schema
  from gatrec_jax.lm.finetune.lora import load_lora

  found: dict[str, object] = {}
  if flags["choice"]:
    found["constraint"] = answer_choices(model, flags["choice"])
  if schema is not None:
    found["constraint"] = answer_schema(model, schema)
  if flags["lora"]:
    found["lora"] = load_lora(flags["lora"], model.config)
  return found


def _converse(
  model: LanguageModel, flags: dict[str, object], settings: dict[str, object], *, chat: bool
) -> None:
  """Reads prompts until the input ends or says /quit; /new forgets the conversation."""
  import sys

  from gatrec_jax.lm.inference.generate import Speed, generate, warm_up
  from gatrec_jax.lm.tokens.prompt_files import as_text

  messages: list[dict[str, str]] = []
  print(
    "an empty line asks nothing, /new forgets, /quit ends; what outgrows the context loses its "
    "beginning",
    file=sys.stderr,
  )
  turn = 0
  while True:
    print("> ", end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line or line.strip() == "/quit":
      return
    if not line.strip():
      continue
    if line.strip() == "/new":
      messages = []
      continue
    asked = [*messages, {"role": "user", "content": line.rstrip("\n")}]
    prompt = asked if chat else line.rstrip("\n")
    text, templated = as_text(model.tokenizer, prompt, chat=chat, system=flags["system"])
    speed = Speed()
    own = settings | {"special_tokens": not templated, "truncate": "left"}
    seconds = warm_up(model, [text], **own)
    answer = generate(
      model,
      [text],
      seed=flags["seed"] + turn,
      stop=flags["stop"],
      speed=speed,
      on_text=lambda _, new: print(new, end="", flush=True),
      **own,
    )[0]
    print(flush=True)
    print(f"{speed.line()}; compiling and first run {seconds:.1f} s", file=sys.stderr)
    if answer.truncated:
      print(f"the first {answer.truncated} tokens had no room any more", file=sys.stderr)
    if chat:
      messages = [*asked, {"role": "assistant", "content": answer.text}]
    turn += 1


def _ids(answer: Generation) -> str:
  return " ".join(map(str, answer.tokens))


def _write(
  path: str, prompts: Sequence[object], answers: Sequence[Generation], speed: Speed, seconds: float
) -> None:
  import dataclasses
  import pathlib

  from gatrec_jax.runs.folder import environment, write_json

  rows = [
    {"prompt": prompt, **dataclasses.asdict(answer)}
    for prompt, answer in zip(prompts, answers, strict=True)
  ]
  times = dataclasses.asdict(speed) | {"compile_seconds": seconds}
  write_json(pathlib.Path(path), {"answers": rows, "speed": times, "environment": environment()})


if __name__ == "__main__":
  common.run(main, __doc__)
