"""Renders chat templates, which come with models from anywhere, with limits of time and memory.

Jinja's sandbox keeps a template from Python's internals, but not from `{{ 'a' * 10**9 }}` or loops
in loops. Here the syntax tree is instrumented before it is compiled: loops, macros, literals and
concatenations report to a `_Meter`, and so do operators, calls and filters. Each single step works
on values of limited size, so that the time is checked often enough.
"""

from __future__ import annotations

import datetime
import functools
import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jinja2
from jinja2 import ext, nodes
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

MAX_SOURCE = 1_000_000
"""Characters of a template; real ones have up to 20,000."""
MAX_STEPS = 100_000
"""Iterations of loops and calls of macros."""
MAX_VALUE = 200_000
"""Characters or entries of one value; also the largest integer argument of a call."""
MAX_TOTAL = 32_000_000
"""Characters and entries of all values together, the output included."""
MAX_SECONDS = 5.0
_MAX_BITS = 10_000
_WIDTH = re.compile(r"\d{5}|\*|\{[^{}]*\{")  # a long field, or one whose width is an argument
_JINJA = ("caller", "_loop_vars", "_block_vars")  # arguments that Jinja adds to calls
_UNBOUNDED = ("urlize", "wordwrap", "pprint", "xmlattr", "random")  # filters in no chat template
_AMPLIFYING = {"replace", "join", "expandtabs", "translate", "format", "format_map"}


class TemplateLimit(Exception):
  """A template went beyond one of the limits, which the message names."""


class ChatTemplate:
  """A compiled chat template."""

  def __init__(self, source: str) -> None:
    """Args: source: in Jinja, as transformers compiles it.
    Raises: TemplateLimit for a source that is too long; jinja2's errors for one that is not Jinja.
    """
    if len(source) > MAX_SOURCE:
      raise TemplateLimit(f"more than {MAX_SOURCE:,} characters of source")
    self._environment = _Environment()
    self._template = self._environment.from_string(source)

  def __call__(self, **values: Any) -> str:
    """The rendered text. Args: values: that the template reads, of plain types.

    Raises: TemplateLimit, or whatever the template raises.
    """
    meter = self._environment.meter
    meter.begin()
    context = self._template.new_context(dict(values))
    return self._environment.concat(self._template.root_render_func(context))


