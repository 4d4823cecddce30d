"""Reads profiles from files, and refuses those that are known to reflect test ratings."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Iterable, Sequence

from gatrec_jax import runs
from gatrec_jax.data.tables.row_reader import has_half_pair
from gatrec_jax.errors import InputError
from gatrec_jax.runs.paths import user_path

_TEXT_FIELDS = ("profile", "summary")
_DIGESTED_CHARACTERS = 160
_MIN_MATCHES = 3

# Published texts that a language model wrote from ratings, as the first 8 hex digits of the sha256
# of the normalized beginnings of users' texts, evenly spaced over the file. They identify a copy
# that was renamed, reordered or shortened, without containing the texts.
_ML100K_U1_DIGESTS = frozenset(
  """
7399bfab 3d747dc3 2afe5475 bcbea9d3 2cc913e4 b8f6f825 cc0f552b 02a8a3b3 ff7eb60e a8a02669
ff579060 6cfdb2e3 525031b1 a6bf989d a29ff0da ddccbf21 625fd3f2 70dab134 e8acb6bb de98a26a
c1b3a92f b919f5ec 40c70d93 87ebc3bb cc06856c 3ec3d5be 28afdb7b d34503da 7bae7bbb c855d024
68f9ece1 a4a0441d 5c31a0ba 8b0d97f1 d40d4242 235c2608 67889c1a 77c8de74 425ea713 dc00b55c
fe532a7c 007bb1c3 005d2a50 e3b30177 e91facf8 0933f46d 82e45c68 0307ed06 05eca391 78076c5a
33efc07f aa6b8e7d d4e05926 f3e27a6d b71d584d c1f750ef 61e7f0af ee98e4f0 11500b8b a70ff84b
257a204a fb806305 f389de96 2125acac e8d3bfe6 85504852 012eb4d7 dfa9c4b7 b2715c12 f5cc6613
f1ddf1c8 75e7fc1e e2b71356 afcfa33a 17509792 be40a2a3 773cf975 7b75c39b fa602fab 738c250f
""".split()
)
_ML1M_DIGESTS = frozenset(
  """
