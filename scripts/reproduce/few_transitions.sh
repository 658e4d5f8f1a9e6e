#!/usr/bin/env bash
# Makes synthetic transitions for the suite `few_transitions`: scripts/reproduce/few_transitions.sh FOLDER [SEED...]
# From 134 episodes of FOLDER/hopper-mixed-v5.zarr (NEXT_OBS=true scripts/reproduce/offline_sets.sh FOLDER hopper), drawn
# by the seed of the training, 100,000 of a diffusion model of them (SynthER). What is there already stays, what was
# interrupted goes on.
set -euo pipefail
out=${1:?expected a folder: scripts/reproduce/few_transitions.sh FOLDER [SEED...]}
shift
seeds=("$@")
[ $# -gt 0 ] || seeds=(0 1 2)
for seed in "${seeds[@]}"; do
  dp-augment dataset="$out/hopper-mixed-v5.zarr" data.episodes=134 training.num_grad_steps=10000 \
    sampling.steps=32 seed="$seed" samples=100000 resume=true out="$out/hopper-134-synther-s$seed.zarr"
done
