"""Reads GGUF files, the format of llama.cpp: metadata, and tensors in any of its quantizations.

The `gguf` package knows the types, and dequantizes those that `gguf_blocks` does not. Its reader is
not used: it takes seconds for the 150,000 to 260,000 tokens of a vocabulary, and trusts the file's
own sizes.
"""

from __future__ import annotations

import dataclasses
import math
import mmap
import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gatrec_jax.errors import InputError
from gatrec_jax.lm.folders.gguf_blocks import has_blocks, values_of

SUFFIX = ".gguf"
_MAGIC, _VERSIONS = b"GGUF", (2, 3)
_STRING, _ARRAY = 8, 9
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}
_NUMBERS |= {12: "d"}
_MOST_FIELDS, _MOST_TENSORS, _MOST_AXES = 100_000, 1_000_000, 4
_ALIGNMENT = 32
_PART = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


@dataclasses.dataclass(frozen=True)
class Stored:
  """A tensor as it lies in a file.

  Attributes:
    shape: as NumPy has it, slowest axis first.
    kind: name of its type, such as `Q4_K`.
    data: [bytes] uint8, a view of the memory-mapped file.
  """

  shape: tuple[int, ...]
  kind: str
  data: np.ndarray


@dataclasses.dataclass(frozen=True)
class GgufFile:
  """The contents of a GGUF file, or of all parts of one that was split.

  Attributes:
    path: of the file, or of its first part. paths: of all parts.
    fields: metadata by key: numbers, texts, lists, arrays.
    tensors: by name.
  """

  path: Path
  paths: tuple[Path, ...]
  fields: Mapping[str, Any]
  tensors: Mapping[str, Stored]


def is_gguf(path: Path) -> bool:
  """Whether a path is a GGUF file, by its ending (it need not exist) or its first bytes."""
  if path.suffix.lower() == SUFFIX:
    return not path.is_dir()
  try:
    with path.open("rb") as file:
      return file.read(len(_MAGIC)) == _MAGIC
  except (OSError, ValueError):
    return False


def read_gguf(path: Path) -> GgufFile:
  """Reads the metadata of a file and maps its tensors into memory.

  Args: path: of the file, or of any part of a split one.
  Raises: InputError: missing, damaged, of another version, or parts that do not belong together.
  """
  paths = gguf_parts(path)
  fields: dict[str, Any] = {}
  tensors: dict[str, Stored] = {}
  for number, part in enumerate(paths):
    own, stored = _read(part)
    if number == 0:
      fields = own
    if len(paths) > 1 and own.get("split.no", number) != number:
      raise InputError(f"{part}: has split.no {own['split.no']}, not {number}")
    if twice := sorted(set(tensors) & set(stored)):
      raise InputError(f"{part}: has {twice[0]}, which another part has, too")
    tensors |= stored
  wanted = fields.get("split.tensors.count", len(tensors))
  if wanted != len(tensors):
    raise InputError(f"{paths[0]}: announces {wanted} tensors, its parts have {len(tensors)}")
  if fields.get("split.count", 1) not in (0, len(paths)):
    raise InputError(
      f"{path}: is one of {fields['split.count']} parts; their names must end in "
      "-00001-of-0000N.gguf, as llama.cpp writes them"
    )
  return GgufFile(paths[0], tuple(paths), fields, tensors)


def gguf_parts(path: Path) -> list[Path]:
  """All parts of a split file, given any of them, in their order; else the path alone.

  Raises: InputError: one is missing.
  """
  match = _PART.fullmatch(path.name)
  if match is None:
    return [path]
  count = int(match["count"])
  names = [f"{match['stem']}-{n:05d}-of-{count:05d}.gguf" for n in range(1, count + 1)]
  paths = [path.with_name(name) for name in names]
  if missing := [one.name for one in paths if not one.is_file()]:
    raise InputError(f"{path}: of its {count} parts, {missing[0]} is missing in {path.parent}")
  return paths or [path]


def dequantized(stored: Stored) -> np.ndarray:
  """A tensor's values, float32 in its shape. Raises: InputError: of a type that has none."""
  import gguf

  if has_blocks(stored.shape, stored.kind):
    return values_of(stored.data, stored.shape, stored.kind)
  if not can_dequantize(stored.kind):
    raise InputError(f"type {stored.kind} of a tensor cannot be dequantized")
  # Row by row, which bounds the temporaries of the package.
  rows = stored.data.reshape(max(1, math.prod(stored.shape[:-1])), -1)
  values = gguf.quants.dequantize(rows, gguf.GGMLQuantizationType[stored.kind])
  # Of float32 numbers that is a view of the file, which may change; then a copy.
  return np.require(values.reshape(stored.shape), np.float32, "W")


def can_dequantize(kind: str) -> bool:
  """Whether `dequantized` knows a type, by its name."""
  import gguf

  return kind in ("F32", "F16") or gguf.GGMLQuantizationType[kind] in gguf.quants._type_traits


