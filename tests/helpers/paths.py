"""Where the tests find the repository, its goldens, and the data that some machines have."""

import os
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
DATA = SHARED / "data"
PUBLISHED = DATA / "published"
STORIES = SHARED / "models" / "stories260K"
# Where ../shared/models/get_llms.sh puts real models.
LLMS = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
LLMS = LLMS / "gatrec_jax" / "llms"
LM_GOLDENS = ROOT / "tests" / "lm" / "goldens"
DECODER_GOLDENS = LM_GOLDENS / "decoders"
