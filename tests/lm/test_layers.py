"""The sub-packages of gatrec_jax.lm import only each other's lower layers."""

import ast

from helpers.paths import ROOT

# From the ground up. Seven files of `folders` know no model; the other two load and export one.
LAYERS = (
  (
    "folders.fields",
    "folders.gguf",
    "folders.gguf_blocks",
    "folders.source",
    "folders.decoder_source",
    "folders.encoder_source",
    "folders.weights",
    "folders.memory",
  ),
  ("tokens",),
  ("decoder",),
  ("folders.load", "folders.export"),
  ("encoder", "constraints"),
  ("inference",),
  ("finetune",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
LM = ROOT / "gatrec_jax" / "lm"


def level_of(module):
  """The layer of a module such as `gatrec_jax.lm.folders.load`."""
  parts = module.split(".")[2:4]
  return LEVEL.get(".".join(parts), LEVEL.get(parts[0]))


def upward(module, source):
  """Modules of lm that `module` imports from a layer that is not lower, except its own package."""
  package = module.rsplit(".", 1)[0]
  found = []
  for node in ast.walk(ast.parse(source)):
    if not isinstance(node, ast.ImportFrom) or not node.module.startswith("gatrec_jax.lm"):
      continue
    names = [node.module] if len(node.module.split(".")) > 3 else []
    names = names or [f"{node.module}.{alias.name}" for alias in node.names]
    found += [
      name for name in names if not name.startswith(package) and level_of(name) >= level_of(module)
    ]
  return found


def test_imports_go_down():
  for path in LM.glob("*/*.py"):
    if path.name != "__init__.py":
      module = f"gatrec_jax.lm.{path.parent.name}.{path.stem}"
      assert upward(module, path.read_text()) == [], module


def test_an_upward_import_is_found():
  decoder = "gatrec_jax.lm.decoder.model"
  assert upward(decoder, "from gatrec_jax.lm.folders.load import load_decoder")
  assert upward(decoder, "def f():\n  from gatrec_jax.lm.finetune import losses")
  assert not upward(decoder, "from gatrec_jax.lm.folders.weights import Rule")
