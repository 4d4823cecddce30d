#!/usr/bin/env bash
# The tests: the same set-up as quickstart.sh with the test extra, then pytest, a process a core
# (most of the time goes into compiling, which uses one core). Files in their order, since the
# longest ones, those of launch, would come last if the number of tests decided.
#   bash launch/test.sh [--minilm] [--cuda|--tpu] [arguments of pytest]
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/setup.sh
set_up dev "$@"
exec .venv/bin/python -m pytest --numprocesses=auto --maxprocesses=8 --dist=loadfile \
  --no-loadscope-reorder ${REST[@]+"${REST[@]}"}
