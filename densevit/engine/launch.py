"""Which of several processes this one is, and how they find each other.

mmengine's ``init_dist`` calls CUDA where there is none, has the port 29500 for all jobs of a machine, and asks a shell
for the address of SLURM's first node.
"""

import os
import re
import warnings
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from densevit.errors import ConfigError

# launcher -> variables that hold the rank, the number of processes and the rank on this machine, and what sets them
LAUNCHERS = {
    "pytorch": (("RANK", "WORLD_SIZE", "LOCAL_RANK"), "torchrun"),
    "slurm": (("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"), "srun, as tools/slurm_train.sh does"),
    "mpi": (("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"), "mpirun"),
}
TIMEOUT = 1800  # seconds
# What torch says in each process of our own calls: mmengine's DDP names an old argument; the strides of kernels of one
# channel are any, so that their gradients are copied as they are.
IDLE_WARNINGS = ("`broadcast_buffers` is deprecated", "Grad strides do not match bucket view strides")


def join_group(launcher: str, options: Mapping[str, Any]) -> None:
    """Join the process group of a run, by NCCL where there are GPUs and by gloo elsewhere.

    Args:
        launcher: "pytorch", "slurm" or "mpi": who has started the processes.
        options: ``env_cfg.dist_cfg``: ``timeout``, seconds that a process waits for the others before it gives up, 1800
            by default.

    Raises:
        ConfigError: The launcher did not start this process, or there is no GPU for it.
    """
    for message in IDLE_WARNINGS:
        warnings.filterwarnings("ignore", re.escape(message))
    threads = os.environ.setdefault("OMP_NUM_THREADS", "1")  # of cores that are shared; mmengine warns that it does so
    os.environ.setdefault("MKL_NUM_THREADS", threads)
    names, starter = LAUNCHERS[launcher]
    if missing := [name for name in names if name not in os.environ]:
        raise ConfigError(f"--launcher {launcher} needs {', '.join(missing)} in the environment: start by {starter}")
    rank, world_size, local_rank = (os.environ[name] for name in names)
    os.environ.update(RANK=rank, WORLD_SIZE=world_size, LOCAL_RANK=local_rank)
    if launcher != "pytorch":
        os.environ.setdefault("MASTER_ADDR", _first_address())
        # jobs that share a machine must not meet
        os.environ.setdefault("MASTER_PORT", str(20_000 + int(os.environ.get("SLURM_JOB_ID", 0)) % 10_000))
    if torch.cuda.is_available():
        os.environ["LOCAL_RANK"] = str(_device(int(local_rank)))  # mmengine gives it to DDP
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, timeout=timedelta(seconds=options.get("timeout", TIMEOUT)))


def _device(local_rank: int) -> int:
    """Return the GPU of a process: the only one that it sees, or that of its number."""
    count = torch.cuda.device_count()
    if count > 1 and local_rank >= count:
        raise ConfigError(
            f"there is no GPU for process {local_rank} of this machine, which sees {count}: start {count} at most"
        )
    return local_rank if count > 1 else 0


def _first_address() -> str:
    """Return the name of the first machine of a SLURM job; this one if there is no job."""
    nodes = os.environ.get("SLURM_JOB_NODELIST", os.environ.get("SLURM_NODELIST", "localhost"))
    return first_host(nodes)


def first_host(nodes: str) -> str:
    """Return the first name of a list as SLURM writes it: "gpu[03-07,12],login" begins with "gpu03"."""
    first = re.split(r",(?![^\[]*\])", nodes)[0]
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first)
