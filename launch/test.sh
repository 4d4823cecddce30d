#!/usr/bin/env bash
# Installs like quickstart.sh with the test extra, then runs pytest with one process per core, since
# most of the time is compilation, which uses one core. Files are not reordered by their number of
# tests: tests/conftest.py puts the longest ones first.
#   bash launch/test.sh [--minilm] [--cuda|--tpu] [arguments of pytest]
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/setup.sh
set_up dev "$@"
exec .venv/bin/python -m pytest --numprocesses=auto --maxprocesses=8 --dist=loadfile \
  --no-loadscope-reorder ${REST[@]+"${REST[@]}"}
