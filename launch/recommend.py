"""Recommendations of a trained run, for its users or for somebody new:

  python -m launch.recommend --workdir=runs/ml-100k-u1-paper-0 --users=1,2 --top_n=5
  python -m launch.recommend --workdir=runs/ml-100k-u1-paper-0 --liked=50,172,181

Without --workdir, --dataset, --fold, --preset and --seed name the run folder as in launch.train.
"""

from launch import common

common.define(
  "preset", "model", "seed", "workdir", "dataset", "fold", "users", "liked", "disliked",
  "top_n", "exclude_seen", "out", "export_embeddings",
)  # fmt: skip


def main() -> None:
  import pathlib

  from gatrec_jax.errors import InputError
  from gatrec_jax.train import serving
  from launch.tables import print_recommendations

  flags = common.FLAGS
  run = serving.load_run(common.workdir_from_flags(common.config_from_flags()))
  common.require_agreement(run.config)
  settings = dict(top_n=flags["top_n"].value, exclude_seen=flags["exclude_seen"].value)
  if flags["export_embeddings"].value:
    _ = run.item_vectors  # raises, before anything is written, where the model has none
  if flags["liked"].value and flags["users"].present:
    raise InputError("--users and --liked: give one of them")
  if not flags["users"].value:
    raise InputError("--users: give user ids, or all")
  if flags["liked"].value:
    lists = serving.recommend_to_new_user(
      run, flags["liked"].value, disliked=flags["disliked"].value, **settings
    )
  elif flags["disliked"].value:
    raise InputError("--disliked: goes with --liked, for a user who is not in the catalogue")
  else:
    names = flags["users"].value
    lists = serving.recommend(run, None if names == ["all"] else names, **settings)
  if flags["out"].value:
    serving.write_lists(pathlib.Path(flags["out"].value), lists)
    print(f"{len(lists.users)} lists written to {flags['out'].value}")
  else:
    print_recommendations(lists)
  if flags["export_embeddings"].value:
    serving.export_embeddings(run, flags["export_embeddings"].value)
    print(f"vectors written to {flags['export_embeddings'].value}")


if __name__ == "__main__":
  common.run(main, __doc__)
