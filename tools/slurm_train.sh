#!/usr/bin/env bash
# Train under SLURM: a process per task, a task per GPU. What sbatch is told goes before the script, what tools/train.py
# is told after it. To be submitted from the root of the repository:
#
#   sbatch --nodes 2 --ntasks-per-node 8 --gpus-per-node 8 --cpus-per-task 8 --time 24:00:00 \
#       tools/slurm_train.sh configs/segformer_b0_ade20k.py --weights mit_b0.pth
#
# Runs that are longer than a job may be, or are preempted, go on by themselves with
#
#   sbatch --signal=USR1@120 --requeue ... tools/slurm_train.sh CONFIG
#
# SLURM sends SIGUSR1 to the processes 120 s before the time is up; they save a checkpoint and exit with 75, upon which
# this script puts the job back into the queue. A job that starts again resumes. 120 s must be enough for one step and
# one checkpoint. Output of all starts: --open-mode append.
#
# PYTHON names another interpreter.
set -euo pipefail

resume=()
if ((${SLURM_RESTART_COUNT:-0} > 0)); then
    resume=(--resume)
fi

status=0
# A process that fails ends the others at once, which would wait for it until env_cfg.dist_cfg.timeout.
srun --kill-on-bad-exit=1 "${PYTHON:-python}" tools/train.py "$@" ${resume[@]+"${resume[@]}"} --launcher slurm || status=$?

if ((status == 75)); then
    echo "stopped after saving: job ${SLURM_JOB_ID} goes back into the queue"
    scontrol requeue "${SLURM_JOB_ID}"
fi
exit "$status"
