"""Continues prompts with a local language model.

  python -m launch.generate --llm=FOLDER --prompt="Once upon a time" --max_tokens=200
  python -m launch.generate --llm=FOLDER --prompts_file=prompts.txt --temperature=0.8 --json_out=F
  python -m launch.generate --llm=FOLDER --prompt="A good film? " --choice=yes --choice=no
  python -m launch.generate --llm=FOLDER --interactive

Text is printed as it is generated, followed by the tokens per second of the prompts (prefill) and
of the new tokens (decode); compile time is reported separately.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from launch.cli import (
  FLAGS,
  LANGUAGE_MODEL,
  define,
  path_flag,
  require_writable,
  run,
  say,
  say_text,
)

if TYPE_CHECKING:
  from collections.abc import Sequence

  from gatrec_jax.lm.folders.load import LanguageModel
  from gatrec_jax.lm.inference.generate import Generation, Speed
  from gatrec_jax.lm.inference.sampling import Sampling

define(
  *LANGUAGE_MODEL,
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
  "no_repeat",
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

  from gatrec_jax.errors import InputError
  from gatrec_jax.lm.folders.load import open_decoder
  from gatrec_jax.lm.folders.source import read_json
  from gatrec_jax.lm.tokens.prompt_files import is_chat, read_prompts

  given = [name for name in ("prompt", "prompts_file", "interactive") if FLAGS[name].present]
  if len(given) != 1:
    raise InputError("give one of `prompt`, `prompts_file` and `interactive`")
  if FLAGS.interactive and FLAGS.json_out:
    raise InputError("is not written with `interactive`; omit it", field="json_out")
  # Everything that can be refused without the model is refused before it is loaded.
  prompts = read_prompts(FLAGS.prompts_file) if given == ["prompts_file"] else [FLAGS.prompt]
  require_writable("json_out")
  sampling = sampling_from_flags()
  if FLAGS.choice and FLAGS.schema:
    raise InputError("`choice` and `schema` exclude each other")
  schema = read_json(path_flag("schema")) if FLAGS.schema else None
  model = open_decoder(
    FLAGS.llm,
    dtype=FLAGS.dtype,
    quantize=FLAGS.quantize,
    attention=FLAGS.attention,
    mesh=FLAGS.mesh,
  )
  kept = "" if FLAGS.quantize == "none" else f", --quantize={FLAGS.quantize}"
  say(
    f"{model.name}: {model.config.family}, {model.parameters / 1e6:.3g} M parameters, "
    f"{model.dtype}{kept}, attention {model.attention}",
    err=True,
  )
  settings = {name: FLAGS[name].value for name in ("max_tokens", "truncate", "batch_size")}
  settings |= {"sampling": sampling, **_from_model(model, schema)}
  chat = is_chat(FLAGS.chat, model.tokenizer)
  if FLAGS.system and not chat and not any(isinstance(one, list) for one in prompts):
    raise InputError("needs chat prompts; `chat=true` applies the chat template", field="system")
  if given == ["interactive"]:
    _converse(model, settings, chat=chat)
  else:
    _answer(model, prompts, settings, chat=chat)


def sampling_from_flags() -> Sampling:
  """How tokens are drawn. Raises InputError."""
  from gatrec_jax.lm.inference.sampling import Sampling

  names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "no_repeat")
  return Sampling(**{name: FLAGS[name].value for name in names})


def _answer(
  model: LanguageModel, prompts: Sequence[Any], settings: dict[str, Any], *, chat: bool
) -> None:
  """Continues all prompts and prints the answers; a single one is streamed."""
  from gatrec_jax.errors import InputError
  from gatrec_jax.lm.inference.generate import Speed, generate, warm_up
  from gatrec_jax.lm.tokens.prompt_files import as_ids

  encoded = []
  for number, prompt in enumerate(prompts, 1):
    try:
      encoded.append(as_ids(model.encode, prompt, chat=chat, system=FLAGS.system))
    except InputError as error:
      raise InputError(f"prompt {number}: {error}") from None
  seconds = warm_up(model, encoded, **settings)
  speed, single = Speed(), len(encoded) == 1
  answers = generate(
    model,
    encoded,
    seed=FLAGS.seed,
    stop=FLAGS.stop,
    speed=speed,
    on_text=(lambda _, text: say_text(text, end="")) if single else None,
    **settings,
  )
  if single:
    say("" if model.tokenizer is not None else _ids(answers[0]))
  else:
    for number, answer in enumerate(answers, 1):
      say_text(f"--- {number}\n{answer.text if model.tokenizer is not None else _ids(answer)}")
  if truncated := sum(answer.truncated for answer in answers):
    say(f"{truncated} tokens were dropped from the start of prompts", err=True)
  say()
  say(f"{speed.line()}; compiling and first run {seconds:.1f} s")
  if FLAGS.json_out:
    _write(prompts, answers, speed, seconds)


def _from_model(model: LanguageModel, schema: dict[str, Any] | None) -> dict[str, Any]:
  """The arguments of `generate` and `warm_up` that depend on the model: adapter, constraint."""
  from gatrec_jax.lm.constraints.api import answer_choices, answer_schema
  from gatrec_jax.lm.finetune.lora import load_lora

  found: dict[str, Any] = {}
  if FLAGS.choice:
    found["constraint"] = answer_choices(model, FLAGS.choice)
  if schema is not None:
    found["constraint"] = answer_schema(model, schema)
  if FLAGS.lora:
    found["lora"] = load_lora(FLAGS.lora, model.config)
  return found


def _converse(model: LanguageModel, settings: dict[str, Any], *, chat: bool) -> None:
  """Reads prompts until the end of the input or /quit; /new starts a new conversation."""
  import sys

  from gatrec_jax.lm.inference.generate import Speed, generate, warm_up
  from gatrec_jax.lm.tokens.prompt_files import as_ids

  messages: list[dict[str, str]] = []
  say(
    "empty lines are ignored, /new starts a new conversation, /quit ends; text beyond the context "
    "is dropped from the start",
    err=True,
  )
  answered = 0
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
    conversation = [*messages, {"role": "user", "content": line.rstrip("\n")}]
    prompt = conversation if chat else line.rstrip("\n")
    ids = as_ids(model.encode, prompt, chat=chat, system=FLAGS.system)
    speed = Speed()
    own = settings | {"truncate": "left"}
    seconds = warm_up(model, [ids], **own)
    answer = generate(
      model,
      [ids],
      seed=FLAGS.seed + answered,
      stop=FLAGS.stop,
      speed=speed,
      on_text=lambda _, new: say_text(new, end=""),
      **own,
    )[0]
    say()
    say(f"{speed.line()}; compiling and first run {seconds:.1f} s", err=True)
    if answer.truncated:
      say(f"the first {answer.truncated} tokens no longer fit and were dropped", err=True)
    if chat:
      messages = [*conversation, {"role": "assistant", "content": answer.text}]
    answered += 1


def _ids(answer: Generation) -> str:
  return " ".join(map(str, answer.tokens))


def _write(
  prompts: Sequence[Any], answers: Sequence[Generation], speed: Speed, seconds: float
) -> None:
  import dataclasses

  from gatrec_jax.runs.folder import environment, write_json

  rows = [
    {"prompt": prompt, **dataclasses.asdict(answer)}
    for prompt, answer in zip(prompts, answers, strict=True)
  ]
  times = dataclasses.asdict(speed) | {"compile_seconds": seconds}
  write_json(path_flag("json_out"), {"answers": rows, "speed": times, "environment": environment()})


if __name__ == "__main__":
  run(main, __doc__)