178e05be 1f7b3b4e 627648ba aa040e49 bab0b152 534ba744 1815d63b ed47193d d7952743 83aeaf56
699a6bef d14641d0 b5a9d1c3 2fff8136 96ec4d3c 86a15351 7dfb0678 95760b6f 6c625196 f218daaa
f53dfe65 34a6dbcf c39d17e2 4f222c59 8fdcff02 2c2e1eca b762ab4c 6617237b debd0087 99345034
1d5212a8 5ad9f82c d4dc4ad7 49a0a2bd c9e3969a 66f5e086 a28ffdf4 d38cd554 1db73bfb 7606e14e
525ce479 8695b671 d3a338f1 3260e097 5308ddab e5171b85 d4010b9b 7f5718b6 ff246d97 153bcc97
7dd71633 ce43a80c 587a0daa 0606a30c e875e8cf 659b4998 7a8da937 e102f917 06431a3f 3959097e
0392fbdf e5913071 27b13499 4ebca875 04e056dd f4418744 aae0e5f8 a122b439 4bcebd0b 98284176
795e18fe b72f76fb 3e148019 48924cd1 5cbf1622 5445f9ed b4ea2425 e2400bad 9baa5665 56d975c6
84ad8f1a 0d23f779 d6f9517b 5d9c97f7 234c8dd9 5e614173 b9ef57d2 1dfa372d 5d1b2651 afcb4079
8014fc72 4c5395a6 6dddc5b0 43e59960 4780d0b5 14e3d2a0 ec2a03b5 77c9b470 4c90f39e 8966d79b
434a9da9 ff988427 44043a60 cd8b1954 13b1f81b f5152f0a cc36cc24 9ee6affa 43347bce f0989a7b
d4763615 8e42fb70 10a2dc3e af6b3418 d83d9455 05931e86 fdf28906 3bf78055 9391f117 a583a16b
""".split()
)


@dataclasses.dataclass(frozen=True)
class GivenProfiles:
  """Texts read from a file.

  Attributes:
    texts: by index of the user or item, non-empty texts.
    unknown: number of lines with an unknown id, which are left out.
    empty: number of lines with an empty text, treated as missing.
  """

  texts: dict[int, str]
  unknown: int
  empty: int


def read_profiles(
  path: str | os.PathLike[str], *, id_field: str, ids: Sequence[str]
) -> GivenProfiles:
  """Reads JSON lines such as `{"item_id": 1, "profile": "…"}` (or "summary").

  Args:
    path: of the file. id_field: "item_id" or "user_id".
    ids: raw ids, whose positions are the indices.
  Raises:
    InputError: for a file that cannot be read, a line that is not such an object, a repeated id, or
      a file without any known id.
  """
  path = user_path(path)
  try:
    lines = path.read_text(encoding="utf-8-sig").split("\n")
  except (OSError, UnicodeDecodeError) as error:
    raise InputError(f"{path}: cannot be read as UTF-8 JSON lines ({error})") from error
  index = {raw: i for i, raw in enumerate(ids)}
  texts: dict[int, str] = {}
  seen: dict[str, int] = {}
  unknown = empty = 0
  for number, line in enumerate(lines, 1):
    if not line.strip():
      continue
    raw, text = _parse_line(line, id_field, f"{path}: line {number}")
    if raw in seen:
      raise InputError(
        f"{path}: line {number}: {id_field} {raw} was already given in line {seen[raw]}"
      )
    seen[raw] = number
    if raw not in index:
      unknown += 1
    elif not text.strip():
      empty += 1
    else:
      texts[index[raw]] = text
  if unknown == len(seen):
    raise InputError(f"{path}: no {id_field} is in the dataset; is the file for another dataset?")
  return GivenProfiles(texts, unknown, empty)


def _parse_line(line: str, id_field: str, where: str) -> tuple[str, str]:
  example = f'{{"{id_field}": 1, "profile": "…"}}'
  try:
    record = json.loads(line)
  except (ValueError, RecursionError) as error:
    raise InputError(f"{where}: invalid JSON ({error}); expected {example}") from None
  if "\\ud" in line.casefold() and has_half_pair(record):
    raise InputError(f"{where}: half of a surrogate pair, which is no character")
  if not isinstance(record, dict):
    raise InputError(f"{where}: not a JSON object; expected {example}")
  raw = record.get(id_field)
  if isinstance(raw, bool) or not isinstance(raw, (int, str)):
    raise InputError(f"{where}: {id_field} must be a whole number or a string; expected {example}")
  text = next((record[field] for field in _TEXT_FIELDS if field in record), None)
  if not isinstance(text, str):
    raise InputError(f"{where}: no text in field {' or '.join(_TEXT_FIELDS)}; expected {example}")
  return str(raw), text


def check_user_profiles_leak(
  texts: Iterable[str],
  *,
  path: str | os.PathLike[str],
  dataset: str,
  fold: str | None,
  trains_on_all_training: bool,
  data_content: str,
) -> str | None:
  """Refuses user profiles known to reflect ratings that the run must not see.

  A profile that a language model wrote from ratings passes these ratings on to the recommender.
  Published files are recognized by their texts, under any file name; files of
  launch.write_profiles by the manifest next to them.

  Args:
    texts: the user profiles. path: of their file, for messages.
    dataset: name of the dataset. fold: shipped fold ("u1"), None for any other split.
    trains_on_all_training: whether the run has no validation part to select on.
    data_content: hash of the run's own data and split.
  Returns:
    None for a known file that is harmless in this run; for an unknown file, a warning to show and
    to record with the run.
  Raises:
    InputError: for a known file that leaks in this run.
  """
  digests = {text_digest(text) for text in texts}
  if len(digests & _ML1M_DIGESTS) >= _MIN_MATCHES:
    raise InputError(
      f"{path}: these ML-1M user summaries were written from an unknown split, so they leak test "
      "ratings on every split; leave out `user_profiles` to have profiles built"
    )
  if len(digests & _ML100K_U1_DIGESTS) >= _MIN_MATCHES:
    if dataset != "ml-100k" or fold != "u1":
      raise InputError(
        f"{path}: these user profiles were written from u1.base of ml-100k and leak test ratings "
        "on any other split; use `dataset=ml-100k` `fold=u1`, or leave out `user_profiles`"
      )
    if not trains_on_all_training:
      raise InputError(
        f"{path}: these user profiles were written from all of u1.base, so they leak the "
        "validation part that this run selects on; use `preset=paper`, or leave out "
        "`user_profiles`"
      )
    return None
  if _is_written_from(user_path(path), data_content):
    return None
  return (
    f"{path}: user profiles of unknown origin cannot be checked for leakage of validation or test "
    "ratings"
  )


def _is_written_from(path: pathlib.Path, data_content: str) -> bool:
  """Whether launch.write_profiles wrote exactly this file from the same training part.

  Raises: InputError if it was written from another training part.
  """
  try:
    manifest = json.loads((path.parent / "manifest.json").read_text("utf-8"))
    origin, sha256 = manifest["data_content"], manifest[path.stem]["sha256"]
  except (OSError, ValueError, KeyError, TypeError):
    return False  # not ours
  if origin != data_content:
    raise InputError(
      f"{path}: these user profiles were written from another split, validation part or other "
      "thresholds than this run's, so they may leak its validation and test ratings; give "
      "launch.write_profiles and this run the same `preset` and flags of the data"
    )
  return sha256 == runs.file_digest(path)


def text_digest(text: str) -> str:
  """8 hex digits of the sha256 of a text's first words, ignoring case, punctuation and spacing."""
  words = " ".join(re.findall(r"\w+", text.lower()))[:_DIGESTED_CHARACTERS]
  return hashlib.sha256(words.encode()).hexdigest()[:8]
