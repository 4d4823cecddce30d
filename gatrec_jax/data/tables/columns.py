"""Which column of a table of interactions is which."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from gatrec_jax.errors import InputError

# Names that published data sets and other tools give these columns, without case and punctuation.
_USERS = (
  "userid", "user", "uid", "reviewerid", "customerid", "visitorid", "memberid", "listenerid",
  "accountid", "playerid", "usersha1", "steamid",
)  # fmt: skip
_ITEMS = (
  "itemid", "item", "parentasin", "asin", "productid", "product", "isbn", "movieid", "filmid",
  "bookid", "artistid", "songid", "trackid", "gameid", "appid", "animeid", "businessid",
  "articleid", "sku", "artistmbid", "artist", "track", "song", "game", "book", "movie",
)  # fmt: skip
_TIMES = (
  "timestamp", "time", "datetime", "date", "eventtime", "unixreviewtime", "createdat", "ratedat",
  "reviewtime", "ts", "unixtime", "epoch",
)  # fmt: skip
_RATINGS = ("rating", "ratings", "bookrating", "reviewrating", "userrating")
_EVENTS = (
  "event", "eventtype", "eventname", "behavior", "behaviour", "behaviortype", "action",
  "actiontype", "interaction", "interactiontype",
)  # fmt: skip
COUNTS = (
  "plays", "playcount", "listens", "listencount", "count", "counts", "clicks", "visits", "views",
  "purchases", "quantity", "qty", "hours", "playtime", "hoursplayed", "minutes", "frequency",
  "occurrences", "times", "weight",
)  # fmt: skip
_LIKE_RATINGS = frozenset((
  *COUNTS, "score", "stars", "star", "grade", "overall", "value", "rate", "reviewscore",
  "preference", "vote", "votes", "points", "feedback", "rank",
))  # fmt: skip
# Layouts of published files in which a column that is like a rating is certainly one.
_CERTAIN = {"overall": ("asin",), "weight": ("artistid",)}


@dataclasses.dataclass(frozen=True)
class Columns:
  """Names of a table's columns.

  The optional ones (`rating`, `time`, `event`) may be "". Names that keep their defaults may also
  be absent, or written otherwise (`userId`, `User-ID`, `asin`, …): `find_columns` looks for them.

  Attributes:
    user, item: raw ids. rating: ratings or counts; without it, feedback is implicit.
    time: see data/tables/times.py. event: kinds of events, such as view and purchase.
  """

  user: str = "user_id"
  item: str = "item_id"
  rating: str = "rating"
  time: str = "timestamp"
  event: str = ""


def bare(name: str) -> str:
  """A name without case and punctuation: "Book-Rating" → "bookrating"."""
  return re.sub(r"[^a-z0-9]", "", name.casefold())


_SHOWN = 8  # columns that are not used, in a remark


def find_columns(
  source: str,
  columns: Columns,
  names: Sequence[str],
  *,
  numeric: Mapping[str, str],
  kind: str = "auto",
) -> tuple[Columns, list[str]]:
  """The columns of a table, with "" for optional ones that it does not have.

  Args:
    source: name of the file, for messages.
    columns: as the user named them.
    names: those of the table.
    numeric: columns of numbers, each with its range, such as {"score": "1 to 10"}.
    kind: of the feedback that is wanted, one of `data.meaning.KINDS`.
  Returns:
    The columns, and remarks about those that were found under other names.
  Raises:
    InputError: a missing column, or one that looks like a rating and was not named.
  """
  found, remarks, missing = {}, [], []
  for field, others in (("user", _USERS), ("item", _ITEMS), ("time", _TIMES), ("rating", _RATINGS)):
    name = getattr(columns, field)
    is_default = name == getattr(Columns(), field)
    if name in names or (not name and field in ("time", "rating")):
      found[field] = name
      continue
    other = _first_of(others, names) if is_default else ""
    if field == "rating" and not other and is_default:
      other = _certain_rating(names)
    if other:
      remarks.append(f"{field} from {other!r}")
    elif field in ("user", "item") or not is_default:
      missing.append((name, field))
    found[field] = other
  if missing:
    raise InputError(_missing(source, missing, names))
  found["event"] = columns.event
  if columns.event and columns.event not in names:
    raise InputError(_missing(source, [(columns.event, "event")], names))
  if columns.event and kind not in ("auto", "events"):
    raise InputError(
      f"`feedback={kind}` reads no events", field="event_column", value=columns.event
    )
  if not columns.event and (kind == "events" or (kind == "auto" and not found["rating"])):
    other = _first_of(_EVENTS, [name for name in names if name not in numeric])
    if other:
      found["event"] = other
      remarks.append(f"event from {other!r}")
  if kind == "events" and not found["event"]:
    raise InputError(
      f"{source}: needs `event_column`, the column of the kinds of events; the table has "
      f"{', '.join(names)}",
      field="feedback",
      value="events",
    )
  asks = columns.rating == Columns.rating and kind not in ("implicit", "events")
  if asks and not found["rating"] and not found["event"]:
    _ask_about_ratings(source, numeric, found.values())
  unused = [_shown(name, numeric) for name in names if name and name not in found.values()]
  if unused:
    rest = f" and {len(unused) - _SHOWN} more" if len(unused) > _SHOWN else ""
    remarks.append(f"not used: {', '.join(unused[:_SHOWN])}{rest}")
  return Columns(**found), remarks


def _shown(name: str, numeric: Mapping[str, str]) -> str:
  return f"{name!r} (numbers from {numeric[name]})" if name in numeric else repr(name)


def _first_of(others: Sequence[str], names: Sequence[str]) -> str:
  """The column whose bare name comes first in `others`; "" if there is none."""
  by_bare: dict[str, str] = {}
  for name in names:
    by_bare.setdefault(bare(name), name)
  return next((by_bare[other] for other in others if other in by_bare), "")


def _certain_rating(names: Sequence[str]) -> str:
  bares = {bare(name): name for name in names}
  for name, companions in _CERTAIN.items():
    if name in bares and any(companion in bares for companion in companions):
      return bares[name]
  return ""


def _ask_about_ratings(source: str, numeric: Mapping[str, str], used: Any) -> None:
  taken = set(used)
  for name, values in numeric.items():
    if name not in taken and bare(name) in _LIKE_RATINGS:
      raise InputError(
        f"{source}: column {name!r} (numbers from {values}) looks like ratings or counts, but is "
        f"not named; give `rating_column={name}`, or `feedback=implicit` to leave it out"
      )


def _missing(source: str, wanted: Sequence[tuple[str, str]], names: Sequence[str]) -> str:
  shown = " and no column ".join(f"{name!r} (`{field}_column`)" for name, field in wanted)
  line = f"{source}: has no column {shown}; it has {', '.join(names)}"
  if any(_is_number(one) for one in names):
    line += (
      f"; if its first line holds no names, give them with `columns=user_id,item_id,…` "
      f"({len(names)} of them)"
    )
  return line


def _is_number(text: str) -> bool:
  try:
    float(text)
  except ValueError:
    return False
  return True
