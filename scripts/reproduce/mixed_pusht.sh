#!/usr/bin/env bash
# Makes rollouts of mixed quality on Push-T into a folder: scripts/reproduce/mixed_pusht.sh FOLDER
# 100 episodes each of policies whose training ended after 400, 800, 1600 and 4000 steps, whatever came of them:
# FOLDER/pusht-mixed.zarr. Training took 45 minutes and collecting 55 on one core
# of a slow machine, beside other work; what is there already stays.
set -euo pipefail
. "$(dirname "$0")/steps.sh"
out=${1:?expected a folder: scripts/reproduce/mixed_pusht.sh FOLDER}
actors=""
for steps in 400 800 1600 4000; do
  run="$out/pusht-$steps"
  train "$run" task=pusht preset=fast training.num_grad_steps=$steps training.batch_size=64 optim.warmup_steps=100 seed=$steps
  actors+="{checkpoint: \"$run/policy.pt\"},"
done
dp-collect task=pusht episodes=100 "actors=[${actors%,}]" keep=all resume=true out="$out/pusht-mixed.zarr"
