#!/usr/bin/env bash
# What a delay does to a policy on Push-T, at 10 and at 50 actions a second: scripts/reproduce/delay.sh FOLDER
# Trains one policy for each rate (at 50 Hz on 200 episodes of the environment's expert, chunks of 16 of 32 steps), then
# evaluates three strategies under 0 to 8 steps of delay: FOLDER/10hz/delay/latency.json and FOLDER/50hz/... Hours on 2
# cores; what was interrupted goes on. At 10 Hz a plan has 15 actions from now on:
# under 8 steps of delay, one plan at a time, each chunk of 8 lacks one. The table counts these steps (starved), and shows
# no jump (-) where all joints are beside one. For the documents: copy both latency.json to
# benchmarks/results/delay/10hz.json and 50hz.json, then python benchmarks/readme.py.
set -euo pipefail
. "$(dirname "$0")/steps.sh"
out=${1:?expected a folder: scripts/reproduce/delay.sh FOLDER}
fifty=(+env.kwargs.control_hz=50 +env.kwargs.max_episode_steps=1500)

judge() {  # RUN
  dp-eval out="$1/delay" resume=true checkpoint="$1/policy.pt" latency_steps=[0,1,2,4,8] strategy=[chunking,ensembling,real_time] \
    episodes="${EPISODES:-50}" seed=100000 film=0
}

train "$out/10hz" task=pusht preset=quick
judge "$out/10hz"
dp-collect task=pusht "${fifty[@]}" episodes=200 resume=true out="$out/pusht-50hz.zarr"
train "$out/50hz" task=pusht preset=quick "${fifty[@]}" dataset="$out/pusht-50hz.zarr" horizons.pred_horizon=32 \
  horizons.action_horizon=16
judge "$out/50hz"
