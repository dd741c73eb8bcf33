from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from harness.record.observation import Outcome
from harness.record.recording import read_record
from harness.watch.bootstrap import SITE, watch_environment
from harness.watch.options import Depth, ObserverOptions

TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])

TRAIN = """
import json, os, signal, sys
{before}
import torch
from torch.nn.utils import clip_grad_norm_
torch.manual_seed(0)
model = torch.nn.Linear(4, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
losses = []
try:
    for step in range({num_steps}):
        try:
            loss = model(torch.randn(3, 4)).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        except Exception:
            pass
        losses.append(loss.item())
        {inside}
finally:
    print(json.dumps({{"losses": losses, "argv": sys.argv, "path": sys.path}}))
{after}
"""
PLAIN = {"before": "", "inside": "", "after": "", "num_steps": "6"}


def run_script(
    tmp_path: Path, options: ObserverOptions | None = None, **parts: str
) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "train.py"
    script.write_text(TRAIN.format(**{**PLAIN, **parts}))
    return run([str(script), "--lr", "3"], tmp_path, options)


def run(
    words: list[str], tmp_path: Path, options: ObserverOptions | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    environment |= watch_environment(tmp_path / "record", options or ObserverOptions(), environment)
    return subprocess.run(
        [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )


def test_script_runs_as_without_the_watcher_and_leaves_its_record(tmp_path: Path) -> None:
    done = run_script(tmp_path)
    bare = subprocess.run(
        [sys.executable, "train.py", "--lr", "3"], cwd=tmp_path, capture_output=True, text=True, check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, bare.stderr)
    facts, unwatched = json.loads(done.stdout), json.loads(bare.stdout)
    assert facts["losses"] == unwatched["losses"]
    assert facts["argv"][1:] == ["--lr", "3"]
    assert str(SITE) not in facts["path"]
    # torch 2.6 puts a temporary folder with a name of its own on the path of every process.
    added = [entry for entry in facts["path"] if entry not in unwatched["path"]]
    assert [entry for entry in added if Path(entry).parent != Path(tempfile.gettempdir())] == []
    (observation,) = read_record(tmp_path / "record")
    assert observation.losses == facts["losses"]
    assert observation.outcome is Outcome.COMPLETED
    assert observation.optimizers[0].groups[0].parameters == ["weight", "bias"]
    assert [deep.step for deep in observation.deep_steps] == [0, 1]
    assert all(step.clipped_grad_norm <= 1.0001 for step in observation.steps if step.clipped_grad_norm)


def test_program_that_first_asks_whether_torch_is_installed_is_watched(tmp_path: Path) -> None:
    asking = "import importlib.util; importlib.util.find_spec('torch'); importlib.util.find_spec('torch')"
    done = run_script(tmp_path, before=asking, after="print([type(one).__name__ for one in sys.meta_path])")
    assert (done.returncode, done.stderr) == (0, "")
    assert "TorchFinder" not in done.stdout
    assert len(read_record(tmp_path / "record")[0].steps) == 6


def test_package_run_with_m_is_watched(tmp_path: Path) -> None:
    package = tmp_path / "program"
    package.mkdir()
    (package / "__main__.py").write_text(TRAIN.format(**PLAIN))
    done = run(["-m", "program"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(read_record(tmp_path / "record")[0].steps) == 6


@pytest.mark.parametrize(
    ("inside", "code"),
    [
        ("if step == 3: os.kill(os.getpid(), signal.SIGKILL)", -9),
        ("if step == 3: os.kill(os.getpid(), signal.SIGTERM)", -15),
    ],
)
def test_killed_process_leaves_the_steps_before(tmp_path: Path, inside: str, code: int) -> None:
    done = run_script(tmp_path, inside=inside)
    assert done.returncode == code
    (observation,) = read_record(tmp_path / "record")
    assert observation.outcome is Outcome.CRASHED
    assert 3 <= len(observation.steps) <= 4
    assert observation.optimizers


@pytest.mark.parametrize(
    ("ending", "least"), [("os._exit(7)", 101), ("os.kill(os.getpid(), signal.SIGKILL)", 85)]
)
def test_a_longer_run_loses_no_more_than_the_last_moment(tmp_path: Path, ending: str, least: int) -> None:
    slow = f"import time; time.sleep(0.01)\n        if step == 100: {ending}"
    run_script(tmp_path, num_steps="200", inside=slow)
    (observation,) = read_record(tmp_path / "record")
    # Ten steps or fewer take the 0.1 s that they may wait.
    assert least <= len(observation.steps) <= 101
    assert [step.step for step in observation.steps] == list(range(len(observation.steps)))


def test_hard_exit_keeps_its_code_and_every_step(tmp_path: Path) -> None:
    done = run_script(tmp_path, inside="if step == 3: os._exit(7)")
    assert done.returncode == 7
    (observation,) = read_record(tmp_path / "record")
    assert (observation.outcome, observation.error) == (Outcome.RAISED, "HardExit: os._exit(7)")
    assert len(observation.steps) == 4


def test_exception_keeps_traceback_and_exit_code(tmp_path: Path) -> None:
    done = run_script(tmp_path, after="raise ValueError('no data')")
    assert done.returncode == 1
    assert done.stderr.endswith("ValueError: no data\n")
    (observation,) = read_record(tmp_path / "record")
    assert (observation.outcome, observation.error) == (Outcome.RAISED, "ValueError: no data")


def test_exit_code_of_sys_exit_is_kept(tmp_path: Path) -> None:
    assert run_script(tmp_path, after="sys.exit(3)").returncode == 3


def test_max_steps_ends_the_script_with_code_0_through_its_finally(tmp_path: Path) -> None:
    done = run_script(tmp_path, ObserverOptions(max_steps=3), after="print('never')")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["losses"]) == 2
    (observation,) = read_record(tmp_path / "record")
    assert observation.outcome is Outcome.STOPPED
    assert len(observation.steps) == 3


def test_process_without_torch_loads_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    done = run(["-c", "import sys; print([m for m in sys.modules if m.startswith('harness')])"], tmp_path)
    assert done.stdout.strip() == "[]"
    assert read_record(tmp_path / "record") == []


def test_program_without_steps_says_so(tmp_path: Path) -> None:
    run(["-c", "import torch; torch.nn.Linear(2, 2)(torch.ones(1, 2)).sum().backward()"], tmp_path)
    (observation,) = read_record(tmp_path / "record")
    assert (observation.steps, observation.num_backwards) == ([], 1)


def test_users_own_sitecustomize_is_run(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "sitecustomize.py").write_text("print('mine')")
    done = run(["-c", "import sitecustomize; print(sitecustomize.__file__)"], tmp_path, PYTHONPATH=str(mine))
    assert done.stdout.split() == ["mine", str(mine / "sitecustomize.py")]


def test_program_with_a_harness_of_its_own_is_let_alone(tmp_path: Path) -> None:
    (tmp_path / "harness.py").write_text("NAME = 'mine'")
    (tmp_path / "train.py").write_text("import torch, harness; print(harness.NAME)")
    done = run(["train.py"], tmp_path)
    assert done.stdout == "mine\n"
    assert "not watched: it has a module named harness" in done.stderr


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_a_loader_leave_no_record(tmp_path: Path, method: str) -> None:
    (tmp_path / "train.py").write_text(f"""
import torch
from torch.utils.data import DataLoader, TensorDataset
if __name__ == "__main__":
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = DataLoader(TensorDataset(torch.ones(8, 2)), batch_size=2, num_workers=1,
                        multiprocessing_context="{method}")
    for (batch,) in loader:
        model(batch).sum().backward()
        optimizer.step()
""")
    done = run(["train.py"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "record").iterdir())) == 1
    (observation,) = read_record(tmp_path / "record")
    assert len(observation.steps) == 4
    assert observation.loaders[0].epochs[0].num_distinct == 8


RANKS = """
import os, sys, time, torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
dist.init_process_group("gloo")
torch.manual_seed(0)
model = DistributedDataParallel(torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 1)))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
torch.manual_seed(dist.get_rank())
for step in range(int(sys.argv[1])):
    loss = model(torch.randn(3, 4)).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    time.sleep(0.01 * dist.get_rank())
dist.barrier()
# torch aborts a process that ends while a thread of gloo still drops its last exchange, watched or not.
del model, optimizer, loss
time.sleep(0.2)
dist.destroy_process_group()
"""


def run_ranks(tmp_path: Path, num_steps: int, options: ObserverOptions) -> subprocess.CompletedProcess[str]:
    (tmp_path / "train.py").write_text(RANKS)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "train.py", str(num_steps)]
    return run(launch, tmp_path, options)


@pytest.mark.slow
def test_each_rank_of_torchrun_leaves_a_record(tmp_path: Path) -> None:
    done = run_ranks(tmp_path, 4, ObserverOptions(deep_steps=(1,)))
    assert done.returncode == 0, done.stderr
    first, second = read_record(tmp_path / "record")
    assert [(run.rank, run.world_size, len(run.steps)) for run in (first, second)] == [(0, 2, 4), (1, 2, 4)]
    assert first.losses != second.losses
    assert first.has_process_group
    assert second.has_process_group
    # Same gradients, so the same parameters, on every rank.
    before, after = first.deep_steps[0].parameters, second.deep_steps[0].parameters
    assert [parameter.fingerprint for parameter in before] == [parameter.fingerprint for parameter in after]
    assert [parameter.name for parameter in before] == ["0.weight", "0.bias", "1.weight", "1.bias"]


@pytest.mark.slow
@pytest.mark.parametrize("options", [ObserverOptions(max_steps=3), ObserverOptions(max_seconds=0.3)])
def test_ranks_stop_together(tmp_path: Path, options: ObserverOptions) -> None:
    done = run_ranks(tmp_path, 100_000, options)
    assert done.returncode == 0, done.stderr
    first, second = read_record(tmp_path / "record")
    assert len(first.steps) == len(second.steps)
    assert {first.outcome, second.outcome} == {Outcome.STOPPED}


def test_stopped_program_leaves_its_process_group(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        ObserverOptions(max_steps=3),
        before="import atexit; atexit.register(lambda: print(torch.distributed.is_initialized()))",
        inside="if not step: torch.distributed.init_process_group("
        f"'gloo', init_method='file://{tmp_path}/meet', rank=0, world_size=1)",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False"


def test_light_depth_reaches_the_child(tmp_path: Path) -> None:
    run_script(tmp_path, ObserverOptions(depth=Depth.LIGHT))
    assert read_record(tmp_path / "record")[0].deep_steps == []


SHARDS = """
import json, time, torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
dist.init_process_group("gloo")
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2))
mesh = init_device_mesh("cpu", (2,))
for layer in model:
    fully_shard(layer, mesh=mesh)
fully_shard(model, mesh=mesh)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
torch.manual_seed(dist.get_rank())
losses = []
for step in range(4):
    loss = model(torch.randn(3, 4)).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    losses.append(loss.item())
with open(f"losses{dist.get_rank()}.json", "w") as file:
    json.dump(losses, file)
# torch aborts a process that ends while a thread of gloo still drops its last exchange, watched or not.
del model, layer, optimizer, loss
time.sleep(0.2)
dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.skipif(TORCH < (2, 7), reason="fully_shard needs torch 2.7 on a CPU")
def test_sharded_training_is_watched_rank_by_rank(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SHARDS)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "train.py"]
    done = run(launch, tmp_path, ObserverOptions(deep_steps=(1,)))
    assert done.returncode == 0, done.stderr
    runs = read_record(tmp_path / "record")
    for found in runs:
        assert found.losses == json.loads((tmp_path / f"losses{found.rank}.json").read_text())
        assert found.optimizers[0].groups[0].parameters == ["0.weight", "0.bias", "1.weight", "1.bias"]
        assert any("shard" in text for text in found.not_seen)
        assert not any("watcher itself failed" in text for text in found.not_seen)
    # Each rank changes its own shard.
    assert all(parameter.update_norm for found in runs for parameter in found.deep_steps[0].parameters)
