#!/usr/bin/env bash
# A task of Meta-World from its scripted policy: scripts/reproduce/metaworld.sh FOLDER [SETTINGS...]
# Collects 100 episodes of the script, trains a diffusion policy (preset quick; minutes on 2 cores) and evaluates 100
# episodes: FOLDER/pick-place/eval/eval.json and a film. TASK names another task, EPISODES and DEMONSTRATIONS say how
# many. Needs an environment of its own, see docs/adapters.md. What is there already stays, what was interrupted goes on.
# SETTINGS go to dp-train.
set -euo pipefail
. "$(dirname "$0")/steps.sh"
out=${1:?expected a folder: scripts/reproduce/metaworld.sh FOLDER [SETTINGS...]}
task=${TASK:-pick-place} episodes=${EPISODES:-100} demonstrations=${DEMONSTRATIONS:-100}

dp-collect task=metaworld env.kwargs.task="$task" episodes="$demonstrations" resume=true out="$out/$task.zarr"
train "$out/$task" task=metaworld env.kwargs.task="$task" preset=quick dataset="$out/$task.zarr" data.drop_short=true "${@:2}"
evaluate "$out/$task/eval" checkpoint="$out/$task/policy.pt" episodes="$episodes" seed=100000 film=9
