"""Every example in the library's docstrings runs, and the public functions of the math have one."""

import doctest
import importlib
import inspect
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gatrec_jax
from gatrec_jax import evaluate, models, ops, serve, train
from gatrec_jax.data import graph
from gatrec_jax.evaluate import metrics

# Docstrings may use these, and all public names, without importing them.
NAMES = {"jax": jax, "jnp": jnp, "np": np}
for package in (gatrec_jax, ops, models, train, evaluate, serve):
  NAMES |= {name: getattr(package, name) for name in package.__all__}
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
PUBLIC = {
  f"{one.__module__}.{name}": one
  for module in (ops, evaluate, models, metrics, graph)
  for name, one in vars(module).items()
  if inspect.isfunction(one) and not name.startswith("_")
}


def modules():
  for found in pkgutil.walk_packages(gatrec_jax.__path__, "gatrec_jax."):
    yield found.name


def examples_of(module):
  finder = doctest.DocTestFinder(exclude_empty=True)
  found = finder.find(module, module.__name__)
  return [test for test in found if test.examples]


@pytest.mark.parametrize("name", sorted(modules()))
def test_examples_run(name):
  module = importlib.import_module(name)
  for test in examples_of(module):
    test.globs |= NAMES | vars(module)
    report = []
    doctest.DocTestRunner(optionflags=FLAGS).run(test, out=report.append)
    assert not report, "".join(report)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_functions_show_how_they_are_called(name):
  assert ">>>" in inspect.getdoc(PUBLIC[name])


def test_a_wrong_example_fails():
  test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
  report = []
  doctest.DocTestRunner(optionflags=FLAGS).run(test, out=report.append)
  assert "Expected" in "".join(report)
