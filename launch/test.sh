#!/usr/bin/env bash
# The tests: the same set-up as quickstart.sh with the test extra, then pytest.
#   bash launch/test.sh [--minilm] [--cuda|--tpu] [arguments of pytest]
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/setup.sh
set_up dev "$@"
exec .venv/bin/python -m pytest ${REST[@]+"${REST[@]}"}
