"""Commands, one thin file each. Hydra lives here and nowhere else."""
