"""launch.generate on a committed folder with a tokenizer and a chat template."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.paths import ROOT, SHARED
from helpers.programs import call, environment, error_line, launch

FOLDER = ROOT / "tests" / "lm" / "goldens" / "decoders" / "qwen2"
STORIES = SHARED / "models" / "stories260K"
LLM = f"--llm={FOLDER}"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """One working folder, with one cache of compiled programs, for all tests."""
  return tmp_path_factory.mktemp("place")


def generated(place, *flags, llm=LLM):
  call("generate", llm, *flags, "--json_out=out.json", cwd=place, check=0)
  return json.loads((place / "out.json").read_text())


def test_prints_text_and_speed_and_writes_them(place):
  done = launch(
    "generate",
    LLM,
    "--chat=false",
    "--prompt=A film about",
    "--max_tokens=6",
    "--json_out=o.json",
    cwd=place,
    check=0,
  )
  report = json.loads((place / "o.json").read_text())
  answer = report["answers"][0]
  assert done.stdout.startswith(answer["text"]) and "tokens/s" in done.stdout
  assert answer["prompt"] == "A film about" and len(answer["tokens"]) == 6
  assert answer["finish"] == "length" and report["speed"]["new_tokens"] == 5
  assert "PyTorch" not in done.stderr


def test_prompts_of_a_file_get_the_same_answers_as_alone(place):
  (place / "prompts.txt").write_text("A film\nTwo brothers and a car\n\nsea")
  flags = ("--chat=false", "--max_tokens=5", "--truncate=left")
  # The third line is empty, and this model has no BOS token to stand in for it.
  with_empty = call("generate", LLM, "--prompts_file=prompts.txt", *flags, cwd=place, check=1)
  assert "prompt 3" in error_line(with_empty) and "BOS" in error_line(with_empty)
  (place / "prompts.txt").write_text("A film\nTwo brothers and a car\nsea")
  answers = generated(place, "--prompts_file=prompts.txt", *flags)["answers"]
  alone = generated(place, "--prompt=Two brothers and a car", *flags)["answers"][0]
  assert alone["tokens"] == answers[1]["tokens"]


def test_chats_are_rendered_with_the_template(place):
  (place / "chat.jsonl").write_text(
    json.dumps({"messages": [{"role": "user", "content": "hello"}]})
    + "\n"
    + json.dumps({"prompt": "hello"})
    + "\n"
  )
  first, second = generated(place, "--prompts_file=chat.jsonl", "--max_tokens=3")["answers"]
  assert first["tokens"] == second["tokens"] and first["prompt_tokens"] == second["prompt_tokens"]
  plain = generated(place, "--prompt=hello", "--chat=false", "--max_tokens=3")
  plain = plain["answers"][0]
  assert plain["prompt_tokens"] < first["prompt_tokens"]
  with_system = generated(place, "--prompt=hello", "--system=Be brief.", "--max_tokens=3")
  assert with_system["answers"][0]["prompt_tokens"] != first["prompt_tokens"]


def test_answers_are_constrained_to_the_choices(place):
  flags = ("--chat=false", "--prompt=hm", "--temperature=2", "--choice= yes", "--choice= no")
  assert generated(place, *flags)["answers"][0]["text"] in (" yes", " no")


def test_interactive_mode_answers_line_by_line(place):
  done = subprocess.run(
    [sys.executable, "-m", "launch.generate", LLM, "--interactive", "--max_tokens=3"],
    input="hello\n\n/new\nhello\n/quit\n",
    capture_output=True,
    text=True,
    cwd=place,
    timeout=120,
    env=environment(place),
  )
  assert done.returncode == 0, done.stderr
  assert done.stderr.count("prefill") == 2


@pytest.mark.parametrize(
  "flags, said",
  [
    (("--llm=missing/folder/here", "--prompt=a"), "--llm=missing/folder/here"),
    ((LLM,), "--prompt"),
    ((LLM, "--prompt=a", "--top_p=0"), "--top_p=0"),
    ((LLM, "--prompt=a", "--mesh=8"), "--mesh=8"),
    ((LLM, "--prompt=a", "--chat=perhaps"), "--chat=perhaps"),
    ((LLM, "--prompts_file=none.txt"), "none.txt"),
    ((LLM, "--prompt=" + "very long " * 200), "--truncate=left"),
  ],
)
def test_invalid_input_is_one_line(place, flags, said):
  done = call("generate", *flags, cwd=place, check=1)
  assert said in error_line(done)
  assert done.stdout == ""


def test_errors_are_the_same_in_a_process_of_its_own(place):
  wrong = ("generate", LLM, "--prompt=a", "--mesh=8")
  done = [by(*wrong, cwd=place, check=1) for by in (launch, call)]
  assert error_line(done[0]) == error_line(done[1])
  assert done[0].stdout == done[1].stdout == ""


def test_a_folder_of_pytorch_weights_says_how_to_convert_them(place):
  folder = place / "old"
  shutil.copytree(FOLDER, folder)
  (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
  line = error_line(call("generate", f"--llm={folder}", "--prompt=a", cwd=place, check=1))
  assert "AutoModelForCausalLM" in line and "pytorch_model.bin" in line


@pytest.mark.skipif(not STORIES.is_dir(), reason="needs ../shared/models/stories260K")
def test_stories_begin_as_they_should(place):
  done = call("generate", f"--llm={STORIES}", "--prompt=", "--max_tokens=200", cwd=place, check=0)
  assert done.stdout.startswith(Path(STORIES / "golden.txt").read_text().strip())


@pytest.mark.skipif(not STORIES.is_dir(), reason="needs ../shared/models/stories260K")
def test_answers_are_constrained_to_the_schema(place):
  (place / "schema.json").write_text(
    json.dumps(
      {"type": "object", "properties": {"score": {"type": "integer", "minimum": 0, "maximum": 10}}}
    )
  )
  flags = ("--prompt=hm", "--temperature=2", "--schema=schema.json")
  answer = generated(place, *flags, llm=f"--llm={STORIES}")["answers"][0]
  assert 0 <= json.loads(answer["text"])["score"] <= 10 and answer["finish"] == "complete"
