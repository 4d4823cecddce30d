"""The stages that runs of every model have: reading, texts, validation and evaluation.

Bytes are counted array by array where these are few; where a stage makes many temporaries of the
same size (reading, metrics), a number of bytes a row or a user was measured (tests hold both).
"""

from __future__ import annotations

from gatrec_jax.config.schema import Config
from gatrec_jax.experiment.plan.rates import Rates
from gatrec_jax.experiment.plan.sizes import Sizes
from gatrec_jax.experiment.plan.stage import Stage
from gatrec_jax.experiment.validation import num_sampled
from gatrec_jax.models.gat.channels import KNOWN_AT_A_TIME
from gatrec_jax.ops.top_k import bytes_of_batches, users_of_batch

# Bytes of a row while a table is read, and while its stage is read again from the run folder.
_READING, _READING_AGAIN = 110, 70
# Of a row of interactions (user, item, rating, time) and its place in the split.
_ROW, _PLACE = 20, 8
_ID = 90  # a text of an id, and an item's mapping of fields
# Bytes of a text while profiles are written and encoded.
_TEXT = 4_000
# Copies of the linear channel's scores that are made at a time.
_COPIES_OF_CHUNK = 6
# Of a user with its lists, and of a user with test likes, for each place of the lists.
_LISTED, _WRITTEN, _MEASURED = 24, 56, 60
_METRICS = 9  # of each cut-off
_COPIES_OF_VALUES = 6  # float64: stacked, with their mask, of a bucket
# Texts that MiniLM and the built-in encoder encode for each FLOP/s of matrix products.
_TEXTS_PER_FLOP = {True: 8e-9, False: 3e-10}
_BOOTSTRAPPED = 2  # sorted rows that a drawn user takes as long as
# Copies of a block in the ranking that is measured; others take as much longer as they have more.
_MEASURED_COPIES = 4
_SORTED = 25  # times that a row is sorted, hashed or copied while it is read, as a sort of rows


def reading(config: Config, sizes: Sizes, rates: Rates | None) -> Stage:
  """The data stage; it leaves all rows, and those that training and validation read."""
  part_rows = sizes.train + 2 * sizes.valid
  left = sizes.ratings * (_ROW + _PLACE) + _ROW * part_rows + _ID * sizes.nodes
  peak = (_READING_AGAIN if sizes.is_read else _READING) * sizes.ratings + _ID * sizes.nodes
  choice = "kept in the run folder" if sizes.is_read else f"{sizes.ratings:,} ratings"
  seconds = None if rates is None else _SORTED * sizes.ratings / rates.rows
  return Stage("data", choice, max(peak, left), left, sizes.ratings, "rows", seconds)


def texts(config: Config, sizes: Sizes, rates: Rates | None) -> Stage:
  """Profiles and their vectors."""
  vectors = 4.0 * sizes.nodes * max(sizes.text_width, 1)
  if not sizes.texts:
    return Stage("texts", "none: features are ids", vectors, vectors, 0, "texts", 0.0)
  is_lexical = config.text.encoder == "lexical"
  seconds = None if rates is None else sizes.texts / (_TEXTS_PER_FLOP[is_lexical] * rates.flops)
  choice = f"{sizes.texts:,} texts as {sizes.text_width} numbers"
  peak = _TEXT * sizes.texts + 2 * vectors
  return Stage("texts", choice, peak, vectors, sizes.texts, "texts", seconds)


def validation(
  config: Config,
  sizes: Sizes,
  rates: Rates | None,
  *,
  copies: float,
  state: float = 0.0,
  flops: float = 0.0,
  known: bool = False,
) -> Stage:
  """Ranking a sample of the validation users once.

  Args:
    copies: as in `bytes_of_batches`. state: bytes of the serving state. flops: of a score, beside
      the product of vectors.
    known: whether the linear channel's scores are computed once and kept.
  """
  if config.train.select_on != "valid" or not sizes.valid_users:
    return Stage("validation", "none", 0, 0, 0, "scores", 0.0)
  users = num_sampled(sizes.valid_users, sizes.items)
  scores = float(users) * sizes.items
  kept = 4 * scores if known else 0.0
  making = 4.0 * _COPIES_OF_CHUNK * min(KNOWN_AT_A_TIME, scores) if known else 0.0
  memory_mb = config.evaluate.evaluate_memory_mb
  ranking = bytes_of_batches(users, sizes.items, memory_mb=memory_mb, copies=copies)
  peak = kept + max(making, state + ranking)
  passes = copies / _MEASURED_COPIES
  seconds = None if rates is None else scores * (passes / rates.ranks + flops / rates.flops)
  sample = f"{users:,} of {sizes.valid_users:,} users"
  return Stage("validation", sample, peak, kept, scores, "scores", seconds)


def evaluation(
  config: Config,
  sizes: Sizes,
  rates: Rates | None,
  *,
  copies: float,
  state: float = 0.0,
  flops: float = 0.0,
) -> Stage:
  """Lists of all users, their metrics, and the files. Args: as in `validation`."""
  places = max(config.evaluate.ks)
  lists = float(places) * sizes.users
  known = sizes.train + sizes.valid
  state += _ROW * (known + 2 * sizes.test)
  memory_mb = config.evaluate.evaluate_memory_mb
  ranked = bytes_of_batches(sizes.users, sizes.items, memory_mb=memory_mb, copies=copies)
  values = _METRICS * len(config.evaluate.ks) * sizes.test_users
  measured = _MEASURED * places * sizes.test_users + 8 * _COPIES_OF_VALUES * values
  peak = state + _LISTED * lists + max(ranked + 28 * known, measured, _WRITTEN * lists)
  scores = float(sizes.users) * sizes.items
  seconds = None
  if rates is not None:
    drawn = float(config.evaluate.bootstrap) * sizes.test_users
    passes = copies / _MEASURED_COPIES
    seconds = scores * (passes / rates.ranks + flops / rates.flops)
    seconds += _BOOTSTRAPPED * drawn / rates.rows
  block = users_of_batch(sizes.items, memory_mb=memory_mb)
  return Stage(
    "evaluation", f"{sizes.users:,} lists, {block:,} at a time", peak, 0, scores, "scores", seconds
  )
