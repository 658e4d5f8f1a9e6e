#!/usr/bin/env bash
# Makes the data sets for offline RL into a folder: scripts/reproduce/offline_sets.sh FOLDER [TASK...]
# DP_DATA_DIR/rl_actors holds the agents (npz). What is there already stays, what was interrupted goes on.
#
#                early (weak)   medium                  expert      normalised (D4RL reference, env v5), 10 seeds
#   hopper       A2C            SAC                     TRPO        22, 42, 112
#   halfcheetah  A2C            PPO                     TQC         27, 50, 99
#   walker2d     A2C            SAC with noise 0.4      TQC         15, 44, 88
#
# mixed: 50,000 steps each of the early agent, SAC sampling its Gaussian, the expert with noise 0.3, and random actions.
set -euo pipefail
out=$1
shift
agents=$DP_DATA_DIR/rl_actors

declare -A robot=([hopper]=Hopper [halfcheetah]=HalfCheetah [walker2d]=Walker2d)
declare -A medium=([hopper]="sac.npz\"" [halfcheetah]="ppo.npz\"" [walker2d]="sac.npz\", noise: 0.4")
declare -A expert=([hopper]=trpo [halfcheetah]=tqc [walker2d]=tqc)

make() {  # TASK NAME STEPS PARTS
  dp-collect task="$1" steps="$3" "actors=[$4]" keep=all resume=true out="$out/$1-$2-v5.zarr"
}
for task in ${@:-hopper halfcheetah walker2d}; do
  one="actor: \"$agents/${robot[$task]}_"
  weak="{${one}a2c.npz\"}"
  middle="{${one}${medium[$task]}}"
  strong="{${one}${expert[$task]}.npz\"}"
  make "$task" mixed 50000 "$weak, {${one}sac.npz\", stochastic: true}, {${one}${expert[$task]}.npz\", noise: 0.3}, {actor: random}"
  make "$task" expert 100000 "$strong"
  make "$task" medium 100000 "$middle"
  make "$task" medium-expert 100000 "$middle, $strong"
done
