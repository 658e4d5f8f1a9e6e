#!/usr/bin/env bash
# Makes synthetic windows for the suite `augmented`: scripts/reproduce/augmented_demonstrations.sh FOLDER [SEED...]
# Of 10, 25 and 50 episodes of Push-T, drawn by the seed of the training: 10,000 windows of a diffusion model of them
# (SynthER), and 10,000 of them with Gaussian noise. What is there already stays, what was interrupted goes on.
set -euo pipefail
out=${1:?expected a folder: scripts/reproduce/augmented_demonstrations.sh FOLDER [SEED...]}
shift
seeds=("$@")
[ $# -gt 0 ] || seeds=(0 1)
make() {  # KIND EPISODES SEED SETTINGS...
  dp-augment augment=demonstrations dataset=package://pusht data.episodes="$2" 'data.fields=[keypoints, agent_pos]' \
    seed="$3" samples=10000 resume=true out="$out/pusht-$2-$1-s$3.zarr" "${@:4}"
}
for seed in "${seeds[@]}"; do
  for episodes in 10 25 50; do
    make synther "$episodes" "$seed"
    make noise "$episodes" "$seed" augmenter=noise noise.scale=0.03
  done
done
