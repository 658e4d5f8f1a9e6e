#!/usr/bin/env bash
# Makes the data sets for offline RL into a folder: scripts/reproduce/offline_sets.sh FOLDER [TASK...]
# DP_DATA_DIR/rl_actors holds the agents (npz; docs/offline_rl.md). NEXT_OBS=true stores what
# followed each step, which dp-augment needs to learn terminals. What is there already stays, what was interrupted goes on.
#
#                early (weak)   medium                  expert      normalised returns (D4RL reference, env v5)
#   hopper       A2C            SAC                     TRPO        25, 36, 111
#   halfcheetah  A2C            PPO                     TQC         26, 50, 99
#   walker2d     A2C            SAC with noise 0.4      TQC         13, 49, 97
#
# mixed: 50,000 steps each of the early agent, SAC sampling its Gaussian, the expert with noise 0.3, and random actions;
# the others: 100,000 steps of each agent.
set -euo pipefail
out=${1:?expected a folder for the data sets: scripts/reproduce/offline_sets.sh FOLDER [TASK...]}
shift
agents=${DP_DATA_DIR:?expected the folder that holds rl_actors/*.npz: DP_DATA_DIR=... scripts/reproduce/offline_sets.sh ...}/rl_actors

declare -A robot=([hopper]=Hopper [halfcheetah]=HalfCheetah [walker2d]=Walker2d)
declare -A medium=([hopper]="sac.npz\"" [halfcheetah]="ppo.npz\"" [walker2d]="sac.npz\", noise: 0.4")
declare -A expert=([hopper]=trpo [halfcheetah]=tqc [walker2d]=tqc)

choose() {  # TASK: whose agents
  task=$1
  one="actor: \"$agents/${robot[$1]}_"
  weak="{${one}a2c.npz\"}"
  middle="{${one}${medium[$1]}}"
  strong="{${one}${expert[$1]}.npz\"}"
  sampling="{${one}sac.npz\", stochastic: true}"
  noisy="{${one}${expert[$1]}.npz\", noise: 0.3}"
}
make() {  # NAME STEPS PARTS
  dp-collect task="$task" next_obs="${NEXT_OBS:-false}" steps="$2" "actors=[$3]" keep=all resume=true out="$out/$task-$1-v5.zarr"
}
tasks=("$@")
[ $# -gt 0 ] || tasks=(hopper halfcheetah walker2d)
for each in "${tasks[@]}"; do
  choose "$each"
  make mixed 50000 "$weak, $sampling, $noisy, {actor: random}"
done
for each in "${tasks[@]}"; do
  choose "$each"
  make expert 100000 "$strong"
  make medium 100000 "$middle"
  make medium-expert 100000 "$middle, $strong"
done
