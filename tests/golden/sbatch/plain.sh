#!/bin/bash

# Parameters
#SBATCH --array=0-1%2
#SBATCH --cpus-per-task=8
#SBATCH --error=STORE/plans/small/slurm/gp-small-NONCE/%A_%a_0_log.err
#SBATCH --gpus-per-node=1
#SBATCH --job-name=gp-small-NONCE
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=STORE/plans/small/slurm/gp-small-NONCE/%A_%a_0_log.out
#SBATCH --partition=gpu
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=30

# setup
export GROWPOINT_SAVE_SECONDS=300
export OMP_NUM_THREADS=1
export TOKENIZERS_PARALLELISM=false
export SLURM_EXPORT_ENV=ALL
export GROWPOINT_CODE=STORE/code/CONTENT
export GROWPOINT_COMMIT=COMMIT
export GROWPOINT_CONFIG=STORE/code/CONTENT/own
export PYTHONPATH="$GROWPOINT_CODE${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONSAFEPATH=1

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output STORE/plans/small/slurm/gp-small-NONCE/%A_%a_%t_log.out --error STORE/plans/small/slurm/gp-small-NONCE/%A_%a_%t_log.err --kill-on-bad-exit=1 --cpus-per-task=8 PYTHON -u -m submitit.core._submit STORE/plans/small/slurm/gp-small-NONCE

#!/bin/bash

# Parameters
#SBATCH --array=0-1%2
#SBATCH --cpus-per-task=8
#SBATCH --dependency=afterok:1005_1
#SBATCH --error=STORE/plans/small/slurm/gp-small-NONCE/%A_%a_0_log.err
#SBATCH --gpus-per-node=1
#SBATCH --job-name=gp-small-NONCE
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=STORE/plans/small/slurm/gp-small-NONCE/%A_%a_0_log.out
#SBATCH --partition=gpu
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=30

# setup
export GROWPOINT_SAVE_SECONDS=300
export OMP_NUM_THREADS=1
export TOKENIZERS_PARALLELISM=false
export SLURM_EXPORT_ENV=ALL
export GROWPOINT_CODE=STORE/code/CONTENT
export GROWPOINT_COMMIT=COMMIT
export GROWPOINT_CONFIG=STORE/code/CONTENT/own
export PYTHONPATH="$GROWPOINT_CODE${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONSAFEPATH=1

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output STORE/plans/small/slurm/gp-small-NONCE/%A_%a_%t_log.out --error STORE/plans/small/slurm/gp-small-NONCE/%A_%a_%t_log.err --kill-on-bad-exit=1 --cpus-per-task=8 PYTHON -u -m submitit.core._submit STORE/plans/small/slurm/gp-small-NONCE