class GgufTensors:
  """A file's tensors as `folders.weights` reads those of safetensors, dequantized one by one.

  Attributes:
    file: that they are in.
    changes: name -> what is done with a tensor's values, such as another order of their rows.
  """

  def __init__(
    self, file: GgufFile, changes: Mapping[str, Callable[[np.ndarray], np.ndarray]]
  ) -> None:
    self.file, self.changes = file, changes

  def get_slice(self, name: str) -> _Header:
    """Shape and type of a tensor."""
    return _Header(self.file.tensors[name])

  def get_tensor(self, name: str) -> np.ndarray:
    """Its values, float32."""
    values = dequantized(self.file.tensors[name])
    change = self.changes.get(name)
    return values if change is None else change(values)


class _Header:
  def __init__(self, stored: Stored) -> None:
    self._stored = stored

  def get_shape(self) -> list[int]:
    return list(self._stored.shape)

  def get_dtype(self) -> str:
    # Whatever can be dequantized is float32 once it is read.
    return "F32" if can_dequantize(self._stored.kind) else self._stored.kind


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Stored]]:
  """Metadata and tensors of one file."""
  try:
    with path.open("rb") as file:
      if file.read(4) != _MAGIC:
        raise InputError(f"{path}: not a GGUF file (it does not begin with GGUF)")
      whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
  except (OSError, ValueError) as error:
    reason = getattr(error, "strerror", None) or error
    raise InputError(f"{path}: cannot be read: {reason}") from None
  try:
    return _contents(path, _Cursor(whole))
  except (_Damage, UnicodeDecodeError, KeyError, OverflowError, RecursionError) as error:
    reason = str(error) if isinstance(error, _Damage) else type(error).__name__
    raise InputError(
      f"{path}: damaged or truncated ({reason}); copy or download it again"
    ) from None


def _contents(path: Path, cursor: _Cursor) -> tuple[dict[str, Any], dict[str, Stored]]:
  import gguf

  version = cursor.number("I")
  if version not in _VERSIONS:
    swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in _VERSIONS
    raise InputError(
      f"{path}: is big-endian; convert it for this machine"
      if swapped
      else f"{path}: GGUF version {version}; versions 2 and 3 can be read"
    )
  num_tensors, num_fields = cursor.number("Q"), cursor.number("Q")
  if num_tensors > _MOST_TENSORS or num_fields > _MOST_FIELDS:
    raise _Damage(f"it announces {num_tensors:,} tensors and {num_fields:,} fields")
  fields = {}
  for _ in range(num_fields):
    key = cursor.text()
    fields[key] = cursor.value(cursor.number("I"))
  infos = []
  for _ in range(num_tensors):
    name, axes = cursor.text(), cursor.number("I")
    if axes > _MOST_AXES:
      raise _Damage(f"{name} has {axes} axes")
    shape = tuple(cursor.number("Q") for _ in range(axes))[::-1]
    infos.append((name, shape, cursor.number("I"), cursor.number("Q")))
  alignment = fields.get("general.alignment", _ALIGNMENT)
  if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20:
    raise _Damage(f"general.alignment {alignment!r}")
  first = -(-cursor.place // alignment) * alignment
  data = np.frombuffer(cursor.whole, np.uint8)
  tensors = {}
  for name, shape, kind, offset in infos:
    try:
      kind = gguf.GGMLQuantizationType(kind)
    except ValueError:
      raise InputError(
        f"{path}: {name} has type {kind}, which the gguf package does not know; a newer one may"
      ) from None
    block, size = gguf.GGML_QUANT_SIZES[kind]
    count = math.prod(shape)
    if (shape[-1] if shape else 1) % block:
      raise _Damage(f"{name} has rows of {shape[-1]}, not a multiple of {block}")
    begin, length = first + offset, count // block * size
    if begin + length > len(data):
      raise _Damage(f"{name} ends beyond the file")
    tensors[name] = Stored(shape, kind.name, data[begin : begin + length])
  return fields, tensors


class _Damage(Exception):
  """What is wrong with the bytes of a file, in words."""


class _Cursor:
  """Reads one value after another from a buffer; `_Damage` beyond its end."""

  def __init__(self, whole: mmap.mmap) -> None:
    self.whole, self.place = whole, len(_MAGIC)

  def number(self, kind: str) -> Any:
    try:
      (value,) = struct.unpack_from(f"<{kind}", self.whole, self.place)
    except struct.error:
      raise _Damage(f"it ends after {len(self.whole):,} bytes, within its metadata") from None
    self.place += struct.calcsize(f"<{kind}")
    return value

  def text(self) -> str:
    length = self.number("Q")
    found = self.whole[self.place : self.place + length]
    if len(found) < length:
      raise _Damage(f"a text of {length:,} bytes does not fit into it")
    self.place += length
    return found.decode("utf-8")

  def value(self, kind: int, *, depth: int = 0) -> Any:
    if kind == _STRING:
      return self.text()
    if kind != _ARRAY:
      return self.number(_NUMBERS[kind])
    inner, count = self.number("I"), self.number("Q")
    if count > len(self.whole) or depth > 2:
      raise _Damage(f"a list of {count:,} values does not fit into it")
    if inner in _NUMBERS:
      dtype = np.dtype(f"<{_NUMBERS[inner]}")
      if self.place + count * dtype.itemsize > len(self.whole):
        raise _Damage(f"a list of {count:,} numbers does not fit into it")
      found = np.frombuffer(self.whole, dtype, count, self.place)
      self.place += found.nbytes
      return found.tolist()
    return [self.value(inner, depth=depth + 1) for _ in range(count)]
