"""Which package may import which: only those on lower lines, and no file in a circle."""

import ast
import pathlib

import pytest
from helpers.paths import ROOT

# From the ground up. A package imports packages of the lines below it, and files of its own folder.
LAYERS = (
  ("errors",),
  ("config", "runs", "sharding"),
  ("data", "lm"),
  ("ops", "evaluate", "profiles"),
  ("models", "stages"),
  ("train",),
  ("serve",),
  ("experiment",),
  ("explain",),
  ("rerank",),
)
LEVEL = {package: level for level, line in enumerate(LAYERS) for package in line}
MOST_FILES, MOST_LINES = 16, 400


def module_of(path, root):
  return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def modules(root):
  """{module: path} of the library and its programs."""
  paths = [*root.glob("gatrec_jax/**/*.py"), *root.glob("launch/**/*.py")]
  return {module_of(path, root): path for path in paths}


def imports(root):
  """{module: {module that it imports}}, those within functions too, names resolved to modules."""
  known = modules(root)
  found = {}
  for module, path in known.items():
    found[module] = set()
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.ImportFrom):
        assert not node.level, f"{module}: relative import"
        for alias in node.names:
          full = f"{node.module}.{alias.name}"
          found[module].add(full if full in known else node.module)
      elif isinstance(node, ast.Import):
        found[module].update(alias.name for alias in node.names)
    found[module] = {other for other in found[module] if other in known and other != module}
  return found


def upward(found):
  """Imports that the layers do not allow, as "a imports b"."""
  wrong = []
  for module, others in sorted(found.items()):
    for other in sorted(others):
      if not allowed(module, other):
        wrong.append(f"{module} imports {other}")
  return wrong


def allowed(module, other):
  top, other_top = module.partition(".")[0], other.partition(".")[0]
  if top == "launch":
    return True
  if other_top == "launch":
    return False
  package, other_package = package_of(module), package_of(other)
  if package is None:  # gatrec_jax/__init__.py
    return True
  if other_package is None:
    return False
  if package == other_package:
    return True
  return LEVEL[other_package] < LEVEL[package]


def package_of(module):
  """`ops` of `gatrec_jax.ops.losses`; None of `gatrec_jax` itself."""
  parts = module.split(".")
  return parts[1] if len(parts) > 1 else None


def circles(found):
  """Modules that import each other in a circle, a list of them for each circle."""
  order, low, stack, rings = {}, {}, [], []

  def visit(module):
    order[module] = low[module] = len(order)
    stack.append(module)
    for other in sorted(found[module]):
      if other not in order:
        visit(other)
        low[module] = min(low[module], low[other])
      elif other in stack:
        low[module] = min(low[module], order[other])
    if low[module] == order[module]:
      ring = []
      while not ring or ring[-1] != module:
        ring.append(stack.pop())
      if len(ring) > 1:
        rings.append(sorted(ring))

  for module in sorted(found):
    if module not in order:
      visit(module)
  return rings


def test_imports_go_down_only():
  assert upward(imports(ROOT)) == []


def test_no_circle_of_imports():
  assert circles(imports(ROOT)) == []


@pytest.mark.parametrize(
  ("file", "line", "wrong"),
  [
    (
      "gatrec_jax/ops/planted.py",
      "from gatrec_jax.models.base import Recommender",
      "gatrec_jax.ops.planted imports gatrec_jax.models.base",
    ),
    (
      "gatrec_jax/models/planted.py",
      "def f():\n  from gatrec_jax.train import loop",
      "gatrec_jax.models.planted imports gatrec_jax.train.loop",
    ),
    (
      "gatrec_jax/config/planted.py",
      "import launch.train",
      "gatrec_jax.config.planted imports launch.train",
    ),
  ],
)
def test_an_upward_import_is_found(tmp_path, file, line, wrong):
  for module, path in modules(ROOT).items():
    del module
    copy = tmp_path / path.relative_to(ROOT)
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_text(path.read_text())
  (tmp_path / file).write_text(line + "\n")
  assert upward(imports(tmp_path)) == [wrong]


def test_a_circle_is_found():
  assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def test_files_and_folders_are_of_a_size_to_read():
  files = [path for path in ROOT.glob("**/*.py") if not {".venv", "build"} & set(path.parts)]
  long = {
    str(path.relative_to(ROOT)): lines for path in files if (lines := count(path)) > MOST_LINES
  }
  assert not long
  folders = {path.parent for path in (ROOT / "gatrec_jax").glob("**/*.py")}
  full = {
    str(folder.relative_to(ROOT)): held
    for folder in folders
    if (held := sum(one.is_file() for one in folder.iterdir())) > MOST_FILES
  }
  assert not full


def count(path: pathlib.Path) -> int:
  return len(path.read_text().splitlines())
