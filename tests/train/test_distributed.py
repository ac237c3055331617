"""Two processes that train together (gloo, on a CPU) do the same as one, and report a lost process."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from distributed_runs import torchrun

from edgechat.runtime.errors import EdgeChatError
from edgechat.train import distributed, trainer
from edgechat.train.batches import ordered_batches
from edgechat.train.checkpoints import Checkpoints
from edgechat.train.distributed import SINGLE_PROCESS, World, agree_on_store_prefix, explain_lost_process
from edgechat.train.metrics import read_metrics
from edgechat.train.run import open_run
from edgechat.train.trainer import Trainer
from edgechat.train.updates import evaluate_loss

STEPS = 12

# Trains the runs of the folder it is given: `whole` in one go, `halves` with a stop after step 7, which only
# the second process asks for, and `stopped` until then.
_TRAINING_SCRIPT = """
import sys
from pathlib import Path
import torch
from edgechat.train.distributed import join_process_group
from edgechat.train.run import open_run
from edgechat.train.trainer import Trainer
torch.set_num_threads(1)
folder = Path(sys.argv[1])
with join_process_group("cpu") as world:
    def train(name, stop_at=None):
        done = []
        trainer = Trainer(open_run(folder / name), world=world, on_step=lambda p: done.append(p.step))
        result = trainer.train(lambda: world.rank == 1 and done[-1] == stop_at)
        print(name, world.rank, result.ended, flush=True)
    train("whole")
    train("halves", 7)
    train("halves")
    train("stopped", 7)
"""

# Prints whether a model has the same gradients in its third update as a fresh one.
_GRADIENTS_SCRIPT = """
import torch
from edgechat.train.distributed import join_process_group
torch.set_num_threads(1)
with join_process_group("cpu") as world:
    def gradients(steps):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.Linear(32, 32), torch.nn.LSTM(32, 32))
        parallel = world.wrap_model(model)
        for step in steps:
            torch.manual_seed(100 * step + world.rank)
            model.zero_grad()
            with world.sync_gradients(parallel, last=True):
                parallel(torch.randn(5, 7, 32))[0].square().sum().backward()
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    print(torch.equal(gradients([1, 2, 3]), gradients([3])), flush=True)
"""

# The command, whose second process dies at step 5 of its first life.
_DYING_SCRIPT = """
import os, signal, sys
from edgechat.train import updates
real = updates.seed_step
def seed_step(seed, step, process):
    if step == 5 and process == 1 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    real(seed, step, process)
updates.seed_step = seed_step
from edgechat.cli import main
sys.argv[0] = "edgechat"
main()
"""

# The command, which is killed while it reads the data in its first life.
_KILLED_READING_SCRIPT = """
import os, signal, sys
from edgechat.train import dataset
real = dataset.prepare_corpus
def prepare_corpus(*given, **options):
    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*given, **options)
dataset.prepare_corpus = prepare_corpus
from edgechat.cli import main
sys.argv[0] = "edgechat"
main()
"""
_OPTIONS = [
    "--hidden", "16", "--embedding", "8", "--attention", "8", "--vocab-size", "280", "--batch-size", "5",
    "--max-steps", "8", "--epochs", "99", "--save-every", "3", "--threads", "1", "--device", "cpu",
    "--dropout", "0",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of the same run with two processes and with one."""
    folder = tmp_path_factory.mktemp("together")
    for name in ("alone", "whole", "halves", "stopped"):
        shutil.copytree(run_folder, folder / name, ignore=shutil.ignore_patterns("checkpoints", "metrics.*"))
        run = open_run(folder / name)
        # Batches of 3 and fewer, so that there are also some with one pair for two processes.
        training = {"epochs": 99, "max_steps": STEPS, "batch_size": 3, "save_every": 4, "accumulate": 2}
        run.info["config"] = run.config.with_values({**training, "ema": 0.9, "bpe_dropout": 0.3}).to_json()
        (run.folder / "run.json").write_text(json.dumps(run.info))
    (folder / "together.py").write_text(_TRAINING_SCRIPT)
    done = torchrun(folder / "together.py", folder)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == sorted(
        f"{name} {rank} {ended}"
        for rank in (0, 1)
        for name, ended in (
            ("whole", "finished"), ("halves", "interrupted"), ("halves", "finished"),
            ("stopped", "interrupted"),
        )
    )  # fmt: skip
    torch.set_num_threads(1)
    Trainer(open_run(folder / "alone")).train()
    return folder


