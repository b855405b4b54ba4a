#!/bin/bash

# Parameters
#SBATCH --account=lab
#SBATCH --array=0-1%1
#SBATCH --constraint=ib
#SBATCH --cpus-per-task=16
#SBATCH --error=STORE/plans/small/slurm/gp-small-NONCE/%A_%a_0_log.err
#SBATCH --exclude=n7,n8
#SBATCH --exclusive
#SBATCH --gpus-per-node=h200:4
#SBATCH --job-name=gp-small-NONCE
#SBATCH --mail-type=FAIL
#SBATCH --mem=204800M
#SBATCH --nice=100
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --open-mode=append
#SBATCH --output=STORE/plans/small/slurm/gp-small-NONCE/%A_%a_0_log.out
#SBATCH --partition=gpu
#SBATCH --qos=high
#SBATCH --requeue
#SBATCH --reservation=mine
#SBATCH --signal=USR2@90
#SBATCH --time=60
#SBATCH --wckey=growth

# setup
export GROWPOINT_SAVE_SECONDS=120
export OMP_NUM_THREADS=4
export TOKENIZERS_PARALLELISM=false
export SLURM_EXPORT_ENV=ALL
module load cuda
export GROWPOINT_CODE=STORE/code/CONTENT
export GROWPOINT_COMMIT=COMMIT
export GROWPOINT_CONFIG=STORE/code/CONTENT/own
export PYTHONPATH="$GROWPOINT_CODE${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONSAFEPATH=1

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output STORE/plans/small/slurm/gp-small-NONCE/%A_%a_%t_log.out --error STORE/plans/small/slurm/gp-small-NONCE/%A_%a_%t_log.err --kill-on-bad-exit=1 --cpus-per-task=16 --cpu-bind=cores apptainer exec --nv image.sif python -u -m submitit.core._submit STORE/plans/small/slurm/gp-small-NONCE

#!/bin/bash

# Parameters
#SBATCH --account=lab
#SBATCH --array=0-1%1
#SBATCH --constraint=ib
#SBATCH --cpus-per-task=16
#SBATCH --dependency=afterok:1005_1
#SBATCH --error=STORE/plans/small/slurm/gp-small-NONCE/%A_%a_0_log.err
#SBATCH --exclude=n7,n8
#SBATCH --exclusive
#SBATCH --gpus-per-node=h200:4
#SBATCH --job-name=gp-small-NONCE
#SBATCH --mail-type=FAIL
#SBATCH --mem=204800M
#SBATCH --nice=100
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --open-mode=append
#SBATCH --output=STORE/plans/small/slurm/gp-small-NONCE/%A_%a_0_log.out
#SBATCH --partition=gpu
#SBATCH --qos=high
#SBATCH --requeue
#SBATCH --reservation=mine
#SBATCH --signal=USR2@90
#SBATCH --time=60
#SBATCH --wckey=growth

# setup
export GROWPOINT_SAVE_SECONDS=120
export OMP_NUM_THREADS=4
export TOKENIZERS_PARALLELISM=false
export SLURM_EXPORT_ENV=ALL
module load cuda
export GROWPOINT_CODE=STORE/code/CONTENT
export GROWPOINT_COMMIT=COMMIT
export GROWPOINT_CONFIG=STORE/code/CONTENT/own
export PYTHONPATH="$GROWPOINT_CODE${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONSAFEPATH=1

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output STORE/plans/small/slurm/gp-small-NONCE/%A_%a_%t_log.out --error STORE/plans/small/slurm/gp-small-NONCE/%A_%a_%t_log.err --kill-on-bad-exit=1 --cpus-per-task=16 --cpu-bind=cores apptainer exec --nv image.sif python -u -m submitit.core._submit STORE/plans/small/slurm/gp-small-NONCE
