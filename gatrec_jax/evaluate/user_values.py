"""Files with every metric of every user of a run, from which runs are compared."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from gatrec_jax import runs
from gatrec_jax.errors import InputError
from gatrec_jax.evaluate.evaluation import Evaluation

_COUNT = "training_ratings"  # a column beside the metrics


@dataclasses.dataclass(frozen=True)
class UserValues:
  """Metrics of one run by user.

  Attributes:
    system: the label of the model.
    part: the fold or split. seed: of the training.
    protocol: "full", "judged", …; of some users "full_below_5".
    user_ids: [n] raw ids.
    training_ratings: [n] int64, number of known ratings of each; None in files that lack it.
    values: by metric name ("ndcg@10"), [n] float64; NaN for users whom the metric does not count.
    truth: hash of the training and the test part.
  """

  system: str
  part: str
  seed: int
  protocol: str
  user_ids: tuple[str, ...]
  training_ratings: np.ndarray | None
  values: Mapping[str, np.ndarray]
  truth: str

  def below(self, count: int) -> UserValues:
    """The values of the users with fewer than `count` training ratings.

    Raises: InputError if the file lacks these numbers.
    """
    if self.training_ratings is None:
      raise InputError(
        f"the run {self.system} of {self.part} was made before numbers of "
        "training ratings were kept; train it again",
        field="below",
        value=count,
      )
    rows = np.flatnonzero(self.training_ratings < count)
    return dataclasses.replace(
      self,
      protocol=f"{self.protocol}_below_{count}",
      user_ids=tuple(self.user_ids[row] for row in rows),
      training_ratings=self.training_ratings[rows],
      values={name: values[rows] for name, values in self.values.items()},
    )


def write_user_values(
  path: pathlib.Path, user_ids: Sequence[str], evaluations: Mapping[str, Evaluation], *, truth: str
) -> None:
  """Writes the evaluations of a run as Parquet, whole or not at all.

  Args:
    path: the file. user_ids: [U] raw ids, by user index. evaluations: by protocol.
    truth: hash of the split.

  >>> import pathlib, tempfile
  >>> train = Interactions.from_indices([0], [0], [5], num_users=1, num_items=2)
  >>> test = Interactions.from_indices([0], [1], [5], num_users=1, num_items=2)
  >>> found = full_ranking(np.array([[1]]), np.array([0]), train=train, test=test, ks=[1])
  >>> path = pathlib.Path(tempfile.mkdtemp()) / "users.parquet"
  >>> write_user_values(path, ["ann"], {"full": found}, truth="a hash")
  >>> (run,) = read_user_values(path, system="mine", part="u1", seed=0)
  >>> run.user_ids, run.values["ndcg@1"].tolist()
  (('ann',), [1.0])
  """
  import pyarrow as pa
  import pyarrow.parquet as pq

  tables = []
  for protocol, evaluation in evaluations.items():
    ids = [user_ids[user] for user in evaluation.users]
    columns = {
      "protocol": pa.array([protocol] * len(ids)),
      "user_id": pa.array(ids, pa.string()),
      _COUNT: pa.array(np.asarray(evaluation.training_counts, np.int64)),
    }
    # NaN, not null, marks users who do not count.
    columns |= {
      name: pa.array(np.asarray(values, np.float32), from_pandas=False)
      for name, values in evaluation.per_user.items()
    }
    tables.append(pa.table(columns))
  table = pa.concat_tables(tables, promote_options="default")
  with runs.atomic_path(path) as temporary:
    pq.write_table(table.replace_schema_metadata({"truth": truth}), temporary)


def read_user_values(path: pathlib.Path, *, system: str, part: str, seed: int) -> list[UserValues]:
  """Reads a file of `write_user_values`; one result for each protocol.

  Args: system, part, seed: of the run, for comparisons.
  Raises: InputError if the file is missing, damaged or of another kind.

  >>> import pathlib, tempfile
  >>> train = Interactions.from_indices([0], [0], [5], num_users=1, num_items=2)
  >>> test = Interactions.from_indices([0], [1], [5], num_users=1, num_items=2)
  >>> found = full_ranking(np.array([[1]]), np.array([0]), train=train, test=test, ks=[1])
  >>> path = pathlib.Path(tempfile.mkdtemp()) / "users.parquet"
  >>> write_user_values(path, ["ann"], {"full": found}, truth="a hash")
  >>> (run,) = read_user_values(path, system="mine", part="u1", seed=0)
  >>> run.user_ids, run.values["ndcg@1"].tolist()
  (('ann',), [1.0])
  """
  import pyarrow as pa
  import pyarrow.parquet as pq

  try:
    table = pq.read_table(path)
  except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
    reason = " ".join(str(error).split())[:120]
    raise InputError(f"{path}: cannot be read ({reason}); run launch.train again") from None
  truth = (table.schema.metadata or {}).get(b"truth")
  if truth is None or not {"protocol", "user_id"} <= set(table.column_names):
    raise InputError(f"{path}: not a file of metrics by user that launch.train made")
  found = []
  protocols = np.array(table["protocol"].to_pylist())
  for protocol in dict.fromkeys(protocols.tolist()):
    rows = table.filter(pa.array(protocols == protocol))
    values = {
      name: np.asarray(rows[name].to_numpy(), np.float64)
      for name in rows.column_names
      if name not in ("protocol", "user_id", _COUNT) and rows[name].null_count < len(rows)
    }
    ids = tuple(rows["user_id"].to_pylist())
    counts = rows[_COUNT].to_numpy() if _COUNT in rows.column_names else None
    found.append(UserValues(system, part, seed, protocol, ids, counts, values, truth.decode()))
  return found
