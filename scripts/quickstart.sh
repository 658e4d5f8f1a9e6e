#!/usr/bin/env bash
# From a bare Debian/Ubuntu with Python >= 3.11 to a video of a policy pushing the T, trained on this machine.
# Needs no GPU, no display, no OpenGL. Results go to runs/quickstart (or the folder given as $1). After Ctrl-C the same
# command goes on.
set -euo pipefail
out="$(realpath -m "${1:-$(dirname "$0")/../runs/quickstart}")"
cd "$(dirname "$0")/.."
. scripts/environment.sh

if [ -e "$out/eval/eval.json" ] || { [ -e "$out" ] && [ ! -e "$out/config.yaml" ]; }; then
  fail "$out exists; give another folder: bash scripts/quickstart.sh runs/quickstart2"
fi
make_environment ""

started=$SECONDS
if [ -e "$out/config.yaml" ]; then  # interrupted
  .venv/bin/dp-train resume="$out"
else
  .venv/bin/dp-train task=pusht preset=quick out="$out"
fi
.venv/bin/dp-eval checkpoint="$out/policy.pt" episodes=100 seed=100000 num_envs=25 out="$out/eval"
echo
echo "train + evaluate + film took $(( (SECONDS - started) / 60 )) min $(( (SECONDS - started) % 60 )) s"
echo "policy   $out/policy.pt"
echo "curves   $out/curves.png"
echo "results  $out/eval/eval.json"
echo "video    $out/eval/rollouts.mp4"
