#!/usr/bin/env bash
# Installs what the tests need into .venv and runs the default tests. Extra words go to pytest: scripts/test.sh -x -k env
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
make_environment "[dev]" --editable ./client
# One thread a test process: many small tensors, and two cores are kept busy by two processes.
OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n "$(nproc)" "$@"
