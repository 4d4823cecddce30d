"""Parsers of settings, of files in run folders, of prompts, schemas and chat templates."""

from __future__ import annotations

import contextlib
import copy
import functools
import json
from pathlib import Path
from typing import Any

from launch.fuzzing.execute import Parser
from launch.fuzzing.mutate import Files, in_json, in_json_lines, in_rows, some_of

_PRESETS = ("best", "paper", "tiny", "ease", "lightgcn", "multi_vae", "bpr_mf")
_KEYS = ("a", "b", "c", "d")


def _configs() -> list[Files]:
  from gatrec_jax.config.overrides import to_json
  from gatrec_jax.config.presets import get_preset
  from gatrec_jax.stages.config_file import FORMAT

  return [
    {"config.json": json.dumps({"format": FORMAT, "config": to_json(get_preset(name))}).encode()}
    for name in _PRESETS
  ]


def _read_config(folder: Path) -> None:
  """Reads the file as it is, and then with the hash of its content, which lets settings through."""
  from gatrec_jax import runs
  from gatrec_jax.errors import InputError
  from gatrec_jax.stages.config_file import read_config

  path = folder / "config.json"
  try:
    read_config(folder)
  except InputError as error:
    if len(str(error).splitlines()) != 1:
      raise
  tree = runs.read_json(path)
  if isinstance(tree, dict):
    tree.pop("digest", None)
    with contextlib.suppress(UnicodeEncodeError):  # a run's settings come from UTF-8
      runs.write_sealed(path, tree)
  read_config(folder)


def _assignments() -> list[Files]:
  lines = (
    "preset=best\nepochs=3\nlearning_rate=0.01\nloss=softmax\ntemperature=0.2",
    "preset=tiny\nlayer_widths=16,16\nheads=1,2\nks=5,10\nconvolution=light\nlayers=2",
    "preset=ease\nl2=500\nsplit=recbole_a\ntest_share=0.2\npositive_threshold=4",
  )
  return [{"set": one.encode()} for one in lines]


def _set(folder: Path) -> None:
  from gatrec_jax.config.overrides import parse_assignments, to_json, with_fields
  from gatrec_jax.config.presets import get_preset

  lines = (folder / "set").read_bytes().decode("utf-8", "replace").split("\n")
  values = parse_assignments(lines)
  to_json(with_fields(get_preset(values.pop("preset", "tiny")), values))


def _ranges() -> list[Files]:
  lines = ("learning_rate=0.001:0.1:log", "dropout=0:0.5:linear\nepochs=2|4", "epochs=3\nl2=0.1:1")
  return [{"space": one.encode()} for one in lines]


def _search_space(folder: Path) -> None:
  from gatrec_jax.config.presets import get_preset
  from gatrec_jax.experiment.search_space import search_space

  text = (folder / "space").read_bytes().decode("utf-8", "replace")
  search_space(get_preset("best"), text.split("\n"))


def _chunks() -> list[Files]:
  from gatrec_jax.runs.seals import sealed_line

  lines = [sealed_line({"key": key, "scores": [0.5, 1.0]}) for key in _KEYS]
  return [{"part.jsonl": "".join(lines[:count]).encode()} for count in (4, 2, 3)]


def _resume(folder: Path) -> None:
  from gatrec_jax.runs.log import SILENT
  from gatrec_jax.runs.resumable import in_chunks

  records = in_chunks(
    folder / "part.jsonl",
    _KEYS,
    lambda places: [{"scores": [0.0, 0.0]} for _ in places],
    chunk=2,
    name="fuzz",
    log=SILENT,
  )
  assert len(records) == len(_KEYS)


def _manifests() -> list[Files]:
  from gatrec_jax.runs.seals import sealed

  manifest = sealed({"inputs": "x", "facts": {"rows": 3, "names": ["a", "b"]}})
  return [{"manifest.json": json.dumps(manifest).encode(), "out.bin": b"abc"}]


