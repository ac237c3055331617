"""The processes that train one model together, started by `torchrun`; without it there is one.

Each takes a share of every batch, and DistributedDataParallel averages their gradients, so that all make the
same updates. Their number affects only the rounding of sums and what is drawn at random: dropout and, with
scheduled sampling, tokens.
"""

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from ..runtime.errors import EdgeChatError, UsageError

T = TypeVar("T")

#: After this time without an answer a process counts as lost.
_TIMEOUT = timedelta(minutes=10)
#: States of the first process, which it sends to the others while they wait.
_DONE, _FAILED, _BUSY = 0.0, 1.0, 2.0
#: Key in torchrun's store: a process of this launch has made or opened the run.
_RUN_STARTED_KEY = "edgechat/begun"


#: In the errors of gloo, nccl and the store, if another process is gone.
_LOST_SIGNS = (
    "connection closed by peer", "connection reset", "connection refused", "broken pipe", "socket closed",
    "timed out", "timeout", "remote process exit", "communicator was aborted",
)  # fmt: skip


@dataclass(frozen=True)
class World:
    """`size` processes, of which this one is number `rank`. Only the first one writes."""

    rank: int = 0
    size: int = 1
    store: Any = None
    """torchrun's store, which outlives its processes and ends with the launch; None without torchrun."""

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def run_started(self) -> bool:
        """Whether this launch made or resumed its run before torchrun restarted the processes."""
        with explain_lost_process(self):
            return self.store is not None and bool(self.store.check([_RUN_STARTED_KEY]))

    def record_run_started(self) -> None:
        """Record for the processes of a restart that the run belongs to this launch."""
        if self.store is not None:
            with explain_lost_process(self):
                self.store.set(_RUN_STARTED_KEY, "")

    def shard(self, indices: np.ndarray) -> tuple[np.ndarray, float]:
        """This process's pairs of a batch, and their weight: 1, or 0 for a single pair that only keeps the
        process in step with the others if there are fewer pairs than processes."""
        own = indices[self.rank :: self.size]
        return (own, 1.0) if len(own) else (indices[:1], 0.0)

    def wrap_model(self, model: nn.Module) -> nn.Module:
        """The model, wrapped so that its gradients are averaged over the processes."""
        if self.size == 1:
            return model
        with explain_lost_process(self):
            parallel = DistributedDataParallel(model)
        parallel.register_comm_hook(self.size, _average_gradients)
        return cast(nn.Module, parallel)

    @contextlib.contextmanager
    def sync_gradients(self, parallel: nn.Module, last: bool) -> Iterator[None]:
        """Exchange gradients only with the last batch of an update."""
        with explain_lost_process(self):
            if isinstance(parallel, DistributedDataParallel) and not last:
                with parallel.no_sync():
                    yield
            else:
                yield

    def sum(self, *values: float) -> list[float]:
        """Each value, summed over the processes."""
        if self.size == 1:
            return list(values)
        device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
        summed = torch.tensor(values, dtype=torch.float64, device=device)
        with explain_lost_process(self):
            torch.distributed.all_reduce(summed)
        return cast("list[float]", summed.tolist())

    def barrier(self) -> None:
        """Wait until all processes are here."""
        self.sum(0.0)

    def run_first_then_others(self, work: Callable[[], T], others: Callable[[], T]) -> T:
        """Let the first process do `work`, however long it takes, and then the other processes `others`. If
        the first one fails the others exit silently, since it reports the error."""
        if not self.is_first:
            while (state := self.sum(0.0)[0]) == _BUSY:
                pass
            if state == _FAILED:
                raise SystemExit(1)
            return others()
        try:
            with self._heartbeat():
                done = work()
        except BaseException:
            self.sum(_FAILED)
            raise
        self.sum(_DONE)
        return done

    @contextlib.contextmanager
    def _heartbeat(self) -> Iterator[None]:
        """Signal regularly that the first process is busy, so that the others do not consider it lost."""
        done_event = threading.Event()

        def beat() -> None:
            with contextlib.suppress(EdgeChatError):  # a lost process is reported at the end of the work
                while not done_event.wait(_TIMEOUT.total_seconds() / 10):
                    self.sum(_BUSY)

        thread = threading.Thread(target=beat, daemon=True)
        if self.size > 1:
            thread.start()
        try:
            yield
        finally:
            done_event.set()
            if self.size > 1:
                thread.join()


SINGLE_PROCESS = World()