class _Meter(threading.local):
  """What the rendering in this thread has used so far."""

  def begin(self) -> None:
    self.steps = self.total = 0
    self.end = time.monotonic() + MAX_SECONDS

  def step(self) -> str:
    """Counts a step. Returns: "", which a template may print."""
    self.steps += 1
    if self.steps > MAX_STEPS:
      raise TemplateLimit(f"more than {MAX_STEPS:,} steps")
    if time.monotonic() > self.end:
      raise TemplateLimit(f"more than {MAX_SECONDS:g} seconds")
    return ""

  def counted(self, values: Iterable[Any]) -> Iterator[Any]:
    """The values, each counted as a step."""
    for value in values:
      self.step()
      yield value

  def size(self, amount: int) -> None:
    """Counts a value of this size before it is made."""
    if amount > MAX_VALUE:
      raise TemplateLimit(f"a value of more than {MAX_VALUE:,} characters or entries")
    self.total += amount
    if self.total > MAX_TOTAL:
      raise TemplateLimit(f"more than {MAX_TOTAL:,} characters or entries in all")

  def bounded(self, value: Any) -> Any:
    """The value, after its size with everything inside has been counted."""
    self.step()
    self.size(_size(value, MAX_VALUE))
    return value

  def joined(self, *parts: Any) -> str:
    """The operator `~`."""
    return self.concat([str(self.bounded(part)) for part in parts])

  def concat(self, parts: Iterable[str]) -> str:
    """Joins strings as they are made, up to the largest value."""
    found, length = [], 0
    for part in parts:
      length += len(part)
      if length > MAX_VALUE:
        self.size(length)
      found.append(part)
    self.size(length)
    return "".join(found)

  def guarded(self, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter or global function whose arguments and result are counted."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
      args = tuple(map(self.whole, args))
      given = [*args, *kwargs.values()]
      self.arguments(given)
      if function.__name__ == "do_format" and _WIDTH.search(str(args[0])):
        raise TemplateLimit("a field of more than 9,999 characters")
      sizes = [_size(one, MAX_VALUE) for one in given]
      largest = sorted(size for size in sizes if size > 1)[-2:]
      if function.__name__ in ("do_replace", "sync_do_join", "do_join", "do_indent"):
        # Each entry of one argument may be followed by another argument.
        self.size(functools.reduce(lambda a, b: a * b, largest, 1))
      return self.bounded(function(*args, **kwargs))

    return call

  def whole(self, value: Any) -> Any:
    """The value; the list of its values if it is an iterator."""
    return list(self.counted(value)) if isinstance(value, Iterator) else value

  def arguments(self, values: Sequence[Any]) -> None:
    """Checks the arguments of a call: no large integers, and no large values."""
    for value in values:
      if isinstance(value, int) and abs(value) > MAX_VALUE:
        raise TemplateLimit(f"a number above {MAX_VALUE:,} as an argument")
      self.bounded(value)


def _size(value: Any, most: int) -> int:
  """Characters and entries of a value and all within, counted up to `most` and a little more."""
  if isinstance(value, str | bytes):
    return len(value)
  if isinstance(value, int) and not isinstance(value, bool):
    return value.bit_length() // 3
  if isinstance(value, range):
    return len(value)
  if isinstance(value, Mapping) and not isinstance(value, Context):
    parts: Iterable[Any] = (one for pair in value.items() for one in pair)
  elif isinstance(value, list | tuple | set):
    parts = value
  else:
    return 1
  total = 1
  for part in parts:
    total += _size(part, most - total)
    if total > most:
      break
  return total


class _Generation(ext.Extension):
  """The tag `generation` of training templates, whose body is printed as it is."""

  tags = {"generation"}

  def parse(self, parser: Parser) -> list[nodes.Node]:
    next(parser.stream)
    return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Dict:
  """`dict(…)` without the methods of the class."""

  def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
    return dict(*args, **kwargs)


class _Namespace(Namespace):
  """`namespace(…)` without names that begin with an underscore."""

  def __setitem__(self, name: str, value: Any) -> None:
    if name.startswith("_"):
      raise jinja2.exceptions.SecurityError(f"a namespace has no {name!r}")
    super().__setitem__(name, value)


class _Environment(ImmutableSandboxedEnvironment):
  """What transformers gives a template, metered."""

  intercepted_binops = frozenset({"+", "*", "**", "%"})

  def __init__(self) -> None:
    self.meter = _Meter()
    self.meter.begin()
    super().__init__(
      trim_blocks=True,
      lstrip_blocks=True,
      extensions=[_Generation, ext.loopcontrols],
      optimized=False,  # constants would be computed, without limits, while compiling
      finalize=self._finalize,
    )
    self.concat = self.meter.concat
    self.filters = {
      name: self.meter.guarded(one) for name, one in self.filters.items() if name not in _UNBOUNDED
    }
    self.filters["tojson"] = self.meter.guarded(_to_json)
    self.globals = {
      "range": self.meter.guarded(range),
      "dict": _Dict(),
      "namespace": _Namespace,
      "raise_exception": _raise,
      "strftime_now": _now,
      "joiner": self.globals["joiner"],
      "cycler": self.globals["cycler"],
    }

  def _finalize(self, value: Any) -> Any:
    return self.meter.bounded(value)

  def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
    _instrument(source)
    return super()._generate(source, *args, **kwargs)

  def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
    self.meter.step()
    sizes = _size(left, MAX_VALUE), _size(right, MAX_VALUE)
    if operator == "%" and isinstance(left, str | bytes):
      if _WIDTH.search(left if isinstance(left, str) else left.decode("latin-1")):
        raise TemplateLimit("a field of more than 9,999 characters")
      self.meter.size(sizes[0] * 10_000 if left.count("%") > 99 else sum(sizes))
    elif isinstance(left, int) and isinstance(right, int):
      bits = left.bit_length(), right.bit_length()
      grown = bits[0] * max(right, 1) if operator == "**" else sum(bits)
      if operator in ("*", "**") and grown > _MAX_BITS:
        raise TemplateLimit(f"a number of more than {_MAX_BITS:,} bits")
    elif operator == "*":
      times = next((one for one in (left, right) if isinstance(one, int)), 1)
      entries = max(len(one) if hasattr(one, "__len__") else 1 for one in (left, right))
      self.meter.size(max(max(sizes), entries) * max(times, 1))
    elif operator == "+":
      self.meter.size(sum(sizes))
    return super().call_binop(context, operator, left, right)

  def call(self, context: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
    # The sandbox wraps `str.format`.
    owner = getattr(getattr(function, "__wrapped__", function), "__self__", None)
    if owner is self.meter:  # from `_instrument`; templates cannot name it
      return super().call(context, function, *args, **kwargs)
    args = tuple(map(self.meter.whole, args))
    given = [*args, *(value for name, value in kwargs.items() if name not in _JINJA)]
    self.meter.arguments(given)
    name = getattr(function, "__name__", "")
    if isinstance(owner, str | bytes) and name in _AMPLIFYING:
      if name.startswith("format") and _WIDTH.search(str(owner)):
        raise TemplateLimit("a field of more than 9,999 characters")
      numbers = [one for one in given if isinstance(one, int)]
      sizes = [_size(one, MAX_VALUE) for one in given]
      self.meter.size((len(owner) + 1) * max([1, *sizes, *numbers]))
    return self.meter.bounded(super().call(context, function, *args, **kwargs))


def _instrument(template: nodes.Template) -> None:
  """Lets loops, macros, literals and concatenations of a syntax tree report to the meter."""

  def metered(name: str, *arguments: nodes.Expr) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(f"meter.{name}"), list(arguments), [], None, None)

  def rebuilt(node: nodes.Node) -> None:
    for field, value in node.iter_fields():
      if isinstance(value, list):
        setattr(node, field, [changed(one) for one in value])
      elif isinstance(value, nodes.Node):
        setattr(node, field, changed(value))

  def changed(node: Any) -> Any:
    if not isinstance(node, nodes.Node):
      return node
    rebuilt(node)
    line = node.lineno
    if isinstance(node, nodes.For) and node.test is not None:
      node.iter = metered("counted", node.iter).set_lineno(line)
    if isinstance(node, nodes.For | nodes.Macro | nodes.CallBlock):
      node.body = [nodes.ExprStmt(metered("step")).set_lineno(line), *node.body]
    elif isinstance(node, nodes.Concat):
      return metered("joined", *node.nodes).set_lineno(line)
    elif isinstance(node, nodes.List | nodes.Dict) or (
      isinstance(node, nodes.Tuple) and node.ctx == "load"
    ):
      return metered("bounded", node).set_lineno(line)
    return node

  rebuilt(template)


def _to_json(
  value: Any,
  ensure_ascii: bool = False,
  indent: int | None = None,
  separators: tuple[str, str] | None = None,
  sort_keys: bool = False,
) -> str:
  return json.dumps(
    value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
  )


def _now(form: str) -> str:
  if _WIDTH.search(form):
    raise TemplateLimit("a field of more than 9,999 characters")
  return datetime.datetime.now().strftime(form)


def _raise(message: str) -> None:
  raise jinja2.exceptions.TemplateError(message)
