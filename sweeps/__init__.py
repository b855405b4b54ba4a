"""What to run: pure descriptions and plans, without torch, pandas or SLURM."""