def weights(run: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(Checkpoints(run).last / "model.safetensors")


class OwnPart(World):
    """One of several processes, whose sums are its own part of them."""

    def sum(self, *values: float) -> list[float]:
        return list(values)

    def wrap_model(self, model: torch.nn.Module) -> torch.nn.Module:
        return model


def test_each_validation_batch_is_divided_among_the_processes(run_folder, tmp_path, monkeypatch):
    shutil.copytree(run_folder, tmp_path / "run")
    run, parts, sizes = open_run(tmp_path / "run"), list[tuple[float, float]](), list[int]()

    def measure(model, batches, when):
        shards = list(batches)
        sizes.extend(len(shard.src) for shard in shards)
        parts.append(evaluate_loss(model, shards, when))
        return parts[-1]

    monkeypatch.setattr(trainer, "evaluate_loss", measure)
    for rank in range(3):
        process = Trainer(run, world=OwnPart(rank, 3))
        process._valid = process._train
        process._validate()
    batch_size = run.config.training.batch_size
    assert (batch_size, max(sizes), min(sizes)) == (4, 2, 1)
    batches = ordered_batches(run.train_pairs, run.config.training)
    whole = evaluate_loss(run.load_model("last")[0], batches, "")
    assert [sum(column) for column in zip(*parts, strict=True)] == pytest.approx(whole)


def test_two_processes_learn_what_one_learns(trained):
    rows = [read_metrics(trained / name) for name in ("alone", "whole")]
    assert [row["step"] for row in rows[1]] == [4, 8, 12]
    for one, two in zip(*rows, strict=True):
        assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-4)
        assert two["valid_loss"] == pytest.approx(one["valid_loss"], rel=1e-4)
    for one, two in zip(
        weights(trained / "alone").values(), weights(trained / "whole").values(), strict=True
    ):
        torch.testing.assert_close(one, two, rtol=1e-2, atol=1e-3)


def test_two_processes_resume_to_the_same_bytes(trained):
    for name in ("model.safetensors", "optimizer.safetensors", "average.safetensors", "state.json"):
        files = [Checkpoints(trained / run).last / name for run in ("whole", "halves")]
        assert files[0].read_bytes() == files[1].read_bytes()
    assert read_metrics(trained / "whole") == read_metrics(trained / "halves")


@pytest.mark.slow
def test_the_gradients_of_three_processes_are_those_of_a_start_at_that_step(tmp_path):
    # Two numbers have one sum. Of three, PyTorch sums the first gradients after a start in another order.
    (tmp_path / "gradients.py").write_text(_GRADIENTS_SCRIPT)
    done = torchrun(tmp_path / "gradients.py", processes=3)
    assert done.returncode == 0, done.stderr
    assert "".join(done.stdout.split()) == "True" * 3  # their lines may run into each other


def test_one_process_goes_on_where_two_stopped_with_the_same_data(trained):
    resumed = Trainer(open_run(trained / "stopped"))
    assert resumed.position.step == 7
    resumed.train()
    for one, two in zip(
        weights(trained / "whole").values(), weights(trained / "stopped").values(), strict=True
    ):
        torch.testing.assert_close(one, two, rtol=1e-2, atol=1e-3)


def test_a_lost_process_ends_all_with_a_sentence_and_a_restart_by_torchrun_resumes(
    corpus_file, tmp_path, edgechat
):
    (tmp_path / "dying.py").write_text(_DYING_SCRIPT)
    command = ["train", corpus_file, *_OPTIONS, "--out"]
    done = torchrun(tmp_path / "dying.py", *command, tmp_path / "restarted", restarts=1)
    assert done.returncode == 0, done.stderr
    assert "edgechat: process 0 of 2 lost another one" in done.stderr
    assert "the same command with --resume continues from the last" in done.stderr
    assert done.stderr.count("training from step 3 to step 8 on cpu, 2 processes") == 1
    assert done.stderr.count("finished at step 8 of 8") == 1
    assert edgechat(*command, tmp_path / "whole").returncode == 0
    rows = [read_metrics(tmp_path / run) for run in ("restarted", "whole")]
    assert [row["step"] for row in rows[0]] == [3, 6, 8]
    for one, two in zip(*rows, strict=True):
        assert one["valid_loss"] == pytest.approx(two["valid_loss"], rel=1e-4)


