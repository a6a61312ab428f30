"""The workflows: valid, without needless rights, and every command in them exists."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from invoke import Collection, ParseError
from invoke.parser import Parser, ParserContext
from ruamel.yaml import YAML

import tasks
from hyraxvm.cli import arguments, spread
from hyraxvm.config import images
from hyraxvm.core.paths import ROOT
from hyraxvm.publish import nightly
from hyraxvm.release import signing
from tests.unit.release.gpgkeys import gpg, keyring, make_key

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe").load(path.read_text())
    return found


def jobs() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in WORKFLOWS:
        for name, job in read(path)["jobs"].items():
            yield f"{path.name} {name}", job


def steps() -> list[tuple[str, dict[str, Any]]]:
    return [(name, step) for name, job in jobs() for step in job.get("steps", [])]


def validate(*paths: Path, kind: str = "github-workflows") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema"),
            *("--builtin-schema", f"vendor.{kind}", *map(str, paths)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )


def test_they_are_valid_by_githubs_schema(tmp_path: Path) -> None:
    assert [path.name for path in WORKFLOWS] == [
        *("image.yml", "nightly.yml", "pull-request.yml", "release.yml")
    ]
    done = validate(*WORKFLOWS)
    assert done.returncode == 0, done.stdout
    broken = tmp_path / "broken.yml"
    broken.write_text(WORKFLOWS[1].read_text().replace("runs-on:", "runs_on:"))
    done = validate(broken)
    assert done.returncode == 1
    assert "runs_on" in done.stdout


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [
        ("dependabot", "dependabot.yml"),
        ("github-issue-config", "ISSUE_TEMPLATE/config.yml"),
        ("github-issue-forms", "ISSUE_TEMPLATE/[!c]*.yml"),
    ],
)
def test_githubs_other_files_are_valid_too(kind: str, pattern: str) -> None:
    found = sorted((ROOT / ".github").glob(pattern))
    assert found
    done = validate(*found, kind=kind)
    assert done.returncode == 0, done.stdout


def test_they_may_read_the_repository_and_nothing_else() -> None:
    for path in WORKFLOWS:
        assert read(path)["permissions"] == {"contents": "read"}, path
    for name, job in jobs():
        assert "permissions" not in job, name


def test_only_githubs_own_actions_at_a_commit() -> None:
    """A tag can be moved to other code, a commit cannot; a comment has the version."""
    used = [step["uses"] for _, step in steps() if "uses" in step]
    used += [job["uses"] for _, job in jobs() if "uses" in job]
    assert len(used) > 5
    for name in used:
        good = r"actions/[a-z-]+@[0-9a-f]{40}|\./\.github/workflows/image\.yml"
        assert re.fullmatch(good, name), name
    told = [line for path in WORKFLOWS for line in path.read_text().splitlines() if "@" in line]
    pinned: dict[str, set[str]] = {}
    for line in (line for line in told if "uses:" in line):
        match = re.search(r"uses: (actions/[a-z-]+)@([0-9a-f]{40}  # v\d+\.\d+\.\d+)$", line)
        assert match, line
        pinned.setdefault(match[1], set()).add(match[2])
    assert {name: len(commits) for name, commits in pinned.items()} == {
        f"actions/{name}": 1 for name in ("checkout", "download-artifact", "upload-artifact")
    }
    for _, step in steps():
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_no_job_runs_for_ever_and_none_drops_another() -> None:
    for name, job in jobs():
        assert "uses" in job or 0 < job["timeout-minutes"] <= 240, name
    groups = {path.name: read(path).get("concurrency") for path in WORKFLOWS}
    assert groups == {
        "image.yml": None,  # it is called by others: the rights of the caller count
        "nightly.yml": {"group": "nightly", "cancel-in-progress": False},
        # A new run cancels only an older one of the same pull request.
        "pull-request.yml": {
            "group": "pull-request-${{ github.event.pull_request.number || github.sha }}",
            "cancel-in-progress": True,
        },
        "release.yml": {"group": "release-${{ github.ref }}", "cancel-in-progress": False},
    }


def test_what_the_jobs_of_the_images_keep_is_what_the_last_one_takes(tmp_path: Path) -> None:
    """upload-artifact names files relative to the folder that all its patterns share."""
    kept = [step["with"] for _, step in steps() if "upload-artifact" in step.get("uses", "")]
    (image,) = [one for one in kept if one["name"].startswith("image-")]
    patterns = image["path"].split()
    artifact = tmp_path / "artifacts/hyrax-vm-nfs-x"
    reports = tmp_path / "artifacts/reports"
    for path in (
        *(artifact.with_name(f"{artifact.name}{end}") for end in (".ova", ".manifest.json")),
        *(reports / f"{artifact.name}.ova" / name for name in ("verdict.json", "console.log")),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = {path for pattern in patterns for path in tmp_path.glob(pattern) if path.is_file()}
    common = Path(os.path.commonpath([pattern.split("*")[0] for pattern in patterns]))
    assert {str(path.relative_to(tmp_path / common)) for path in found} == {
        *("hyrax-vm-nfs-x.ova", "hyrax-vm-nfs-x.manifest.json"),
        "reports/hyrax-vm-nfs-x.ova/verdict.json",
    }
    for workflow in ("nightly.yml", "release.yml"):
        found = read(ROOT / ".github/workflows" / workflow)["jobs"]
        assert "image" in found["assemble"]["needs"]
        assert "assemble" in found["publish"]["needs"]
        steps_of = {name: found[name]["steps"] for name in ("assemble", "publish")}
        (taken,) = with_of(steps_of["assemble"], "download-artifact")
        assert taken == {"pattern": "image-*", "path": str(common), "merge-multiple": True}
        (made,) = with_of(steps_of["assemble"], "upload-artifact")
        (taken,) = with_of(steps_of["publish"], "download-artifact")
        assert taken == {"name": made["name"], "path": made["path"]}
        assert made["path"] == "artifacts/releases"


def with_of(found: list[dict[str, Any]], action: str) -> list[dict[str, Any]]:
    return [step["with"] for step in found if action in step.get("uses", "")]


@pytest.mark.parametrize("workflow", ["nightly.yml", "release.yml"])
def test_the_job_that_signs_installs_little_and_gets_the_key_last(workflow: str) -> None:
    found = read(ROOT / ".github/workflows" / workflow)["jobs"]["publish"]["steps"]
    texts = [json.dumps(step) for step in found]
    (key,) = [number for number, text in enumerate(texts) if "SIGNING_KEY" in text]
    assert key == len(texts) - 2
    assert "hyraxvm.cli publish" in texts[-1]
    assert "./inv" not in "".join(texts)  # which installs all packages
    installed = [line for text in texts for line in re.findall(r"install [^&\"]+", text)]
    assert installed == [
        "install -q -y --no-install-recommends git ca-certificates python3-venv gpg gpg-agent",
        "install --require-hashes --requirement requirements-publish.txt",
    ]


def test_what_publishes_needs_the_packages_of_its_list_and_no_others() -> None:
    """The list has some of the lines of requirements.txt, with their hashes."""
    listed = (ROOT / "requirements-publish.txt").read_text()
    blocks = set(re.split(r"\n(?=[a-z])", listed.rstrip("\n")))
    assert blocks < set(re.split(r"\n(?=[a-z])", (ROOT / "requirements.txt").read_text().rstrip()))
    names = {block.partition("==")[0] for block in blocks}
    code = """
