"""Loads safetensors files into parameters through a name table.

A name table is a sequence of `Rule`s: which tensors of the file form each parameter, which shapes
they must have, and whether they are transposed. Names and shapes are checked before anything is
read, and all mismatches are reported in one error.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes  # noqa: F401  (registers bfloat16 with numpy, which safetensors needs)
import numpy as np

from gatrec_jax.errors import InputError
from gatrec_jax.sharding.placement import to_device

Place = Callable[[str, np.ndarray], jax.Array]
MOST_NAMED = 20  # tensors or files in one message
Tensors = Mapping[str, tuple[Any, str]]  # name -> (open memory-mapped file, name in the file)
FLOATS = ("F64", "F32", "F16", "BF16")


@dataclasses.dataclass(frozen=True)
class Rule:
  """How one parameter is formed from the tensors of a file.

  Attributes:
    target: path of the parameter, parts joined by "/", such as `layers/attention/qkv/kernel`.
    sources: (name, shape) pairs of tensors in the file, concatenated along the parameter's last
      axis; `{layer}` in a name stands for the layer's number.
    transpose: whether the file's matrices are [out, in] and the parameter's [in, out].
    layers: number of layers to stack along a new leading axis; None for one tensor.
    optional: whether to leave the parameter out if the file has none of its sources.
  """

  target: str
  sources: tuple[tuple[str, tuple[int, ...]], ...]
  transpose: bool = False
  layers: int | None = None
  optional: bool = False

  def names(self) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yields all (tensor name, shape) pairs that the rule reads."""
    for layer in range(1 if self.layers is None else self.layers):
      for name, shape in self.sources:
        yield name.format(layer=layer), shape


def weight_files(folder: Path, *, loader: str = "AutoModel") -> list[Path]:
  """Lists the safetensors files of a model folder: `model.safetensors`, or the index's shards.

  An index that is left beside a whole `model.safetensors` is overlooked, as elsewhere.

  Args: folder: of the model. loader: the transformers class that can convert a `.bin` file.
  Raises: InputError if there are none; the message says how to convert a `.bin` file.
  """
  index = folder / "model.safetensors.index.json"
  names = _shards(index) if index.is_file() else []
  whole = folder / "model.safetensors"
  if whole.is_file() and whole.name not in names:
    return [whole]
  if names:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
      raise InputError(f"{folder}: shards named by {index.name} are missing: {some(missing)}")
    return [folder / name for name in names]
  others = sorted(path.name for path in folder.glob("*.bin"))
  if others:
    raise InputError(
      f"{folder}: has only {others[0]}; convert it to safetensors once, where torch is installed: "
      'python -c "from transformers import '
      f"{loader}; {loader}.from_pretrained('{folder}').save_pretrained('{folder}')\""
    )
  raise InputError(f"{folder}: no weights; needs model.safetensors, or shards and their index")


def _shards(index: Path) -> list[str]:
  """The names of the files that an index lists, all of them in its own folder."""
  try:
    names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
  except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
    raise InputError(f"{index}: not a valid index of weights ({str(error)[:100]})") from None
  for name in names:
    if not isinstance(name, str) or not name.endswith(".safetensors"):
      raise InputError(f"{index}: names {str(name)[:60]!r}, which is no .safetensors file")
    inside(index.parent, name, index)
  return sorted(names)


def inside(folder: Path, name: str, where: Path) -> Path:
  """`folder / name`. Raises: InputError that names the file `where` if that lies outside."""
  if "\0" in name or Path(name).is_absolute() or ".." in Path(name).parts:
    raise InputError(f"{where}: names {name[:60]!r}, which lies outside of the folder")
  return folder / name


def some(names: Sequence[str], *, between: str = ", ") -> str:
  """The first of several names or problems, and how many more there are."""
  more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
  return between.join(name[:200] for name in names[:MOST_NAMED]) + more


def load_params(
  folder: str | Path,
  rules: Sequence[Rule],
  *,
  dtype: Any = "float32",
  renames: Sequence[tuple[str, str]] = (),
  unused: Sequence[str] = (),
  place: Place | None = None,
) -> dict[str, Any]:
  """Loads the parameters of a model folder as a nested dict.

  Args:
    folder: contains the safetensors files.
    rules: the name table.
    dtype: floating-point tensors are cast to it, one parameter at a time.
    renames: (regular expression, replacement) pairs, applied to the file's names first.
    unused: regular expressions of names (after `renames`) to ignore.
    place: function (target path, array) -> device array; by default, arrays go to the default
      device.
  Returns: nested dict of arrays, keyed by the parts of the targets' paths.
  Raises: InputError that lists every missing, unexpected and misshaped tensor, or names a damaged
    file.
  """
  with open_tensors(Path(folder), renames) as tensors:
    return params_of(tensors, rules, where=Path(folder), dtype=dtype, unused=unused, place=place)


