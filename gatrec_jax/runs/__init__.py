"""What a run leaves on disk: its folder, resumable jobs, checkpoints, traces."""

from gatrec_jax.runs.folder import (
  MetricsFile,
  atomic_path,
  cache_dir,
  digest,
  environment,
  file_digest,
  has_checkpoints,
  locked,
  open_workdir,
  peak_memory_mb,
  read_json,
  require_same_origin,
  reset_peak_memory,
  signals,
  stage,
  write_json,
)

__all__ = [
  "MetricsFile",
  "atomic_path",
  "cache_dir",
  "digest",
  "environment",
  "file_digest",
  "has_checkpoints",
  "locked",
  "open_workdir",
  "peak_memory_mb",
  "read_json",
  "require_same_origin",
  "reset_peak_memory",
  "signals",
  "stage",
  "write_json",
]
