#!/usr/bin/env bash
# From nothing to recommendations: makes .venv if there is none, installs, and runs the main job on
# the built-in catalogue. Needs python3 >= 3.11 and PyPI, nothing else.
#   bash launch/quickstart.sh [--minilm] [--cuda|--tpu] [flags of launch.quickstart]
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/setup.sh
set_up "" "$@"
exec .venv/bin/python -m launch.quickstart ${REST[@]+"${REST[@]}"}
