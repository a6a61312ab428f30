"""The command line: arguments without options, users' errors, help for every task."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable

import pytest
from invoke import Collection

import tasks
from hyraxvm.cli import arguments, run, spread
from hyraxvm.core.paths import ROOT
from hyraxvm.tasks.common import reported

TASKS = Collection.from_module(tasks)


def invoke(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hyraxvm.cli", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
        timeout=60,
    )


@pytest.fixture
def refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[object, str]]:
    """Run a command line in this process; return what it exits with, and its standard error."""
    # Invoke removes the help texts from a task when it reads them; other tests need them, too.
    for name in TASKS.task_names:
        monkeypatch.setattr(TASKS[name], "help", dict(TASKS[name].help))
    monkeypatch.chdir(ROOT)

    def call(*words: str) -> tuple[object, str]:
        with pytest.raises(SystemExit) as raised:
            run(words)
        return raised.value.code, capsys.readouterr().err

    return call


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("", ""),
        ("build", "build"),
        ("build nfs", "build --image nfs"),
        ("build nfs smb --no-test", "build --image nfs --image smb --no-test"),
        ("build --server dapdir nfs", "build --server dapdir --image nfs"),
        ("test --unit", "test --unit"),
        ("boot-test a.zip b.zip", "boot-test --file a.zip --file b.zip"),
        ("build --all --format ova", "build --all --format ova"),
        ("build nfs --format ova smb", "build --image nfs --format ova --image smb"),
        ("bench build --server dapdir", "bench --what build --server dapdir"),
        ("clean build nfs", "clean build --image nfs"),
        ("verify a.zip b.ova", "verify --file a.zip --file b.ova"),
        ("render nfs", "render nfs"),
        ("list build nfs", "list build --image nfs"),
        ("try --help", "--help try"),
        ("build nfs --help", "--help build"),
        ("--help", "--help"),
    ],
)
def test_bare_words_go_to_the_repeatable_argument(given: str, wanted: str) -> None:
    assert spread(given.split(), TASKS) == wanted.split()


@pytest.mark.parametrize("name", TASKS.task_names)
def test_every_task_shows_its_help(refused: Callable[..., tuple[object, str]], name: str) -> None:
    assert refused(name, "--help") == (0, "")


def test_every_task_and_every_option_has_help() -> None:
    for name in TASKS.task_names:
        task = TASKS[name]
        assert task.__doc__, name
        for argument in arguments(task):
            assert argument.help, (name, argument.name)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["build", "nope"], "there is no image 'nope'"),
        (["build", "--server", "apache"], "there is no server 'apache'"),
        (["build", "--base", "suse"], "there is no base 'suse'; images.toml has: debian-12"),
        (["build", "--arch", "vax"], "is not for vax: images.toml has no [base."),
        (["render", "nope"], "there is no image 'nope'"),
        (["render", "nfs", "--base", "suse"], "there is no base 'suse'"),
        (["run", "nope"], "there is no image 'nope'"),
        (["boot-test", "none.zip"], "none.zip: no such file"),
        (["boot-test"], "no file is named"),
        (["verify"], "no file is named; type: ./inv verify FILE..."),
        (["verify", "x.iso"], "x.iso: no such file"),
        (["build", "--format", "iso"], "there is no format 'iso'; there are: vmx, ova, qcow2"),
        (["test", "--format", "iso"], "there is no format 'iso'"),
        (["run", "nfs", "--format", "iso"], "there is no format 'iso'"),
        (["build", "--bogus"], "No idea what '--bogus' is; see: ./inv --help build"),
        (["bulid"], "No idea what 'bulid' is; see: ./inv --list"),
        (["render"], "see: ./inv --help render"),
        (["build", "nfs", "--all"], "images and --all exclude each other; type: ./inv build --all"),
    ],
)
def test_a_users_error_is_one_line_and_status_2(
    refused: Callable[..., tuple[object, str]], words: list[str], said: str
) -> None:
    code, err = refused(*words)
    assert code == 2
    assert err.startswith("./inv: ")
    assert said in err
    assert len(err.strip().splitlines()) == 1


def test_the_status_of_an_error_is_that_of_the_process() -> None:
    done = invoke("build", "nope")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("./inv: there is no image 'nope'")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device", "/x"), "/x: No space left on device"),
        (OSError("unexpected end of data"), "unexpected end of data"),
    ],
)
def test_what_the_system_refuses_is_one_line(
    capsys: pytest.CaptureFixture[str], error: OSError, said: str
) -> None:
    def body() -> None:
        raise error

    with pytest.raises(SystemExit) as raised:
        reported(body)()
    assert raised.value.code == 1
    assert capsys.readouterr().err == f"./inv: {said}\n"


def test_the_bare_command_lists_the_tasks() -> None:
    done = invoke()
    assert done.returncode == 0
    for name in TASKS.task_names:
        assert f" {name} " in done.stdout


def test_list_and_doctor_print_tables() -> None:
    said = invoke("list").stdout
    assert "NFS export" in said
    assert re.search(r"^debian-12 +Debian 12 +amd64", said, re.MULTILINE)
    said = invoke("doctor").stdout
    assert "qemu-img" in said
    assert "accelerator  " in said