@dataclass(frozen=True)
class ThreadWorld(World):
    """One of two processes, which are threads here."""

    values: dict[int, float] = field(default_factory=dict)
    sums: list[float] = field(default_factory=list)
    meeting: threading.Barrier = field(default_factory=lambda: threading.Barrier(2, timeout=30))

    def sum(self, *values: float) -> list[float]:
        (self.values[self.rank],) = values
        self.meeting.wait()
        total = sum(self.values.values())
        self.meeting.wait()
        if self.is_first:
            self.sums.append(total)
        return [total]


@pytest.mark.parametrize("fails", [False, True])
def test_the_first_may_work_for_longer_than_the_others_wait_for_a_sign_of_life(monkeypatch, fails):
    monkeypatch.setattr(distributed, "_TIMEOUT", timedelta(milliseconds=100))
    first = ThreadWorld(0, 2)
    second = replace(first, rank=1)

    def work() -> str:
        """Ends once the second process has heard three times that the first is busy."""
        end = time.monotonic() + 30
        while len(first.sums) < 3 and time.monotonic() < end:
            time.sleep(0.01)
        if fails:
            raise OSError("full")
        return "done"

    with ThreadPoolExecutor() as threads:
        waits = threads.submit(second.run_first_then_others, work, lambda: "then these")
        if fails:
            with pytest.raises(OSError, match="full"):
                first.run_first_then_others(work, str)
            with pytest.raises(SystemExit):
                waits.result()
        else:
            assert first.run_first_then_others(work, str) == "done"
            assert waits.result() == "then these"
    *beats, end = first.sums
    assert len(beats) >= 3
    assert set(beats) == {distributed._BUSY}
    assert end == (distributed._FAILED if fails else distributed._DONE)


def test_processes_with_different_restart_counts_train_together():
    # As it does on two machines, of which one lost its process and the other only saw that.
    store = torch.distributed.TCPStore("localhost", 0, is_master=True)
    code = (
        "from edgechat.train.distributed import join_process_group\n"
        'with join_process_group("cpu") as world: print(world.run_started, world.sum(world.rank + 1.0))'
    )

    def start(rank: int) -> "subprocess.Popen[str]":
        environment = {
            "RANK": rank, "LOCAL_RANK": 0, "WORLD_SIZE": 2,
            "MASTER_ADDR": "localhost", "MASTER_PORT": store.port, "TORCHELASTIC_RUN_ID": "mine",
            "TORCHELASTIC_USE_AGENT_STORE": True, "TORCHELASTIC_RESTART_COUNT": rank,
        }  # fmt: skip
        return subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, **{name: str(value) for name, value in environment.items()}},
            stdout=subprocess.PIPE,
            text=True,
        )

    started = [start(rank) for rank in (0, 1)]
    try:
        said = [process.communicate(timeout=60)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert said == ["False [3.0]\n"] * 2


def test_the_processes_of_a_start_meet_despite_entries_of_earlier_ones():
    store = torch.distributed.HashStore()
    worlds = [World(rank, 3, store) for rank in range(3)]
    store.set("edgechat/here/1", "killed while it waited")
    with ThreadPoolExecutor(3) as pool:
        starts = [set(pool.map(agree_on_store_prefix, order)) for order in (worlds, worlds[::-1], worlds)]
    assert [len(names) for names in starts] == [1, 1, 1]
    assert len(set.union(*starts)) == 3


@pytest.mark.slow
def test_a_restart_by_torchrun_resumes_only_a_run_of_this_launch(corpus_file, tmp_path, edgechat):
    run = tmp_path / "run"
    assert edgechat("train", corpus_file, *_OPTIONS, "--out", run).returncode == 0
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    command = ["train", corpus_file, *_OPTIONS, "--out", run]
    refused = torchrun("-m", "edgechat", *command, processes=1, restarts=1)
    assert refused.returncode != 0
    assert refused.stderr.count(f"edgechat: {run} exists: --resume continues it") == 2
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    (tmp_path / "killed.py").write_text(_KILLED_READING_SCRIPT)
    replaced = torchrun(tmp_path / "killed.py", *command, "--force", "--seed", 1, processes=1, restarts=1)
    assert replaced.returncode == 0, replaced.stderr
    assert json.loads((run / "run.json").read_text())["config"]["training"]["seed"] == 1


def test_a_batch_is_shared_and_every_process_gets_a_pair():
    indices = np.array([10, 11, 12, 13, 14])
    shards = [World(rank, 2).shard(indices) for rank in (0, 1)]
    assert [(own.tolist(), weight) for own, weight in shards] == [([10, 12, 14], 1.0), ([11, 13], 1.0)]
    own, weight = World(1, 2).shard(indices[:1])
    assert (own.tolist(), weight) == ([10], 0.0)
    assert SINGLE_PROCESS.shard(indices)[0].tolist() == indices.tolist()


def test_the_error_of_a_lost_connection_has_no_source_location_and_no_advice():
    said = (
        "[/pytorch/gloo/transport/tcp/pair.cc:547] Read error [127.0.0.1]:390: Connection reset by peer. "
        "This is typically caused by a remote worker hanging. GLHF! \N{BEACH WITH UMBRELLA}"
    )
    with (
        pytest.raises(
            EdgeChatError, match=r"another one \(Read error .*:390: Connection reset by peer\): all"
        ),
        explain_lost_process(World(1, 2)),
    ):
        raise RuntimeError(said)


class _LateSum(torch.futures.Future[list[torch.Tensor]]):
    """An all-reduce whose result is there only when it has been waited for, as on the stream of a GPU."""

    def __init__(self, tensor: torch.Tensor, error: str = "") -> None:
        super().__init__()
        self._tensor, self._error = tensor, error
        self.set_result([tensor])

    def get_future(self) -> "_LateSum":
        return self

    def wait(self) -> list[torch.Tensor]:
        if self._error:
            raise RuntimeError(self._error)
        self._tensor += 10
        return [self._tensor]


class _Bucket:
    def __init__(self) -> None:
        self._buffer = torch.tensor([2.0, 4.0, 6.0])

    def buffer(self) -> torch.Tensor:
        return self._buffer

    def gradients(self) -> list[torch.Tensor]:
        return [self._buffer[:2], self._buffer[2:]]


def test_gradients_are_divided_only_after_all_their_sums_have_been_waited_for(monkeypatch):
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor, async_op: _LateSum(tensor))
    assert distributed._average_gradients(2, _Bucket()).wait().tolist() == [6.0, 7.0, 8.0]


