#!/bin/sh
#SBATCH --job-name=data_parallel
#SBATCH --ntasks=2
#SBATCH --gres=rdu:2
#SBATCH --cpus-per-task=1
#SBATCH --signal=USR1@60
# sbatch submit_srun.sh [--num-epochs 10 ...]
# Slurm signals the ranks a minute before the time limit, or up to another minute earlier: they write
# a checkpoint and stop.  So give --time three minutes or more.
# The same command continues, so `sbatch --dependency=singleton submit_srun.sh` makes a chain.
set -e
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")}"
pef=out/replica/replica.pef
test -e "$pef" || python data_parallel.py compile --data-parallel -ws 2 -b 32 --pef-name=replica
srun --kill-on-bad-exit=1 python data_parallel.py run --data-parallel --reduce-on-rdu -b 32 --pef="$pef" "$@"