import json, sys
from importlib.metadata import packages_distributions
import hyraxvm.cli, hyraxvm.publish.publisher, hyraxvm.store.probe, tasks
known = packages_distributions()
found = {name.partition(".")[0] for name in sys.modules}
print(json.dumps(sorted({one.lower() for name in found for one in known.get(name, [])})))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    used = {name.replace("_", "-") for name in json.loads(done.stdout)}
    # Invoke has a copy of PyYAML, which imports the installed one if there is one.
    assert used - names <= {"hyrax-vm", "certifi", "pyyaml", "setuptools"}
    # rich needs it to be installed, and imports it where it shows code.
    assert names - used == {"pygments"}


def test_what_publishes_has_an_environment_of_its_own_and_what_builds_only_the_cache() -> None:
    for name, job in jobs():
        secrets = set(re.findall(r"secrets\.(\w+)", json.dumps(job)))
        store = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
        if name.endswith(" publish"):
            assert secrets == {*store, "SIGNING_KEY", "SIGNING_PASSPHRASE"}, name
            assert job["environment"] == "publishing"
        elif name.endswith(" assemble"):
            assert secrets == store, name
            assert job["environment"] == "publishing"
        else:
            assert "environment" not in job
            assert {secret for secret in secrets if not secret.startswith("CACHE_")} == set(), name
    # No script contains a value of a context, which a shell would interpret.
    for name, step in steps():
        assert "${{" not in step.get("run", ""), name


def command_lines() -> list[str]:
    found = []
    for _, step in steps():
        script = step.get("run", "").replace(".venv/bin/python -m hyraxvm.cli", "./inv")
        found += re.findall(r"\./inv [^\n)]+", script)
    for _, job in jobs():
        if "command" in job.get("with", {}):
            found.append(job["with"]["command"])
    return [re.sub(r"\$\{\{.*?\}\}", "word", line) for line in found]


