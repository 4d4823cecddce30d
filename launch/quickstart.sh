#!/usr/bin/env bash
# Makes .venv if there is none, installs the package, and runs every stage on the built-in catalog.
# Needs only python3 >= 3.11 and PyPI.
#   bash launch/quickstart.sh [--minilm] [--cuda|--tpu] [flags of launch.quickstart]
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/setup.sh
set_up "" "$@"
exec .venv/bin/python -m launch.quickstart ${REST[@]+"${REST[@]}"}
