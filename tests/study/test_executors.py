"""Processes on this machine and on a Ray cluster: room, GPUs, environment, and that nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nas_lightning.study import executors
from nas_lightning.study.executors import (
    Executor,
    ExecutorGoneError,
    Job,
    JobEnd,
    LocalExecutor,
    job_end,
    visible_gpus,
    without_launcher,
)
from tests.forked import in_own_process
from tests.study.made_up_runs import is_alive

SLEEP = "import os, time; print(os.getpid(), flush=True); time.sleep(100)"
ENVIRONMENT = "import json, os; print(json.dumps(dict(os.environ)))"


def job(folder: Path, name: str, program: str, **what: Any) -> Job:
    return Job(name, (sys.executable, "-S", "-c", program), folder, folder / f"{name}.txt", **what)


def wait_for(condition: Callable[[], Any], seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)
    return value


def wait_for_ends(executor: Executor, count: int = 1, seconds: float = 30) -> list[JobEnd]:
    ends: list[JobEnd] = []

    def enough() -> bool:
        ends.extend(executor.ended())
        return len(ends) >= count

    wait_for(enough, seconds)
    return sorted(ends, key=lambda end: end.name)


def first_number(path: Path) -> int:
    """The process id that a job printed first."""
    text: str = wait_for(lambda: path.exists() and "\n" in path.read_text() and path.read_text())
    return int(text.split()[0])


@pytest.fixture
def local() -> Iterator[LocalExecutor]:
    executor = LocalExecutor(jobs=4, devices=("4", "GPU-7"))
    yield executor
    executor.close()


def test_exit_codes_arrive_and_output_is_appended(tmp_path: Path) -> None:
    executor = LocalExecutor(jobs=3)
    (tmp_path / "a.txt").write_text("before\n")
    executor.start(job(tmp_path, "a", "import sys; print('out'); print('bad', file=sys.stderr)"))
    executor.start(job(tmp_path, "b", "raise SystemExit(3)"))
    executor.start(job(tmp_path, "c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"))
    assert not executor.has_room(0)
    with pytest.raises(RuntimeError, match="no room for d"):
        executor.start(job(tmp_path, "d", "pass"))
    assert wait_for_ends(executor, 3) == [
        JobEnd("a", 0),
        JobEnd("b", 3, reason="ended with exit code 3"),
        JobEnd("c", -9, lost=True, reason="killed by SIGKILL"),
    ]
    assert executor.has_room(0)
    assert sorted((tmp_path / "a.txt").read_text().split()) == ["bad", "before", "out"]


@pytest.mark.parametrize(
    ("exit_code", "lost", "reason"),
    [
        (0, False, None),
        (2, False, "ended with exit code 2"),
        (-11, False, "ended by signal 11 (Segmentation fault)"),
        (-9, True, "killed by SIGKILL"),
        (137, True, "killed by SIGKILL"),
        (143, True, "killed by SIGTERM"),
        (-15, True, "killed by SIGTERM"),
    ],
)
def test_who_is_killed_has_not_failed(exit_code: int, lost: bool, reason: str | None) -> None:
    assert job_end("a", exit_code) == JobEnd("a", exit_code, lost, reason)


def test_shares_of_gpus_fill_them_evenly_and_whole_ones_wait_for_free_ones(
    tmp_path: Path, local: LocalExecutor
) -> None:
    def devices(name: str) -> str:
        path = tmp_path / f"{name}.txt"
        shown: str = wait_for(lambda: path.exists() and path.read_text().strip())
        return str(json.loads(shown)["CUDA_VISIBLE_DEVICES"])

    show = f"{ENVIRONMENT}; import sys, time; sys.stdout.flush(); time.sleep(100)"
    for name in "abcd":
        assert local.has_room(0.5)
        local.start(job(tmp_path, name, show, gpus=0.5))
    assert sorted(map(devices, "abcd")) == ["4", "4", "GPU-7", "GPU-7"]
    assert not local.has_room(0.5)
    assert {end.name for end in local.stop()} == set("abcd")

    local.start(job(tmp_path, "e", show, gpus=0.5))
    assert local.has_room(1)
    assert not local.has_room(2)
    local.start(job(tmp_path, "f", show, gpus=0))
    local.start(job(tmp_path, "g", show, gpus=1))
    assert (devices("e"), devices("f"), devices("g")) == ("4", "", "GPU-7")
    local.stop()
    local.start(job(tmp_path, "h", show, gpus=2))
    assert devices("h") == "4,GPU-7"


def test_thirds_of_a_gpu_come_back_whole(tmp_path: Path) -> None:
    executor = LocalExecutor(jobs=9, devices=("0",))
    for name in "abc":
        executor.start(job(tmp_path, name, "pass", gpus=1 / 3))
    assert not executor.has_room(0.1)
    wait_for_ends(executor, 3)
    assert executor.has_room(1)


def test_a_process_does_not_believe_to_be_a_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: LocalExecutor
) -> None:
    launcher = {"SLURM_NTASKS": "8", "SLURM_PROCID": "3", "RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}
    launcher |= {"MASTER_ADDR": "x", "MASTER_PORT": "1", "TORCHELASTIC_RUN_ID": "7"}
    for name, value in launcher.items():
        monkeypatch.setenv(name, value)
    local.start(job(tmp_path, "a", ENVIRONMENT, environment={"OMP_NUM_THREADS": "5"}))
    wait_for_ends(local)
    seen = json.loads((tmp_path / "a.txt").read_text())
    assert not launcher.keys() & seen.keys()
    assert seen["OMP_NUM_THREADS"] == "5"
    assert seen["PATH"] == os.environ["PATH"]
    assert without_launcher({"SLURM_X": "1", "MY_SLURM": "2"}) == {"MY_SLURM": "2"}


def test_stop_asks_first_and_kills_who_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "GRACE_SECONDS", 0.5)
    executor = LocalExecutor(jobs=2)
    executor.start(job(tmp_path, "deaf", f"import signal; signal.signal(15, signal.SIG_IGN); {SLEEP}"))
    executor.start(
        job(tmp_path, "good", f"import signal, sys; signal.signal(15, lambda *_: sys.exit(143)); {SLEEP}")
    )
    pids = [first_number(tmp_path / f"{name}.txt") for name in ("deaf", "good")]
    ends = {end.name: end.exit_code for end in executor.stop()}
    assert ends == {"deaf": -9, "good": 143}
    assert not any(map(is_alive, pids))


def test_what_a_process_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    executor = LocalExecutor(jobs=1)
    child = f"import subprocess, sys; subprocess.Popen([sys.executable, '-S', '-c', {SLEEP!r}]); input()"
    program = child.replace("input()", "import time; time.sleep(0.5)")
    executor.start(job(tmp_path, "a", program))
    left = first_number(tmp_path / "a.txt")
    assert is_alive(left)
    wait_for_ends(executor)
    wait_for(lambda: not is_alive(left))


PARENT = """
import sys, time
from pathlib import Path
from tests.study.test_executors import SLEEP, job
from nas_lightning.study.executors import LocalExecutor
executor = LocalExecutor(jobs=1)
executor.start(job(Path(sys.argv[1]), "a", SLEEP))
time.sleep(100)
"""


def test_a_process_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], cwd=Path(__file__).parents[2])
    try:
        child = first_number(tmp_path / "a.txt")
        assert is_alive(child)
    finally:
        parent.kill()
        parent.wait()
    wait_for(lambda: not is_alive(child), 5)


@pytest.mark.parametrize(
    ("value", "gpus"),
    [("", ()), ("-1", ()), ("0,1", ("0", "1")), (" 2 , GPU-ab", ("2", "GPU-ab")), ("0,-1,1", ("0",))],
)
def test_the_environment_says_which_gpus_there_are(value: str, gpus: tuple[str, ...]) -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": value}) == gpus


def test_nvidia_smi_says_how_many_gpus_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus() == ()
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\necho 'GPU 0: A (UUID: GPU-1)'\necho '  MIG 1g'\necho 'GPU 1: A (UUID: GPU-2)'\n"
    )
    program.chmod(0o755)
    assert visible_gpus() == ("0", "1")
    program.write_text("#!/bin/sh\necho 'no driver'\nexit 9\n")
    assert visible_gpus() == ()


def test_at_least_one_job() -> None:
    with pytest.raises(ValueError, match=r"`jobs` \(=0\) must be at least 1"):
        LocalExecutor(0)


def processes_below(process_id: int) -> list[int]:
    """Children of a process and theirs."""
    try:
        tasks = Path(f"/proc/{process_id}/task").iterdir()
        children = [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return children + [below for child in children for below in processes_below(child)]


@pytest.mark.slow
@in_own_process
def test_an_embedded_ray_cluster(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    from nas_lightning.study.ray_executor import RayExecutor

    before = set(processes_below(os.getpid()))
    executor = RayExecutor(jobs=2)
    try:
        assert executor.gpus == 0
        executor.start(job(tmp_path, "a", ENVIRONMENT, environment={"OMP_NUM_THREADS": "7"}))
        executor.start(job(tmp_path, "b", "raise SystemExit(3)"))
        assert not executor.has_room(0)
        ends = wait_for_ends(executor, 2)
        assert ends == [JobEnd("a", 0), JobEnd("b", 3, reason="ended with exit code 3")]
        assert json.loads((tmp_path / "a.txt").read_text())["OMP_NUM_THREADS"] == "7"

        executor.start(Job("c", (sys.executable,), tmp_path / "none", tmp_path / "c.txt"))
        (end,) = wait_for_ends(executor)
        assert (end.exit_code, end.lost) == (None, False)
        assert end.reason is not None
        assert "No such file or directory" in end.reason

        executor.start(job(tmp_path, "d", SLEEP))
        child = first_number(tmp_path / "d.txt")
        worker = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(worker, signal.SIGKILL)
        (end,) = wait_for_ends(executor)
        assert (end.name, end.lost) == ("d", True)
        wait_for(lambda: not is_alive(child), 5)

        executor.start(job(tmp_path, "e", SLEEP))
        child = first_number(tmp_path / "e.txt")
        assert [(end.name, end.lost) for end in executor.stop()] == [("e", True)]
        wait_for(lambda: not is_alive(child), 5)
    finally:
        executor.close()
    wait_for(lambda: not set(filter(is_alive, processes_below(os.getpid()))) - before, 20)


@pytest.mark.slow
@in_own_process
def test_an_embedded_ray_cluster_without_its_raylet_is_started_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    for name in ("initial_delay", "period", "timeout"):  # Ray notices in seconds, not in a minute
        monkeypatch.setenv(f"RAY_health_check_{name}_ms", "1000")
    from nas_lightning.study.ray_executor import RayExecutor

    executor = RayExecutor(jobs=1)
    try:
        executor.start(job(tmp_path, "a", "print(1, flush=True); import time; time.sleep(2)"))
        first_number(tmp_path / "a.txt")
        (raylet,) = (
            process_id
            for process_id in processes_below(os.getpid())
            if Path(f"/proc/{process_id}/cmdline").read_bytes().split(b"\0")[0].endswith(b"/raylet")
        )
        os.kill(raylet, signal.SIGKILL)
        # Its worker may live on: then it ends as it would have.
        (end,) = wait_for_ends(executor, seconds=60)
        assert end.exit_code == 0 or end.lost
        # Until Ray notices, a process may be handed to the machine that is gone.
        for number in range(4):
            wait_for(lambda: executor.has_room(0), 60)
            executor.start(job(tmp_path, f"b{number}", ""))
            (end,) = wait_for_ends(executor, seconds=60)
            if not end.lost:
                break
        assert end.exit_code == 0
        assert executor._restarts == 1
    finally:
        executor.close()


class FakeRay:
    """A cluster whose machines are all dead."""

    def __init__(self) -> None:
        self.starts = 0
        self.is_broken = False

    def nodes(self) -> list[dict[str, object]]:
        return [{"Alive": False, "Resources": {"CPU": 2.0}}]

    def init(self, **settings: object) -> None:
        if self.is_broken:
            raise RuntimeError("no port is free. Advice follows.")
        self.starts += 1

    def shutdown(self) -> None:
        pass


def test_a_cluster_without_machines_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    from nas_lightning.study import ray_executor

    embedded = ray_executor.RayExecutor()
    for _ in range(ray_executor.RESTARTS_AT_MOST):
        assert not embedded.has_room(0)
    assert fake.starts == 1 + ray_executor.RESTARTS_AT_MOST
    with pytest.raises(ExecutorGoneError, match="embedded Ray cluster ended 6 times"):
        embedded.has_room(0)
    other = ray_executor.RayExecutor(address="auto")
    assert not other.has_room(0)
    monkeypatch.setattr(ray_executor, "GONE_SECONDS", 0)
    with pytest.raises(ExecutorGoneError, match="cluster at auto has no machine left"):
        other.has_room(0)
    embedded = ray_executor.RayExecutor()
    fake.is_broken = True
    with pytest.raises(ExecutorGoneError, match="cannot be started again: no port is free"):
        embedded.has_room(0)


@pytest.mark.slow
@in_own_process
def test_a_ray_cluster_of_two_machines_of_which_one_goes(tmp_path: Path) -> None:
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    from nas_lightning.study.ray_executor import RayExecutor

    small = {"object_store_memory": 100 * 2**20}
    cluster = cluster_utils.Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0, **small}
    )
    executor = None
    try:
        machine = cluster.add_node(num_cpus=4, num_gpus=2, **small)
        cluster.wait_for_nodes()
        executor = RayExecutor(gpus_each=lambda gpus: 0.5, address=cluster.address)
        assert executor.gpus == 2
        assert executor.threads == 1  # half of the two cores that the machine has for a GPU
        show = "import os, time; print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); time.sleep({})"
        for name in "abcd":
            assert executor.has_room(0.5)
            executor.start(job(tmp_path, name, show.format(1), gpus=0.5))
        assert not executor.has_room(0.5)
        assert [end.exit_code for end in wait_for_ends(executor, 4)] == [0] * 4
        assert sorted((tmp_path / f"{name}.txt").read_text().strip() for name in "abcd") == [
            "0",
            "0",
            "1",
            "1",
        ]

        executor.start(job(tmp_path, "n", show.format(0), gpus=0))
        assert [end.exit_code for end in wait_for_ends(executor)] == [0]
        assert (tmp_path / "n.txt").read_text() == "\n"  # it sees no GPU

        executor.start(job(tmp_path, "e", show.format(100), gpus=2))
        shown = wait_for(lambda: (tmp_path / "e.txt").exists() and (tmp_path / "e.txt").read_text())
        assert shown == "0,1\n"
        cluster.remove_node(machine, allow_graceful=False)
        (end,) = wait_for_ends(executor)
        assert (end.name, end.lost) == ("e", True)
        assert end.reason is not None
        assert end.reason.startswith("NodeDiedError: ")
    finally:
        if executor is not None:
            executor.close()
        cluster.shutdown()


@pytest.mark.slow
@in_own_process
def test_no_process_asks_for_more_than_a_machine_has() -> None:
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    from nas_lightning.study.ray_executor import RayExecutor

    small = {"object_store_memory": 100 * 2**20}
    cluster = cluster_utils.Cluster(
        initialize_head=True, head_node_args={"num_cpus": 3, "num_gpus": 1, **small}
    )
    try:
        cluster.add_node(num_cpus=4, num_gpus=2, **small)
        cluster.wait_for_nodes()
        asked: list[int] = []

        def none(gpus: int) -> int:
            asked.append(gpus)
            return 0

        executor = RayExecutor(jobs=1, gpus_each=none, address=cluster.address)
        try:
            assert (executor.gpus, asked) == (2, [2])  # not the three of both
            assert executor.threads == 3  # not the seven of both
            executor.jobs, executor.threads = None, 3
            for pid, room in enumerate([True, True, False]):  # a process a machine: 3 + 3 of 7 cores
                assert executor.has_room(0) is room
                executor._running[pid] = "a"
            executor._running.clear()
            executor.threads = 1
            for pid, room in enumerate([True, False]):  # two whole GPUs are on one machine
                assert executor.has_room(2) is room
                executor._running[pid] = "a"
            executor._running.clear()
        finally:
            executor.close()
    finally:
        cluster.shutdown()


@in_own_process
def test_an_address_that_nobody_answers_at_is_refused() -> None:
    pytest.importorskip("ray")
    from nas_lightning.study.ray_executor import RayExecutor

    with pytest.raises(ConnectionError, match=r"`address` \(=127\.0\.0\.1:1\) is no running Ray cluster"):
        RayExecutor(address="127.0.0.1:1")
