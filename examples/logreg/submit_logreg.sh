#!/bin/sh
#SBATCH --job-name=logreg
#SBATCH --cpus-per-task=1
# sbatch submit_logreg.sh        compiles, tests, trains and times the model
set -e
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")}"
python logreg.py compile --pef-name=logreg --output-folder=out
python logreg.py test --pef=out/logreg/logreg.pef
python logreg.py run --pef=out/logreg/logreg.pef
python logreg.py measure-performance --pef=out/logreg/logreg.pef
