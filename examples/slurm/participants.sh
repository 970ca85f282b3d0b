#!/usr/bin/env bash
# One participant a job:  sbatch --array=1-53 --export=ALL,BIDS=/data/study,OUT=/results/study examples/slurm/participants.sh
#SBATCH --job-name=cingulum
#SBATCH --cpus-per-task=1
#SBATCH --mem=8G
#SBATCH --time=02:00:00
set -euo pipefail
row="$((SLURM_ARRAY_TASK_ID + 1))" # below the header
label="$(awk -F'\t' -v row="$row" 'NR == row { print $1 }' "$BIDS/participants.tsv")"
exec cingulum run "$BIDS" "$OUT" participant --participant-label "$label" --n-jobs 1 "$@"
