#!/usr/bin/env bash
# The peer of the speed benchmarks, lerobot, in an environment of its own: bash benchmarks/peer_env.sh [FOLDER]
# Benchmarks find it in FOLDER (default: .peer beside this repository's README) and skip it with a message without.
set -euo pipefail
folder="${1:-$(dirname "$0")/../.peer}"
[ -x "$folder/bin/python" ] || python3 -m venv "$folder"
"$folder/bin/pip" install "lerobot==0.4.4"
"$folder/bin/python" -c "from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy; print('peer ready')"
