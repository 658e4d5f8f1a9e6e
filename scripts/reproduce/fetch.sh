#!/usr/bin/env bash
# FetchPickAndPlace from its script: scripts/reproduce/fetch.sh FOLDER [SETTINGS...]
# Collects 200 episodes of the script, trains a diffusion policy (preset quick; minutes on 2 cores) and evaluates 100
# episodes: FOLDER/fetch/eval/eval.json and a film. Needs the extra robotics. What is there already stays, what was
# interrupted goes on. SETTINGS go to dp-train.
set -euo pipefail
out=${1:?expected a folder: scripts/reproduce/fetch.sh FOLDER [SETTINGS...]}
episodes=${EPISODES:-100} demonstrations=${DEMONSTRATIONS:-200}

dp-collect task=fetch_pick_and_place episodes="$demonstrations" resume=true out="$out/fetch.zarr"
if [ -f "$out/fetch/config.yaml" ]; then
  dp-train resume="$out/fetch"
else
  dp-train task=fetch_pick_and_place preset=quick dataset="$out/fetch.zarr" out="$out/fetch" "${@:2}"
fi
[ -f "$out/fetch/eval/eval.json" ] || dp-eval checkpoint="$out/fetch/policy.pt" episodes="$episodes" seed=100000 out="$out/fetch/eval"
