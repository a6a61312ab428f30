"""Invoke, with one addition: bare words after a task go to that task's repeatable argument.

Invoke itself knows only positional arguments that must be given; `./inv build` and
`./inv build nfs smb` are both meant to work, so the latter is read as
`./inv build --image nfs --image smb`.
"""

from __future__ import annotations

import copy
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any, Final

from invoke import Argument, Collection, ParseError, Program, Task
from invoke.loader import FilesystemLoader

from hyraxvm import __version__
from hyraxvm.core.paths import ROOT

# Words that a task takes for its own, although they name another task.
OWN_WORDS: Final = {"bench": {"build"}}


def spread(argv: Sequence[str], tasks: Collection) -> list[str]:
    """Put a flag before each bare word that follows a task with a repeatable argument.

    >>> spread(["build", "nfs", "smb"], tasks)
    ['build', '--image', 'nfs', '--image', 'smb']

    A request for help comes first: Invoke takes `--help` for the value of an argument that the
    task must have.

    >>> spread(["try", "--help"], tasks)
    ['--help', 'try']
    """
    result: list[str] = []
    current = ""  # the task whose arguments follow
    flag: str | None = None
    own: set[str] = set()
    takes_value: set[str] = set()
    words = iter(argv)
    for word in words:
        result.append(word)
        if word == "--":
            result.extend(words)
        elif word in takes_value and word.startswith("-"):
            result.extend(value for value in [next(words, None)] if value is not None)
        elif word == "--help" and current:
            return ["--help", current]
        elif word.startswith("-"):
            continue
        elif flag is not None and (word in own or word not in tasks.task_names):
            result[-1:] = [flag, word]
        elif word in tasks.task_names:
            current, task, own = word, tasks[word], OWN_WORDS.get(word, set())
            flag = f"--{task.iterable[0].replace('_', '-')}" if task.iterable else None
            takes_value = {
                f"--{name}" if len(name) > 1 else f"-{name}"
                for argument in arguments(task)
                if argument.takes_value
                for name in argument.names
            }
    return result


def arguments(task: Task[Any]) -> list[Argument]:
    """Return the arguments of a task without its loss: `get_arguments` empties its help texts."""
    twin = copy.copy(task)
    twin.help = dict(task.help)
    return list(twin.get_arguments())


class Inv(Program):
    """Invoke's program; it refuses a command line with one line and exit status 2."""

    def parse_tasks(self) -> None:
        """Read the tasks and their arguments."""
        try:
            super().parse_tasks()
        except ParseError as error:
            said = str(error).strip().splitlines()[0].rstrip("!")
            task = error.context.name if error.context else None
            help_ = f"./inv --help {task}" if task else "./inv --list"
            print(f"./inv: {said}; see: {help_}", file=sys.stderr)
            raise SystemExit(2) from None
        except ValueError as error:  # from `int`, for `--size x`
            print(f"./inv: {error}; see: ./inv --list", file=sys.stderr)
            raise SystemExit(2) from None


def main() -> None:
    """Run `./inv`."""

    # So that `finally` clauses run: nothing is left running or half-written.
    def terminated(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, terminated)
    signal.signal(signal.SIGHUP, terminated)
    run(sys.argv[1:])


def run(argv: Sequence[str]) -> None:
    """Run the tasks of a command line; raise `SystemExit` if one fails."""
    module, _ = FilesystemLoader(start=str(ROOT)).load("tasks")
    tasks = Collection.from_module(module)
    program = Inv(name="Hyrax VM", binary="./inv", version=__version__, namespace=tasks)
    program.run(["./inv", *(spread(argv, tasks) or ["--list"])])


if __name__ == "__main__":
    main()
