#!/usr/bin/env bash
# After all participants:  sbatch --dependency=afterany:JOB --export=ALL,BIDS=…,OUT=… examples/slurm/group.sh
#SBATCH --job-name=cingulum-group
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --time=04:00:00
set -euo pipefail
exec cingulum run "$BIDS" "$OUT" group --n-jobs "$SLURM_CPUS_PER_TASK" "$@"
