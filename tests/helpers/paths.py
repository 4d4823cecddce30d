"""Where the tests find the repository, its goldens, and the data that some machines have."""

import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
DATA = SHARED / "data"
PUBLISHED = DATA / "published"
STORIES = SHARED / "models" / "stories260K"
LM_GOLDENS = ROOT / "tests" / "lm" / "goldens"
DECODER_GOLDENS = LM_GOLDENS / "decoders"
