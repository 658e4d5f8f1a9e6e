#!/usr/bin/env bash
# Makes rollouts of mixed quality on Push-T into a folder: scripts/reproduce/mixed_pusht.sh FOLDER
# 100 episodes each of policies trained on 10, 25 and 50 demonstrations and of the benchmark `quick`'s, whatever came of
# them: DIR/pusht-mixed.zarr. Training the four takes an hour on 2 cores; what is there already stays.
set -euo pipefail
out=$1
dp-benchmark suite=demonstrations 'only=[pusht-10-s0, pusht-25-s0, pusht-50-s0]' out="$out/weak"
dp-benchmark suite=quick 'only=[pusht-diffusion-s0]' out="$out/strong"
actors=""
for run in weak/runs/pusht-10-s0 weak/runs/pusht-25-s0 weak/runs/pusht-50-s0 strong/runs/pusht-diffusion-s0; do
  actors+="{checkpoint: \"$out/$run/policy.pt\"},"
done
dp-collect task=pusht episodes=100 "actors=[${actors%,}]" keep=all resume=true out="$out/pusht-mixed.zarr"
