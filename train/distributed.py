"""The processes that train one model together, started by `torchrun`; without it there is one.

Each takes a share of every batch; DistributedDataParallel averages their gradients, so that all make the
same updates. How many they are changes nothing but the order in which sums round and what dropout draws.
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

Done = TypeVar("Done")

#: A process that is this late is taken for lost.
_PATIENCE = timedelta(minutes=10)
#: What the first process says of what it does while the others wait.
_DONE, _FAILED, _BUSY = 0.0, 1.0, 2.0
#: In torchrun's store: that a process of this launch has made or opened the run.
_BEGUN = "edgechat/begun"


@dataclass(frozen=True)
class World:
    """`size` processes, of which this one is number `rank`. The first of them alone writes."""

    rank: int = 0
    size: int = 1
    store: Any = None
    """torchrun's, which outlives its processes and goes with the launch; None without torchrun."""

    @property
    def writes(self) -> bool:
        return self.rank == 0

    @property
    def begun(self) -> bool:
        """Whether this launch made or resumed its run before torchrun started the processes again."""
        with losing(self):
            return self.store is not None and bool(self.store.check([_BEGUN]))

    def remember_begun(self) -> None:
        """Let the processes that torchrun may start in the place of these know that the run is theirs."""
        if self.store is not None:
            with losing(self):
                self.store.set(_BEGUN, "")

    def share(self, indices: np.ndarray) -> tuple[np.ndarray, float]:
        """This process's pairs of a batch, and their weight: 0 for a pair that is only there to keep it in
        step with the others, where there are fewer pairs than processes."""
        own = indices[self.rank :: self.size]
        return (own, 1.0) if len(own) else (indices[:1], 0.0)

    def parallel(self, model: nn.Module) -> nn.Module:
        """The model, whose gradients are averaged over the processes."""
        if self.size == 1:
            return model
        with losing(self):
            parallel = DistributedDataParallel(model)
        parallel.register_comm_hook(self.size, _average)
        return cast(nn.Module, parallel)

    @contextlib.contextmanager
    def synchronized(self, parallel: nn.Module, last: bool) -> Iterator[None]:
        """Gradients go to the others only with the last batch of an update."""
        with losing(self):
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
        with losing(self):
            torch.distributed.all_reduce(summed)
        return cast("list[float]", summed.tolist())

    def wait(self) -> None:
        """Until all processes are here."""
        self.sum(0.0)

    def first_does(self, work: Callable[[], Done], others: Callable[[], Done]) -> Done:
        """Let the first process do its work, however long, while the others wait, and then these theirs.
        Where it fails they leave without a word, since it says why."""
        if not self.writes:
            while (said := self.sum(0.0)[0]) == _BUSY:
                pass
            if said == _FAILED:
                raise SystemExit(1)
            return others()
        try:
            with self._heard():
                done = work()
        except BaseException:
            self.sum(_FAILED)
            raise
        self.sum(_DONE)
        return done

    @contextlib.contextmanager
    def _heard(self) -> Iterator[None]:
        """Say now and then that the first process is busy, so that the others do not take it for lost."""
        over = threading.Event()

        def say() -> None:
            with contextlib.suppress(EdgeChatError):  # one is lost: said where the work ends
                while not over.wait(_PATIENCE.total_seconds() / 10):
                    self.sum(_BUSY)

        thread = threading.Thread(target=say, daemon=True)
        if self.size > 1:
            thread.start()
        try:
            yield
        finally:
            over.set()
            if self.size > 1:
                thread.join()


ALONE = World()


def _average(
    size: int,
    bucket: torch.distributed.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[Tensor]:
    """Average the gradients of a bucket over `size` processes, each by itself.

    In which order three numbers are summed depends on where they lie in what is sent, and PyTorch regroups
    its buckets after the first backward pass of a process, so that a resume would round otherwise.
    """
    sums = [torch.distributed.all_reduce(one, async_op=True).get_future() for one in bucket.gradients()]
    return torch.futures.collect_all(sums).then(lambda _: bucket.buffer().div_(size))


def started_by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ and "RANK" in os.environ


def is_first() -> bool:
    """Whether this process is the first, or the only one."""
    return not started_by_torchrun() or os.environ["RANK"] == "0"


@contextlib.contextmanager
def joined(device: str) -> Iterator[World]:
    """Join the processes that torchrun started, on `cpu` (gloo) or `cuda` (nccl, a GPU a process)."""
    if not started_by_torchrun():
        yield ALONE
        return
    world = World(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    if device == "cuda":
        local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= there:
            raise UsageError(
                f"torchrun started more processes on this machine than its {there} GPUs: "
                f"give --nproc-per-node {there}, or --device cpu"
            )
        torch.cuda.set_device(local)
        # Its default ends the process where another one is lost; so the next call says so instead.
        os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "2")
    with losing(world):
        # torchrun's store outlives a restart, and with it the addresses of the processes that are gone.
        store, _, _ = next(rendezvous("env://", timeout=_PATIENCE))
        world = replace(world, store=store)
        torch.distributed.init_process_group(
            "nccl" if device == "cuda" else "gloo",
            store=torch.distributed.PrefixStore(meet(world), store),  # type: ignore[attr-defined]
            rank=world.rank,
            world_size=world.size,
            timeout=_PATIENCE,
        )
    try:
        yield world
    except BaseException:
        # nccl would wait for what was sent to a lost one; the end of the process does not.
        if device != "cuda":
            torch.distributed.destroy_process_group()
        raise
    torch.distributed.destroy_process_group()


def meet(world: World) -> str:
    """A name that the processes of this start agree on, and that none of an earlier one had.

    torchrun counts restarts for each machine by itself, so that no number it gives is the same for all. When
    it starts processes, those of before are gone, but what they wrote in the store is still there: the first
    process answers whoever wrote, until all have read an answer of its own.
    """
    store, mine = world.store, uuid.uuid4().hex
    if not world.writes:
        store.set(f"edgechat/here/{world.rank}", mine)
        name = str(store.get(mine).decode())
        store.set(f"{name}/{world.rank}", "")
        return name
    missing, end = set(range(1, world.size)), time.monotonic() + _PATIENCE.total_seconds()
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
def losing(world: World) -> Iterator[None]:
    """Say that another process was lost, in place of what its connection says."""
    try:
        yield
    except RuntimeError as error:
        if world.size == 1 or not _is_lost(error):
            raise
        raise EdgeChatError(
            f"process {world.rank} of {world.size} lost another one ({_first_line(error)}): all end, and the "
            "same command with --resume goes on from the last checkpoint"
        ) from error


def _is_lost(error: Any) -> bool:
    text = str(error).lower()
    signs = ("connection closed by peer", "connection reset", "timed out", "broken pipe", "nccl", "gloo")
    return isinstance(error, torch.distributed.DistError) or any(sign in text for sign in signs)


def _first_line(error: Any) -> str:
    """Without its place in the source before, and advice behind."""
    return str(error).strip().splitlines()[0].split("] ")[-1].split(". ")[0].rstrip(".:")
