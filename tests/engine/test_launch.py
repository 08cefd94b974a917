"""How processes find each other: under torchrun, and under a SLURM that is simulated."""

import os
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from densevit.engine import launch
from densevit.engine.launch import first_host, join_group
from densevit.errors import ConfigError

ROOT = Path(__file__).parents[2]
SRUN = """#!/usr/bin/env bash
[[ $1 == --kill-on-bad-exit=1 ]] && shift
status=0
for rank in 0 1; do SLURM_PROCID=$rank SLURM_LOCALID=$rank "$@" & pids[$rank]=$!; done
for pid in "${pids[@]}"; do wait "$pid" || status=$?; done
exit $status
"""


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what the process group is asked for; the environment is restored."""
    found: dict[str, Any] = {}
    monkeypatch.setattr(os, "environ", {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "MASTER"))})

    def join(backend: str, timeout: timedelta) -> None:
        found.update(backend=backend, timeout=timeout)

    monkeypatch.setattr(launch.distributed, "init_process_group", join)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return found


def slurm(**changes: str) -> dict[str, str]:
    job = {"SLURM_PROCID": "9", "SLURM_NTASKS": "16", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "1234567"}
    return {**job, "SLURM_JOB_NODELIST": "gpu[07-08]", **changes}


def test_variables_of_slurm_say_who_is_who_and_where_to_meet(joined: dict[str, Any]) -> None:
    os.environ.update(slurm())
    join_group("slurm", {})
    expected = {"RANK": "9", "WORLD_SIZE": "16", "LOCAL_RANK": "1", "MASTER_ADDR": "gpu07", "MASTER_PORT": "24567"}
    assert {key: os.environ[key] for key in expected} == expected
    assert joined == {"backend": "gloo", "timeout": timedelta(minutes=30)}


def test_an_address_that_is_given_is_kept_and_so_is_a_timeout(joined: dict[str, Any]) -> None:
    os.environ.update(slurm(MASTER_ADDR="10.0.0.1", MASTER_PORT="4000"))
    join_group("slurm", {"timeout": 60, "backend": "nccl"})  # mmengine's default, whatever the machine
    assert joined["backend"] == "gloo"
    assert (os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]) == ("10.0.0.1", "4000")
    assert joined["timeout"] == timedelta(seconds=60)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("login", "login"),
        ("gpu[03-07,12],login", "gpu03"),
        ("gpu-a[12,14]-x,gpu-b1", "gpu-a12-x"),
        ("node1,node2", "node1"),
    ],
)
def test_the_first_machine_of_a_list_is_found(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


@pytest.mark.parametrize(("launcher", "way_out"), [("slurm", "tools/slurm_train.sh"), ("pytorch", "torchrun")])
def test_a_launcher_that_started_nothing_is_named_with_the_way_out(
    joined: dict[str, Any], launcher: str, way_out: str
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        os.environ.pop(name, None)
    with pytest.raises(ConfigError, match=rf"--launcher {launcher} needs .*RANK.*{way_out}|PROCID.*{way_out}"):
        join_group(launcher, {})


def test_more_processes_than_gpus_are_refused(joined: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    os.environ.update(slurm(SLURM_LOCALID="5"))
    devices: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", devices.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(ConfigError, match="no GPU for process 5 of this machine, which sees 4: start 4 at most"):
        join_group("slurm", {})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # SLURM shows each task its own only
    join_group("slurm", {})
    assert devices == [0]
    assert joined["backend"] == "nccl"


def write_tool(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a job with 2 tasks on this machine; scontrol writes to a file what it is asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    write_tool(folder / "srun", SRUN)
    write_tool(folder / "scontrol", f'#!/usr/bin/env bash\necho "$@" >> {tmp_path / "scontrol"}\n')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    job = {"SLURM_NTASKS": "2", "SLURM_JOB_ID": "77", "SLURM_JOB_NODELIST": "localhost", "MASTER_PORT": port}
    paths = {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "PYTHON": sys.executable}
    return {**os.environ, **job, **paths, "OMP_NUM_THREADS": "1"}


def submit(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "tools" / "slurm_train.sh"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=250)


@pytest.mark.slow
def test_a_job_trains_in_two_tasks(config: Config, tmp_path: Path, cluster: dict[str, str]) -> None:
    config.pop("work_dir")
    config.train_cfg = {"by_epoch": False, "max_iters": 2, "val_interval": 9}
    config.dump(tmp_path / "tiny.py")
    done = submit(cluster, tmp_path / "tiny.py", "--work-dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "batch size: 4 x 2 processes" in done.stdout


def test_a_job_that_was_stopped_after_saving_goes_back_into_the_queue(tmp_path: Path, cluster: dict[str, str]) -> None:
    write_tool(tmp_path / "bin" / "python", '#!/usr/bin/env bash\necho "$@"\nexit 75\n')
    done = submit({**cluster, "PYTHON": "python"}, "my config.py", "--seed", 1)
    assert done.returncode == 75
    assert "tools/train.py my config.py --seed 1 --launcher slurm" in done.stdout
    assert (tmp_path / "scontrol").read_text() == "requeue 77\n"
    again = submit({**cluster, "PYTHON": "python", "SLURM_RESTART_COUNT": "1"}, "my config.py")
    assert "tools/train.py my config.py --resume --launcher slurm" in again.stdout


def test_a_job_that_failed_does_not(tmp_path: Path, cluster: dict[str, str]) -> None:
    write_tool(tmp_path / "bin" / "python", "#!/usr/bin/env bash\nexit 2\n")
    assert submit({**cluster, "PYTHON": "python"}, "config.py").returncode == 2
    assert not (tmp_path / "scontrol").exists()