def _stage(folder: Path) -> None:
  from gatrec_jax import runs
  from gatrec_jax.runs.log import SILENT

  def make() -> dict[str, Any]:
    (folder / "out.bin").write_bytes(b"abc")
    return {"rows": 3}

  runs.stage(folder, name="fuzz", inputs="x", outputs=("out.bin",), make=make, log=SILENT)


def _prompts() -> list[Files]:
  messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "A film?"}]
  lines = [{"prompt": "a"}, {"messages": messages}]
  return [
    {"p.jsonl": "\n".join(map(json.dumps, lines)).encode()},
    {"p.txt": "a film\n\nanother\u2028one".encode()},
  ]


def _read_prompts(folder: Path) -> None:
  from gatrec_jax.lm.tokens.chat import ChatEncoder
  from gatrec_jax.lm.tokens.prompt_files import as_ids, read_prompts

  encode = ChatEncoder(_tokenizer(), bos=None)
  for prompt in read_prompts(min(folder.iterdir())):
    as_ids(encode, prompt, chat=True, system="s")


def _schemas() -> list[Files]:
  schema = {
    "type": "object",
    "properties": {
      "title": {"type": "string", "minLength": 1, "maxLength": 5},
      "kind": {"enum": ["film", "book"]},
      "year": {"type": "integer", "minimum": 0, "maximum": 2100},
      "tags": {
        "type": "array",
        "items": {"enum": ["a", "b", "c"]},
        "maxItems": 2,
        "uniqueItems": True,
      },
      "seen": {"type": "boolean"},
    },
    "required": ["title"],
  }
  return [{"schema.json": json.dumps(schema).encode()}]


@functools.cache
def _tokenizer() -> Any:
  from gatrec_jax.lm.finetune.from_scratch import train_tokenizer, wrap_tokenizer

  tokenizer = train_tokenizer(["a film, a book"] * 3, vocabulary=264)
  return wrap_tokenizer(tokenizer, 128, chat=True)


def _automaton(folder: Path) -> None:
  from gatrec_jax.lm.constraints.json_schema import json_schema
  from gatrec_jax.lm.folders.source import read_json

  tokenizer = _tokenizer()
  json_schema(
    tokenizer, read_json(folder / "schema.json"), vocabulary=len(tokenizer), eos=[1], max_string=8
  )


def _templates() -> list[Files]:
  plain = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
  longer = (
    "{%- if messages[0].role == 'system' -%}{{ messages[0].content | trim }}{%- endif -%}"
    "{%- set ns = namespace(n=0) -%}{%- for m in messages -%}{%- if m.role == 'user' -%}"
    "{%- set ns.n = ns.n + 1 -%}[{{ ns.n }}] {{ m.content }}{%- else -%}"
    "{{ raise_exception('no ' ~ m.role) if m.role == 'tool' }}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}\nA:{%- endif -%}"
  )
  return [{"template.jinja": one.encode()} for one in (plain, longer)]


def _render(folder: Path) -> None:
  from gatrec_jax.lm.tokens.chat import render_chat

  text = (folder / "template.jinja").read_bytes().decode("utf-8", "replace")
  messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "a {{ b }}"}]
  own = copy.copy(_tokenizer())
  own.chat_template = text
  render_chat(own, messages)


_change = some_of(
  {
    ".json": in_json,
    ".jsonl": in_json_lines,
    ".txt": in_rows(" "),
    "set": in_rows("="),
    "space": in_rows("="),
    ".jinja": in_rows(" "),
  }
)

PARSERS = (
  Parser("run_config", _configs, _change, _read_config),
  Parser("settings", _assignments, _change, _set),
  Parser("search_space", _ranges, _change, _search_space),
  Parser("resumable", _chunks, _change, _resume),
  Parser("manifest", _manifests, _change, _stage),
  Parser("prompts", _prompts, _change, _read_prompts),
  Parser("json_schema", _schemas, _change, _automaton),
  Parser("chat_template", _templates, _change, _render),
)