@pytest.mark.parametrize("failing", [0, 1])
def test_a_sum_of_gradients_that_failed_is_an_error(monkeypatch, failing):
    errors = ["", ""]
    errors[failing] = "Connection closed by peer"
    remaining = iter(errors)
    monkeypatch.setattr(
        torch.distributed, "all_reduce", lambda tensor, async_op: _LateSum(tensor, next(remaining))
    )
    with pytest.raises(RuntimeError, match="Connection closed by peer"):
        distributed._average_gradients(2, _Bucket()).wait()


def test_only_the_errors_of_lost_connections_count_as_such():
    with (
        pytest.raises(EdgeChatError, match="process 1 of 2 lost another one"),
        explain_lost_process(World(1, 2)),
    ):
        raise RuntimeError("[..pair.cc:534] Connection closed by peer [10.0.0.1]:4711")
    for world, text in (
        (World(1, 2), "shapes do not match"),
        (
            World(1, 2),
            "Duplicate GPU detected : rank 0 and rank 1 both on CUDA device 1000",
        ),
        (World(1, 2), "Distributed package doesn't have NCCL built in"),
        (SINGLE_PROCESS, "Connection closed by peer"),
    ):
        with pytest.raises(RuntimeError) as error, explain_lost_process(world):
            raise torch.distributed.DistBackendError(text)
        assert type(error.value) is torch.distributed.DistBackendError


@pytest.mark.parametrize(
    "text",
    [
        "NCCL communicator was aborted on rank 1.",
        "ncclRemoteError: possibly due to a network error or a remote process exiting prematurely.",
        "[../pair.cc:553] Read error [10.0.0.1]:4711: Connection reset by peer",
        "Wait timeout",
    ],
)
def test_the_errors_of_a_lost_process_are_known(text):
    with pytest.raises(EdgeChatError, match="lost another one"), explain_lost_process(World(1, 2)):
        raise torch.distributed.DistBackendError(text)