def _average_gradients(
    size: int,
    bucket: torch.distributed.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[Tensor]:
    """Average the gradients of a bucket over `size` processes, one tensor at a time.

    The order of summation depends on the position of a number in its message, and PyTorch regroups its
    buckets after the first backward pass of a process: whole buckets would round differently after a resume.
    """
    sums = [torch.distributed.all_reduce(one, async_op=True).get_future() for one in bucket.gradients()]

    def divide(_: torch.futures.Future[Any]) -> Tensor:
        for each in sums:  # raises its error; on a GPU it orders the division after the sum
            each.wait()
        return cast(Tensor, bucket.buffer().div_(size))

    # Not `collect_all`: its future has no device, so `then` would not run on a stream that follows the sums.
    return cast("torch.futures.Future[Tensor]", sums[-1].then(divide))


def started_by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ and "RANK" in os.environ


def is_first_process() -> bool:
    """Whether this process is the first, or the only one."""
    return not started_by_torchrun() or os.environ["RANK"] == "0"


@contextlib.contextmanager
def join_process_group(device: str) -> Iterator[World]:
    """Join the processes that torchrun started, on `cpu` (gloo) or `cuda` (nccl, one GPU per process)."""
    if not started_by_torchrun():
        yield SINGLE_PROCESS
        return
    world = World(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    if device == "cuda":
        local_rank, gpu_count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local_rank >= gpu_count:
            raise UsageError(
                f"torchrun started more processes on this machine than its {gpu_count} GPUs: "
                f"give --nproc-per-node {gpu_count}, or --device cpu"
            )
        torch.cuda.set_device(local_rank)
        # By default a lost process aborts the others; with 2 their next call raises an error.
        os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "2")
    with explain_lost_process(world):
        # torchrun's store outlives a restart and still holds the addresses of the processes that are gone.
        store, _, _ = next(rendezvous("env://", timeout=_TIMEOUT))
        world = replace(world, store=store)
        torch.distributed.init_process_group(
            "nccl" if device == "cuda" else "gloo",
            store=torch.distributed.PrefixStore(agree_on_store_prefix(world), store),  # type: ignore[attr-defined]
            rank=world.rank,
            world_size=world.size,
            timeout=_TIMEOUT,
        )
    try:
        yield world
    except BaseException:
        # With nccl this would wait for messages to a lost process; the end of this process does not.
        if device != "cuda":
            torch.distributed.destroy_process_group()
        raise
    torch.distributed.destroy_process_group()


def agree_on_store_prefix(world: World) -> str:
    """Agree with the other processes of this start on a name that no earlier start had.

    torchrun counts restarts per machine, so it has no number that is the same for all. When it starts
    processes, the earlier ones are gone, but their entries in the store are still there. So the first process
    answers every entry, until all processes of this start have read its answer.
    """
    store, mine = world.store, uuid.uuid4().hex
    if not world.is_first:
        store.set(f"edgechat/here/{world.rank}", mine)
        name = str(store.get(mine).decode())
        store.set(f"{name}/{world.rank}", "")
        return name
    missing, end = set(range(1, world.size)), time.monotonic() + _TIMEOUT.total_seconds()
    while missing:
        for rank in missing:
            if store.check([f"edgechat/here/{rank}"]):
                store.set(store.get(f"edgechat/here/{rank}").decode(), mine)
        missing = {rank for rank in missing if not store.check([f"{mine}/{rank}"])}
        if time.monotonic() > end:
            raise RuntimeError(f"process {min(missing)} timed out")
        time.sleep(0.05)
    return mine


@contextlib.contextmanager
def explain_lost_process(world: World) -> Iterator[None]:
    """Turn the connection errors of a lost process into an error that says so."""
    try:
        yield
    except RuntimeError as error:
        if world.size == 1 or not _is_connection_error(error):
            raise
        raise EdgeChatError(
            f"process {world.rank} of {world.size} lost another one ({_first_line(error)}): all processes "
            "end, and the same command with --resume continues from the last checkpoint"
        ) from error


def _is_connection_error(error: Any) -> bool:
    """Whether gloo, nccl or the store lost another process. Their other errors, such as two processes on one
    GPU, stay what they are."""
    text = str(error).lower()
    return isinstance(error, torch.distributed.DistNetworkError) or any(sign in text for sign in _LOST_SIGNS)


def _first_line(error: Any) -> str:
    """The first line of an error, without the source location before it and the advice after it."""
    return str(error).strip().splitlines()[0].split("] ")[-1].split(". ")[0].rstrip(".:")
