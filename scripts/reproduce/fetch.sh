#!/usr/bin/env bash
# FetchPickAndPlace from its script: scripts/reproduce/fetch.sh FOLDER [SETTINGS...]
# Collects 200 episodes of the script, trains a diffusion policy (preset quick; minutes on 2 cores) and evaluates 100
# episodes: FOLDER/fetch/eval/eval.json and a film. Needs the extra robotics. What is there already stays, what was
# interrupted goes on. SETTINGS go to dp-train.
set -euo pipefail
. "$(dirname "$0")/steps.sh"
out=${1:?expected a folder: scripts/reproduce/fetch.sh FOLDER [SETTINGS...]}
episodes=${EPISODES:-100} demonstrations=${DEMONSTRATIONS:-200}

dp-collect task=fetch_pick_and_place episodes="$demonstrations" resume=true out="$out/fetch.zarr"
train "$out/fetch" task=fetch_pick_and_place preset=quick dataset="$out/fetch.zarr" "${@:2}"
evaluate "$out/fetch/eval" checkpoint="$out/fetch/policy.pt" episodes="$episodes" seed=100000
