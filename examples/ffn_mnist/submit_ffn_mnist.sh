#!/bin/sh
#SBATCH --job-name=ffn_mnist
#SBATCH --cpus-per-task=1
# sbatch submit_ffn_mnist.sh        compiles, tests, trains and times the model
set -e
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")}"
python sn_boilerplate_main.py compile --pef-name=ffn_mnist --output-folder=out
python sn_boilerplate_main.py test --pef=out/ffn_mnist/ffn_mnist.pef
python sn_boilerplate_main.py run --pef=out/ffn_mnist/ffn_mnist.pef
python sn_boilerplate_main.py measure-performance --pef=out/ffn_mnist/ffn_mnist.pef
