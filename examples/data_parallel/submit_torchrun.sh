#!/bin/sh
#SBATCH --job-name=data_parallel
#SBATCH --nodes=1
#SBATCH --gres=rdu:2
#SBATCH --cpus-per-task=2
# sbatch submit_torchrun.sh [--num-epochs 10 ...], or without Slurm: sh submit_torchrun.sh
set -e
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")}"
pef=out/replica/replica.pef
test -e "$pef" || python data_parallel.py compile --data-parallel -ws 2 -b 32 --pef-name=replica
exec torchrun --standalone --nproc-per-node 2 \
    data_parallel.py run --data-parallel --reduce-on-rdu -b 32 --pef="$pef" "$@"
