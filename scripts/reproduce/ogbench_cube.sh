#!/usr/bin/env bash
# OGBench's cube-single from its oracle: scripts/reproduce/ogbench_cube.sh FOLDER [SETTINGS...]
# Collects 200 episodes of the oracle on all five tasks, trains a diffusion policy (preset quick; minutes on 2 cores) and
# evaluates 100 episodes: FOLDER/cube/eval/eval.json and a film. Needs the extra ogbench. What is there already stays,
# what was interrupted goes on. SETTINGS go to dp-train. EPISODES and DEMONSTRATIONS say how many, TASK which task file.
set -euo pipefail
. "$(dirname "$0")/steps.sh"
out=${1:?expected a folder: scripts/reproduce/ogbench_cube.sh FOLDER [SETTINGS...]}
task=${TASK:-ogbench_cube} episodes=${EPISODES:-100} demonstrations=${DEMONSTRATIONS:-200}
name=${task#ogbench_}

dp-collect task="$task" episodes="$demonstrations" resume=true out="$out/$name.zarr"
train "$out/$name" task="$task" preset=quick dataset="$out/$name.zarr" data.drop_short=true "${@:2}"
# ten environments: each takes seconds to build
evaluate "$out/$name/eval" checkpoint="$out/$name/policy.pt" episodes="$episodes" seed=100000 num_envs=10 film=9
