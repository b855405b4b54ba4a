"""Doing it: growth, training, evaluation, the store, this machine and SLURM."""
