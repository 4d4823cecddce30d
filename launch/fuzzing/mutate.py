"""Mutations of files that know their format: JSON, tables of text, safetensors, and bytes."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

Files = dict[str, bytes]
"""Contents of the files of one execution, by name within its folder."""

Mutation = Callable[[Random, bytes], bytes]

TEXTS = (
  *("", " ", "\0", "\ufeff", "\u2028", "\u202e", "\x1b[31m", "\r", "\n", "\r\n", "\t", "\\", "'"),
  *('"', '""', '"a', ",", ";", "|", "::", "null", "true", "nan", "NaN", "inf", "-inf", "None"),
  *(
    "0",
    "-0",
    "-1",
    "1.5",
    "1,5",
    "1.203,5",
    "1e400",
    "1e-400",
    "0x10",
    "1_000",
    "１２",
    "²",
    "+5",
  ),
  *("2147483648", "9223372036854775808", "18446744073709551616", "9" * 400, "9" * 5000, "1e308"),
  *("2024-13-45", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "01/02/03", "24:61"),
  *(
    "=1+1",
    "../../x",
    "/etc/passwd",
    "C:\\x",
    "%s%n",
    "{0}",
    "{layer}",
    "[red]",
    "[1]",
    "{}",
    "💥",
  ),
  *("İ", "ß", "e\u0301", "a" * 3000, "<s>", "user_id", "item_id", "rating", "timestamp", "title"),
)
RAW = (  # numbers and texts that json.dumps would not write
  *("1e400", "-1e400", "9" * 400, "9" * 5000, "1.0", "-0", "NaN", "Infinity", "-Infinity", "01"),
  *('"\\ud800"', '"\\u0000"', "[" * 90 + "]" * 90, "[" * 5000 + "]" * 5000, '{"a":' * 3000, "nul"),
)
VALUES = (
  *(None, True, False, 0, 1, -1, 2, 7, 0.5, 2.0, -1.5, 1e308, 1e-308, 2**31, 2**53 + 1, 2**63),
  *(2**64, 10**12, 10**30, "", " ", "x", "1", "1e-6", "a\nb", "\0", "💥", "../x", "a" * 3000),
  *([], {}, [[]], [None], ["a"], [1, 2], {"a": 1}, {"": None}, [[[[1]]]], list(range(300))),
)
BYTES = (
  *(b"\0", b"\xff", b"\xfe\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc3\x28", b"\r"),
  *(b"\n", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"-", b"\x80", b"\x1b[2J", b"PAR1"),
  *(b"\x00" * 8, b"\xff" * 8, b"\x7f\xff\xff\xff", b"\x1f\x8b", b"BZh9", b"PK\x03\x04"),
)
_MARK = "@@raw{}@@"


def in_bytes(rng: Random, data: bytes) -> bytes:
  """Flips, removes, repeats, moves or inserts bytes, or ends the file early."""
  out = bytearray(data)
  for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
    place = rng.randrange(len(out) + 1)
    end = min(len(out), place + rng.choice((1, 1, 2, 4, 8, 64)))
    match rng.randrange(6):
      case 0 if place < len(out):
        out[place] ^= 1 << rng.randrange(8)
      case 1:
        del out[place:end]
      case 2:
        out[place:place] = rng.choice(BYTES)
      case 3:
        out[place:end] = rng.choice(BYTES)
      case 4:
        there = rng.randrange(len(out) + 1)
        out[there:there] = out[place:end]
      case 5 if rng.random() < 0.3:
        del out[place:]
  return bytes(out)


def in_json(rng: Random, data: bytes) -> bytes:
  """Changes values, types, names and nesting of one JSON text."""
  return _dumped(_in_tree(rng, json.loads(data)))


def in_json_lines(rng: Random, data: bytes) -> bytes:
  """Changes some objects of JSON lines, or their order and number."""
  lines = data.split(b"\n")
  for _ in range(rng.choice((1, 1, 2, 5))):
    place = rng.randrange(len(lines))
    match rng.randrange(8):
      case 0:
        lines.insert(place, rng.choice(lines))
      case 1 if len(lines) > 1:
        del lines[place]
      case 2:
        lines[place] = rng.choice((b"", b"null", b"[]", b"1", b"{", b'"x"', b"{}", b" ", b"[1]"))
      case _ if lines[place].startswith(b"{"):
        try:
          lines[place] = _dumped(_in_tree(rng, json.loads(lines[place])))
        except (ValueError, RecursionError):  # of an earlier mutation
          lines[place] = in_bytes(rng, lines[place])
  return b"\n".join(lines)


def in_rows(separator: str) -> Mutation:
  """Changes fields, rows, names, line ends, quotation or encoding of a table of text."""

  def mutate(rng: Random, data: bytes) -> bytes:
    rows = [line.split(separator) for line in data.decode().split("\n")]
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
      row = rng.choice(rows)
      column = rng.randrange(len(row))
      match rng.randrange(12):
        case 0:
          rows.insert(rng.randrange(len(rows) + 1), list(row))
        case 1 if len(rows) > 1:
          rows.remove(row)
        case 2:
          row.insert(column, rng.choice(TEXTS))
        case 3 if len(row) > 1:
          del row[column]
        case 4:  # a whole column
          value = rng.choice(TEXTS)
          for other in rows[rng.choice((0, 1)) :]:
            if column < len(other):
              other[column] = value
        case 5:
          row[column] = f'"{row[column]}"'
        case 6:
          row[column] = rng.choice(TEXTS) + row[column]
        case 7:
          rows[0][rng.randrange(len(rows[0]))] = rng.choice(TEXTS)
        case _:
          row[column] = rng.choice(TEXTS)
    end = rng.choice(("\n",) * 12 + ("\r\n", "\r", "\n\n"))
    text = end.join(
      (separator if rng.random() < 0.995 else rng.choice(",;\t|")).join(row) for row in rows
    )
    encoding = rng.choice(("utf-8",) * 20 + ("utf-16", "utf-16-le", "latin-1", "utf-8-sig"))
    return text.encode(encoding, "replace")

  return mutate


def in_safetensors(rng: Random, data: bytes) -> bytes:
  """Changes the header of a safetensors file, its length, or the numbers behind it."""
  (size,) = struct.unpack("<Q", data[:8])
  header, body = data[8 : 8 + size], data[8 + size :]
  match rng.randrange(6):
    case 0:
      return struct.pack("<Q", rng.choice((0, 1, size - 1, size + 1, 1 << 20, 1 << 40))) + data[8:]
    case 1:
      return data[: 8 + size] + in_bytes(rng, body)
    case 2:
      header = in_bytes(rng, header)
    case 3:
      tree = json.loads(header)
      field = rng.choice(("dtype", "shape", "data_offsets"))
      values = {
        "dtype": ("I32", "F64", "F16", "BF16", "F8_E4M3", "BOOL", "U64", "F4", "C64", "X"),
        "shape": ([], [0], [-1], [1 << 62, 1 << 62], [1 << 40], [2, 2], "2"),
        "data_offsets": ([0, 0], [-4, 4], [4, 0], [0, 1 << 62], [0, 1 << 64], [0], [0, 4, 8]),
      }
      tree[rng.choice(list(tree))] |= {field: rng.choice(values[field])}
      header = json.dumps(tree).encode()
    case _:
      header = _dumped(_in_tree(rng, json.loads(header)))
  return struct.pack("<Q", len(header)) + header + body


def some_of(changes: Mapping[str, Mutation], *, raw: float = 0.15) -> Callable[..., Files]:
  """Mutates one or two files, each as its name says, and bytes with probability `raw`.

  Args: changes: by the end of the file's name, the longest that fits; others are changed as bytes.
  """

  def mutate(rng: Random, files: Files) -> Files:
    out = dict(files)
    for name in rng.sample(sorted(out), min(len(out), rng.choice((1, 1, 1, 2)))):
      ends = sorted((end for end in changes if name.endswith(end)), key=len)
      own = changes[ends[-1]] if ends and rng.random() >= raw / 2 else in_bytes
      try:
        out[name] = own(rng, out[name])
      except Exception:  # what was changed before can no longer be read or written in its format
        out[name] = in_bytes(rng, out[name])
      if own is not in_bytes and rng.random() < raw / 2:
        out[name] = in_bytes(rng, out[name])
    if len(out) > 1 and rng.random() < 0.02:
      del out[rng.choice(sorted(out))]
    return out

  return mutate


def _in_tree(rng: Random, tree: Any) -> Any:
  for _ in range(rng.choice((1, 1, 1, 2, 3))):
    places = list(_places(tree))
    if not places or rng.random() < 0.01:
      tree = _value(rng)
      continue
    holder, key = rng.choice(places)
    value = holder[key]
    match rng.randrange(10):
      case 0:
        del holder[key]
      case 1 if isinstance(holder, dict):
        del holder[key]
        holder[rng.choice(TEXTS)] = value
      case 2 if isinstance(holder, list):
        holder.append(value)
      case 3:
        holder[key] = [value] if rng.random() < 0.7 else {"a": value}
      case 4:
        holder[key] = rng.choice(places)[0]
        if _is_circular(tree):
          holder[key] = value
      case 5 | 6 if isinstance(value, int | float) and not isinstance(value, bool):
        holder[key] = _near(rng, value)
      case 7 if isinstance(value, str):
        holder[key] = rng.choice(
          (value + "x", value[:-1], value * 3, rng.choice(TEXTS), f"{value}.")
        )
      case _:
        holder[key] = _value(rng)
  return tree


def _value(rng: Random) -> Any:
  if rng.random() < 0.2:
    return _MARK.format(rng.randrange(len(RAW)))
  return json.loads(json.dumps(rng.choice((*VALUES, *TEXTS[:40]))))  # a copy


def _near(rng: Random, value: float) -> Any:
  found = rng.choice((-value, value + 1, value - 1, value * 1000, value / 2, float(value), 0))
  return found if math.isfinite(found) else 0


def _places(tree: Any) -> Sequence[tuple[Any, Any]]:
  """(container, key) of every value."""
  found, left = [], [tree]
  while left and len(found) < 2000:
    one = left.pop()
    keys = list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ()
    for key in keys:
      found.append((one, key))
      left.append(one[key])
  return found


def _is_circular(tree: Any) -> bool:
  try:
    json.dumps(tree)
  except (ValueError, RecursionError):
    return True
  return len(_places(tree)) >= 2000


def _dumped(tree: Any) -> bytes:
  text = json.dumps(tree, ensure_ascii=False)
  for place, raw in enumerate(RAW):
    text = text.replace(f'"{_MARK.format(place)}"', raw)
  return text.encode("utf-8", "surrogatepass")
