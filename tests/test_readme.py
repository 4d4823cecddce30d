"""Every code block of every README: Python is executed, commands are checked or executed."""

import re

import pytest
from helpers import readmes
from helpers.paths import ROOT

PAGES = sorted(
  path
  for pattern in ("README.md", "launch/README.md", "gatrec_jax/*/README.md")
  for path in ROOT.glob(pattern)
)
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_python_blocks_run(page, tmp_path):
  readmes.run_python(page.read_text(), tmp_path, str(page))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_have_flags_that_exist_and_marked_ones_run(page, tmp_path):
  readmes.check_bash(page.read_text())
  readmes.run_bash(page.read_text(), tmp_path)


SMALL = """# A page

```python
first = [1, 2]
open("made.txt", "w").write("here")
```

Its output:

```text
nothing that Python could read
```

<!-- skip: needs ML-100K -->
```python
raise RuntimeError("skipped")
```

  ```python
  first.append(3)
  assert first == [1, 2, 3]
  ```

```bash
pip install gatrec_jax
gatrec train --preset=tiny --dataset=demo \\
  --set epochs=2  # a comment
XLA_FLAGS=--some=1 python -m launch.evaluate --workdir=runs/a && gatrec --version
```
"""


def test_blocks_share_a_namespace_and_a_folder(tmp_path):
  readmes.run_python(SMALL, tmp_path)
  assert (tmp_path / "made.txt").read_text() == "here"
  assert [block.language for block in readmes.blocks(SMALL)] == [
    "python",
    "text",
    "python",
    "python",
    "bash",
  ]
  assert readmes.commands(readmes.blocks(SMALL)[-1].code) == [
    ("train", ["--preset=tiny", "--dataset=demo", "--set", "epochs=2"]),
    ("evaluate", ["--workdir=runs/a"]),
  ]
  assert readmes.check_bash(SMALL) == 2


def test_a_failing_block_fails_with_its_line(tmp_path):
  page = "text\n\n```python\nvalue = 1\n\nassert value == 2\n```\n"
  with pytest.raises(AssertionError) as caught:
    readmes.run_python(page, tmp_path, "page.md")
  last = caught.traceback[-1]
  assert str(last.path).endswith("page.md") and last.lineno + 1 == 6


@pytest.mark.parametrize(
  ("command", "message"),
  [
    ("gatrec train --datset=demo", "Unknown command line flag 'datset'"),
    ("gatrec train --seed=one", "seed"),
    ("gatrec train demo", "demo is not a flag"),
    ("gatrec trian --dataset=demo", "no program trian"),
    ("python -m launch.train --set epoch=3", "--set epoch is no setting"),
  ],
)
def test_a_command_that_would_be_refused_fails(command, message):
  with pytest.raises(ValueError, match=message):
    readmes.check_bash(f"```bash\n{command}\n```\n")


def test_a_marked_command_runs_and_its_failure_fails(tmp_path):
  page = "<!-- run -->\n```bash\ngatrec prepare --dataset={} --workdir=run\n```\n"
  assert readmes.run_bash(page.format("demo"), tmp_path) == 1
  assert (tmp_path / "run").is_dir()
  with pytest.raises(AssertionError, match="no-such-file"):
    readmes.run_bash(page.format("no-such-file.csv"), tmp_path)


def test_the_research_scripts_are_short():
  page = (ROOT / "gatrec_jax/models/README.md").read_text()
  scripts = [block.code for block in readmes.blocks(page) if block.language == "python"]
  lines = [sum(bool(line) for line in code.splitlines()) for code in scripts]
  assert len(scripts) == 3 and max(lines) <= 40  # blank ones are not counted


def test_no_page_holds_a_placeholder():
  pages = [*PAGES, ROOT / "BUILD_NOTES.md", ROOT / "launch/benchmarks/RESULTS.md"]
  left = {
    page.name: re.findall(r"^<!-- (?!run |skip: ).*-->", page.read_text(), re.M) for page in pages
  }
  assert not any(left.values()), left
