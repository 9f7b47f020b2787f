#!/bin/sh
#SBATCH --job-name=data_parallel
#SBATCH --ntasks=2
#SBATCH --gres=rdu:2
#SBATCH --cpus-per-task=1
# sbatch submit_mpirun.sh [--num-epochs 10 ...], or without Slurm: sh submit_mpirun.sh
# mpirun passes SIGTERM on to its ranks; Open MPI kills those that then need more than a second.
set -e
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")}"
pef=out/replica/replica.pef
test -e "$pef" || python data_parallel.py compile --data-parallel -ws 2 -b 32 --pef-name=replica
mpirun -np 2 python data_parallel.py run --data-parallel --reduce-on-rdu -b 32 --pef="$pef" "$@"
