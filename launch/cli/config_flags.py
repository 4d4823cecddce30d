"""From flags to a configuration and its run folder."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

from launch.cli.flags import DATA, EVALUATE, FLAGS, TEXT, path_flag

if TYPE_CHECKING:
  from gatrec_jax.config.schema import Config, DataConfig

# The flags that are fields of the configuration. Others share a field's name but belong to language
# models (`--attention`, `--batch_size`).
_FIELDS = (*DATA, *TEXT, *EVALUATE, "seed")


def config_from_flags() -> Config:
  """The preset with every field that was given on the command line. Raises InputError."""
  from gatrec_jax.config.overrides import with_fields

  preset = preset_from_flags()
  return with_fields(preset, given_fields() | _assignments())


def preset_from_flags() -> Config:
  """The preset named by --preset or --model. Raises InputError if unknown, or if both differ."""
  from gatrec_jax.config.presets import get_preset
  from gatrec_jax.errors import InputError

  preset = FLAGS.preset
  model = FLAGS.model if "model" in FLAGS else None
  if model and FLAGS["preset"].present and model != preset:
    raise InputError(f"and `model={model}` exclude each other", field="preset", value=preset)
  split = (given_fields() | _assignments()).get("split", "")
  if model:
    return get_preset(model, field="model", split=split)
  return get_preset(preset, split=split)


def given_fields() -> dict[str, Any]:
  """The configuration fields among the flags that were given, with their values.

  Raises: InputError: `dataset` and `train_file` together, which are the same.
  """
  from gatrec_jax.errors import InputError

  given = {name: FLAGS[name].value for name in _FIELDS if name in FLAGS and FLAGS[name].present}
  train_file = given.pop("train_file", "")
  if not train_file:
    return given
  if "dataset" in given:
    raise InputError("and `dataset` exclude each other", field="train_file", value=train_file)
  return given | {"dataset": train_file}


def require_agreement(config: Config) -> None:
  """Checks that the settings given beside --workdir are those of the run that is opened.

  Raises:
    InputError: a flag differs from the run's configuration.
  """
  from gatrec_jax.config.overrides import setting_of, with_fields
  from gatrec_jax.errors import InputError

  given = {
    name: value
    for name, value in given_fields().items()
    if name not in EVALUATE and name != "data_dir"
  }
  given |= _assignments()
  wanted = with_fields(config, given)
  for name in given:
    asked, own = (setting_of(one, name) for one in (wanted, config))
    if asked != own:
      raise InputError(f"the run was made with {name}={own!r}; omit it", field=name, value=asked)


def workdir_from_flags(config: Config) -> pathlib.Path:
  """--workdir, or runs/<dataset>[-<fold or split>]-<preset>-<seed> by default.

  With --verify all of its stored files are checked. Raises: DamagedFile.
  """
  from gatrec_jax import runs
  from gatrec_jax.runs import checkpoints
  from gatrec_jax.runs.log import CONSOLE

  folder = path_flag("workdir") if FLAGS.workdir else _default_workdir(config)
  if FLAGS.verify and folder.is_dir():
    files, arrays = runs.verify(folder), checkpoints.verify(folder / "checkpoints")
    CONSOLE.info(
      f"verified: {files} files of {folder} and {arrays} arrays of its checkpoints are those that "
      "were written"
    )
  return folder


def _default_workdir(config: Config) -> pathlib.Path:
  data = config.data
  part = data.fold or (data.split if data.split != "random" else "")
  name = _data_name(data) + (f"-{part}" if part else "")
  return pathlib.Path("runs") / f"{name}-{config.preset}-{config.train.seed}"


def _data_name(data: DataConfig) -> str:
  """The data set's name, or that of its file without suffixes; of several files, their folder's."""
  path = pathlib.Path(data.dataset)
  if data.test_file and path.absolute().parent.name:
    return path.absolute().parent.name
  return path.name.removesuffix("".join(path.suffixes)) or path.name


def data_label(config: Config) -> str:
  """The data of a run for titles, such as "ml-100k u1" or "mine.csv kfold 2"."""
  data = config.data
  kind = data.split if data.split != "random" and (not data.fold or data.split == "kfold") else ""
  return " ".join(
    filter(
      None,
      (_data_name(data) if data.test_file else pathlib.Path(data.dataset).name, kind, data.fold),
    )
  )


def _assignments() -> dict[str, str]:
  from gatrec_jax.config.overrides import parse_assignments

  return parse_assignments(FLAGS.set if "set" in FLAGS else [])
