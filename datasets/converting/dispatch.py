"""Who converts: Dask, on the threads of this process or on the workers of a `dask.distributed` cluster.

One task is one image, or a run of shards of a large one: never one chunk, because a task costs about as much as reading one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from core.errors import ConfigError, DataError, HalfseenError, MissingDataError
from datasets.converting.conversion import begin, convert_image, count_shards, fill, seal
from datasets.converting.job import Job, Outcome, is_divided
from datasets.readers._store import SHARD_BYTES

Done = Callable[[Outcome], None]

_TASK_BYTES = 4 * SHARD_BYTES  # of voxels that one task of a divided image writes
_CONNECT_S = 20
_RETRIES = 3  # workers may die under a task that often


def convert_all(jobs: Sequence[Job], *, workers: int, scheduler: str | None, out: Path, done: Done) -> list[Outcome]:
    """Convert images and give their outcomes in the order of the jobs; `done` hears of each when it comes.

    Args:
        jobs: images, with drafts for those that may be divided.
        workers: threads, without a scheduler.
        scheduler: address of a `dask.distributed` scheduler whose workers see the same paths and run this code.
        out: folder of the converted collection.
        done: called in this process, in any order.

    Raises:
        MissingDataError: the library of a scheduler is not installed.
        ConfigError: the scheduler does not answer, or its workers do not see `out` or this code.
        RunFolderError: the place cannot be written.
    """
    tasks = [_task(job) for job in jobs]
    if not tasks:
        return []
    if scheduler is None:
        return _in_threads(tasks, workers, done)
    with connected(scheduler, out) as client:
        return _on_cluster(client, jobs, tasks, done)


def _task(job: Job) -> Any:
    """The delayed outcome of one image. Jobs travel in partials: Dask would take a dataclass among arguments apart."""
    from dask.delayed import delayed

    shards = _shards(job) if is_divided(job) else 1
    if shards == 1:
        return delayed(partial(convert_image, job), pure=False)()
    step = max(1, _TASK_BYTES * shards // max(1, job.voxel_bytes))
    begun = delayed(partial(begin, job), pure=False)()
    parts = [
        delayed(partial(_fill, job, first, min(shards, first + step)), pure=False)(begun)
        for first in range(0, shards, step)
    ]
    return delayed(partial(seal, job), pure=False)(begun, parts)


def _shards(job: Job) -> int:
    try:
        return count_shards(job)
    except HalfseenError:
        return 1  # converting it as a whole says what is wrong


def _fill(job: Job, first: int, stop: int, begun: str) -> Any:
    return begun or fill(job, first, stop)


def _in_threads(tasks: list[Any], workers: int, done: Done) -> list[Outcome]:
    from dask.base import compute
    from dask.callbacks import Callback

    def heard(key: Any, result: Any, graph: Any, state: Any, worker: Any) -> None:
        if isinstance(result, Outcome):
            done(result)

    with Callback(posttask=heard):
        return list(compute(*tasks, scheduler="threads", num_workers=workers))


def _on_cluster(client: Any, jobs: Sequence[Job], tasks: list[Any], done: Done) -> list[Outcome]:
    from distributed import KilledWorker, as_completed

    futures = client.compute(tasks, retries=_RETRIES)
    found: dict[Any, Outcome] = {}
    names = {future.key: job for future, job in zip(futures, jobs, strict=True)}
    try:
        for future in as_completed(futures, loop=client.loop):  # its own default is the loop of some other client
            try:
                found[future.key] = future.result()
            except KilledWorker:
                job = names[future.key]
                text = f"{job.path}: every worker that converted it died; give the workers more memory, or look at the file."
                found[future.key] = Outcome(file=job.file, error=text)
            done(found[future.key])
    finally:
        client.cancel(futures)
    return [found[future.key] for future in futures]


@contextlib.contextmanager
def connected(address: str, out: Path) -> Iterator[Any]:
    """Give a client of a cluster whose workers run these versions and see the folder of `out`.

    Raises:
        MissingDataError: dask.distributed is not installed.
        ConfigError: no cluster answers there, or its workers run other code.
        DataError: a worker cannot see the folder.
    """
    try:
        from distributed import Client
    except ImportError:
        raise MissingDataError("--scheduler needs dask.distributed: pip install 'halfseen[cluster]'.") from None
    try:
        client = Client(address, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--scheduler {address}: no Dask scheduler answers there ({error}); start one first."
        ) from None
    with client:
        if not client.scheduler_info()["workers"]:
            raise ConfigError(f"--scheduler {address}: it has no workers; start some: dask worker {address}.")
        try:
            sight = client.run(_sees, str(out))
        except Exception as error:  # whatever the import of another `datasets` raises there
            raise ConfigError(
                f"--scheduler {address}: its workers do not run this code ({type(error).__name__}: {error}); start them in "
                "this checkout and this environment."
            ) from None
        blind = sorted(worker for worker, sees in sight.items() if not sees)
        if blind:
            raise DataError(
                f"--scheduler {address}: {', '.join(blind)} cannot see {out}; use a folder that all workers share."
            )
        yield client


def _sees(out: str) -> bool:
    return Path(out).is_dir()