def parse(line: str) -> str:
    commands = Collection.from_module(tasks)
    # Not `to_contexts`, which removes the help texts that other tests need.
    contexts = [ParserContext(name, args=arguments(commands[name])) for name in commands.task_names]
    parsed = Parser(contexts).parse_argv(spread(shlex.split(line)[1:], commands))
    return str(parsed[-1].name)


def test_what_runs_code_of_pull_requests_sees_no_secret() -> None:
    workflow = ROOT / ".github/workflows/pull-request.yml"
    # Not pull_request_target, which runs with the secrets of the repository.
    assert set(read(workflow)["on"]) == {"pull_request", "push"}
    assert "secrets" not in workflow.read_text()


def test_every_command_line_is_one_of_this_project() -> None:
    assert [parse(line) for line in command_lines()] == [
        *("matrix", "nightly", "publish", "publish"),
        *("lint", "test"),
        *("matrix", "release", "publish"),
        *("nightly", "test", "release"),
    ]
    for wrong in ("./inv nightly --bilt", "./inv release", "./inv mtrix --json"):
        with pytest.raises(ParseError):
            parse(wrong)


def test_the_scripts_are_clean() -> None:
    scripts = [step["run"] for _, step in steps() if "run" in step]
    assert len(scripts) > 10
    for script in scripts:
        if script == "$COMMAND":  # split into words on purpose
            continue
        done = subprocess.run(
            ["shellcheck", "--shell=sh", "-"],
            input=script,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout


def run(script: str, folder: Path, **more: str) -> dict[str, str]:
    """Run a step as the runner does in a container; return the content of the runner's files."""
    files = {name: str(folder / name) for name in ("GITHUB_ENV", "GITHUB_OUTPUT")}
    subprocess.run(
        ["sh", "-e", "-c", script],
        cwd=ROOT,
        env={**os.environ, **files, "RUNNER_TEMP": str(folder), **more},
        check=True,
    )
    lines = [
        line
        for path in map(Path, files.values())
        if path.exists()
        for line in path.read_text().splitlines()
    ]
    return dict(line.split("=", 1) for line in lines)


def script_of(workflow: str, job: str, word: str) -> str:
    found = read(ROOT / ".github/workflows" / workflow)["jobs"][job]["steps"]
    (script,) = [str(step["run"]) for step in found if word in step.get("run", "")]
    return script


def test_the_matrix_has_every_image(tmp_path: Path) -> None:
    script = script_of("release.yml", "matrix", "matrix=")
    inv = tmp_path / "inv"
    inv.write_text('#!/bin/sh\necho "$@" >&2\necho \'{"include": []}\'\n')
    inv.chmod(0o755)
    script = script.replace("./inv", str(inv))
    written = run(script, tmp_path, SERVER="hyrax", GITHUB_REF_NAME="v1.2.0")
    assert written == {"version": "1.2.0", "matrix": '{"include": []}'}
    # What ./inv is asked for, and what it prints where all is ready.
    assert '--json --server "$SERVER" --release "${GITHUB_REF_NAME#v}"' in script
    names = sorted(images.load().image)
    assert json.loads(nightly.matrix(names, "hyrax")) == {
        "include": [{"image": name, "server": "hyrax"} for name in names]
    }


def test_secrets_go_into_files_that_nobody_else_reads(tmp_path: Path) -> None:
    script = script_of("image.yml", "build", "cache-key")
    assert run(script, tmp_path, CACHE_KEY="") == {}
    written = run(script, tmp_path, CACHE_KEY="k" * 64)
    path = Path(written["HYRAX_VM_CACHE_KEY_FILE"])
    assert path.read_text() == "k" * 64 + "\n"
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("passphrase", ["", "correct horse"])
def test_the_imported_key_signs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passphrase: str
) -> None:
    with keyring():
        key = make_key("CI <ci@example.org>", passphrase=passphrase)
        secret = gpg(
            *("--pinentry-mode", "loopback", "--passphrase", passphrase),
            *("--armor", "--export-secret-keys", key),
        )
    with keyring():
        script = script_of("nightly.yml", "publish", "--import")
        assert script == script_of("release.yml", "publish", "--import")
        written = run(script, tmp_path, SIGNING_KEY=secret, SIGNING_PASSPHRASE=passphrase)
        monkeypatch.setenv(signing.PASSPHRASE_FILE, written[signing.PASSPHRASE_FILE])
        path = tmp_path / "SHA256SUMS"
        path.write_text("x")
        signing.verify(path, signing.sign(path, key), signing.public_key(key), key)
