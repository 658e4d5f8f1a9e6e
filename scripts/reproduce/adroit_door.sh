#!/usr/bin/env bash
# The Adroit door from 25 human demonstrations: scripts/reproduce/adroit_door.sh FOLDER [DEMONSTRATIONS] [SETTINGS...]
# DEMONSTRATIONS is a folder with DAPG's door-v0_demos.npz ($DP_DATA_DIR/hand_dapg when not given). Converts them, trains
# a diffusion policy (preset quick; minutes on 2 cores) and evaluates 100 episodes: FOLDER/door/eval/eval.json and a film.
# Needs the extra robotics. What is there already stays, what was interrupted goes on. SETTINGS go to dp-train.
set -euo pipefail
here=$(dirname "$0")
. "$here/steps.sh"
out=${1:?expected a folder: scripts/reproduce/adroit_door.sh FOLDER [DEMONSTRATIONS] [SETTINGS...]}
source=${2:-${DP_DATA_DIR:?expected a second folder, with door-v0_demos.npz, or DP_DATA_DIR}/hand_dapg}
episodes=${EPISODES:-100}

[ -e "$out/door.zarr" ] || { mkdir -p "$out"; dp-convert "$source" "$out/door.zarr" --mapping "$here/adroit_door.yaml" --clip action=-1:1; }
train "$out/door" task=adroit_door preset=quick dataset="$out/door.zarr" "${@:3}"
evaluate "$out/door/eval" checkpoint="$out/door/policy.pt" episodes="$episodes" seed=100000 film=4