def params_of(
  tensors: Tensors,
  rules: Sequence[Rule],
  *,
  where: Path,
  dtype: Any = "float32",
  unused: Sequence[str] = (),
  place: Place | None = None,
  read: Callable[[Rule, Tensors, np.dtype], Any] | None = None,
) -> dict[str, Any]:
  """The same from tensors that are open.

  Args: where: they lie, for messages. read: reads a parameter for `place`; None for `read_rule`.
  """
  read = read or read_rule
  place = place or (lambda _, array: to_device(array))
  params: dict[str, Any] = {}
  for rule in matched_rules(where, tensors, rules, unused):
    node = params
    *parents, leaf = rule.target.split("/")
    for part in parents:
      node = node.setdefault(part, {})
    node[leaf] = place(rule.target, read(rule, tensors, jnp.dtype(dtype)))
  return params


@contextlib.contextmanager
def open_tensors(folder: Path, renames: Sequence[tuple[str, str]]) -> Iterator[Tensors]:
  """Opens the files of a folder, and reads their headers alone.

  Args: folder: of the model. renames: as in `load_params`.
  Yields: tensor name after `renames` -> (open memory-mapped file, name in the file).
  Raises: InputError for a damaged file, or two tensors that take the same name.
  """
  from safetensors import safe_open

  tensors: dict[str, tuple[Any, str]] = {}
  with contextlib.ExitStack() as stack:
    for path in weight_files(folder):
      with readable_weights(path):
        file = stack.enter_context(safe_open(path, framework="numpy"))
      for name in file.keys():
        ours = name
        for pattern, replacement in renames:
          ours = re.sub(pattern, replacement, ours)
        if tensors.get(ours, (None, name))[1] != name:
          raise InputError(f"{path}: has both {tensors[ours][1]} and {name}, which are the same")
        tensors[ours] = (file, name)
    yield tensors


@contextlib.contextmanager
def readable_weights(path: Path) -> Iterator[None]:
  """Converts what safetensors raises for a damaged file into an InputError with `path`."""
  from safetensors import SafetensorError

  try:
    yield
  except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
    reason = " ".join(str(error).split())[:200]
    raise InputError(
      f"{path}: damaged or truncated ({reason}); copy or download it again"
    ) from None


def matched_rules(
  folder: Path, tensors: Tensors, rules: Sequence[Rule], unused: Sequence[str]
) -> list[Rule]:
  """Returns the rules whose tensors exist, after checking all names, shapes and dtypes.

  Nothing but headers is read, so that sizes in config.json that do not belong to the weights are
  found before anything is allocated.
  """
  kept, wanted, problems = [], set(), []
  for rule in rules:
    pairs = list(rule.names())
    if rule.optional and not any(name in tensors for name, _ in pairs):
      continue
    kept.append(rule)
    for name, shape in pairs:
      wanted.add(name)
      if name not in tensors:
        problems.append(f"missing {name} {list(shape)}")
        continue
      file, original = tensors[name]
      slice_ = file.get_slice(original)
      if (found := tuple(slice_.get_shape())) != tuple(shape):
        problems.append(f"{name} is {list(found)}, expected {list(shape)}")
      elif (dtype := slice_.get_dtype()) not in FLOATS:
        problems.append(f"{name} is {dtype}, expected one of {', '.join(FLOATS)}")
  ignored = re.compile("|".join(f"(?:{pattern})" for pattern in unused) or r"(?!)")
  problems += [
    f"unexpected {name}"
    for name in sorted(tensors)
    if name not in wanted and not ignored.fullmatch(name)
  ]
  if problems:
    fields = "its metadata" if folder.is_file() else "config.json"
    raise InputError(
      f"{folder}: the weights do not match {fields}, {len(problems)} tensors: "
      + some(problems, between="; ")
    )
  return kept


def read_rule(rule: Rule, tensors: Tensors, dtype: np.dtype) -> np.ndarray:
  """Reads the rule's parameter, cast to `dtype` tensor by tensor."""
  layers = []
  for layer in range(1 if rule.layers is None else rule.layers):
    parts = []
    for name, _ in rule.sources:
      file, original = tensors[name.format(layer=layer)]
      array = file.get_tensor(original).astype(dtype, copy=False)
      parts.append(array.T if rule.transpose else array)
    layers.append(parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1))
  return layers[0] if rule.layers is None else np.stack(layers)
