"""Tasks side by side: when one fails, the others are cancelled and its error is raised."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from hyraxvm.core.cancel import cancelling, stop_programs

T = TypeVar("T")


def run_parallel(tasks: Sequence[Callable[[], T]], workers: int) -> list[T]:
    """Run `tasks` in `workers` threads; return their results in order.

    Raises the error of the task that failed first, after all others have ended.
    """
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        futures = [pool.submit(_timed, task) for task in tasks]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
            if not _errors(futures):
                return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()
            with cancelling():
                # Repeat: a program may start just after `stop_programs`.
                while not all(future.done() for future in futures):
                    stop_programs()
                    time.sleep(0.05)
        # The tasks that were cancelled failed too, but later.
        raise min(_errors(futures), key=lambda error: vars(error)["failed"])


def _timed(task: Callable[[], T]) -> T:
    try:
        return task()
    except BaseException as error:
        # Of nested calls, the innermost catches the error first.
        vars(error).setdefault("failed", time.monotonic())
        raise


def _errors(futures: Sequence[Future[T]]) -> list[BaseException]:
    done = (future for future in futures if future.done() and not future.cancelled())
    return [error for future in done if (error := future.exception())]
