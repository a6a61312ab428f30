"""The workshop: pages for everybody, notebooks for the networks that the teacher has named."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest

from hyraxvm.core.process import output
from hyraxvm.stages.workshop import data
from hyraxvm.vm.qemu import HOST
from tests.boot.clients import netcdf4
from tests.boot.guest import Guest
from tests.boot.machines import RecordProperty
from tests.boot.notebook import Kernel

pytestmark = pytest.mark.images("workshop")
EXERCISES = ("1-browser", "2-structure", "3-subset", "4-programs", "5-aggregate", "6-serve")
LEARNERS = 30
NOTEBOOKS = 10  # at the same time: as many as the guide allows for this machine's memory
START = 300  # seconds for JupyterLab, on an emulated CPU


@pytest.fixture(scope="module")
def notebooks(guest: Guest) -> Iterator[str]:
    """Open the notebooks for this host; return JupyterLab's URL."""
    said = guest.check(f"hyrax-setup workshop on {HOST}", 120)
    assert f"the notebooks are on, without a password, for {HOST}: http://" in said
    deadline = time.monotonic() + START
    while guest.get("/jupyter/api/status").status != 200:
        assert time.monotonic() < deadline, guest.check("journalctl -u hyrax-workshop -n 20")
        time.sleep(1)
    yield f"{guest.machine.url}/jupyter"
    guest.check("hyrax-setup workshop off", 120)
    assert guest.get("/jupyter/lab").status == 403


def test_one_click_leads_from_the_landing_page_to_exercise_1(guest: Guest) -> None:
    assert 'href="/workshop/1-browser.html"' in guest.get("/").text
    assert "Look at data in a browser" in guest.get("/workshop/1-browser.html").text
    for path in ("", "clients.html", "slides/1-dap.html", "notebooks/6-serve.ipynb"):
        assert guest.get(f"/workshop/{path}").status == 200, path


def test_what_the_pages_link_to_is_there(guest: Guest) -> None:
    pages = [guest.get(f"/workshop/{name}.html").text for name in ("index", *EXERCISES)]
    links = set(re.findall(r'href="(/opendap/[^"#]*)"', "".join(pages)))
    assert len(links) >= 5
    for link in links - {"/opendap/learners/"}:  # while the notebooks are on
        assert guest.get(link).status == 200, link


def test_its_data_are_served(guest: Guest) -> None:
    found = netcdf4(guest.url("workshop/sst/sst-2020.nc"), "sst", None).astype("f8")
    celsius = np.where(found == data.FILL, np.nan, found * data.SST_SCALE + data.SST_OFFSET)
    np.testing.assert_allclose(celsius, data.sst(2020), atol=data.SST_SCALE * 0.51)


def test_r_installs_ncdf4_from_the_machine_and_reads_a_value(guest: Guest, tmp_path: Path) -> None:
    """R compiles what the machine has, and does what exercise 4 shows."""
    repository = f"{guest.machine.url}/workshop/r"
    install = (
        f'install.packages("ncdf4", repos = "{repository}", type = "source", lib = "{tmp_path}")'
    )
    read = (
        f'library(ncdf4, lib.loc = "{tmp_path}"); '
        f'file <- nc_open("{guest.url("workshop/sst/sst-2001.nc")}"); '
        'cat(ncvar_get(file, "sst", start = c(21, 91, 7), count = c(1, 1, 1)))'
    )
    output(["R", "--vanilla", "--no-echo", "-e", install], deadline=START)
    found = float(output(["R", "--vanilla", "--no-echo", "-e", read], deadline=START))
    assert abs(found - data.sst(2001)[6, 90, 20]) < data.SST_SCALE * 0.51


def test_nobody_uses_the_notebooks_before_the_teacher_has_opened_them(guest: Guest) -> None:
    answer = guest.get("/jupyter/lab")
    assert (answer.status, "hyrax-setup workshop on NETWORK" in answer.text) == (403, True)
    status, said = guest.run("hyrax-setup workshop on")
    assert status == 2
    assert said.startswith("hyrax-setup: workshop on needs the networks of the learners")


def test_every_notebook_runs_to_its_end(
    guest: Guest, notebooks: str, record_property: RecordProperty
) -> None:
    started = guest.get("/jupyter/start?learner=anna")
    assert started.headers["Location"].endswith("/lab/workspaces/anna/tree/anna/1-browser.ipynb")
    for name in EXERCISES:
        began = time.monotonic()
        cells = json.loads(guest.get(f"/workshop/answers/{name}.ipynb").text)["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        kernel = Kernel(notebooks, "anna")
        said = "".join(kernel.run(each) for each in code)
        kernel.end()
        assert said.count("Right: ") == sum(each.startswith("check(") for each in code) >= 2
        record_property(f"seconds for the notebook {name}", round(time.monotonic() - began, 1))
    assert "own.nc" in guest.get("/opendap/learners/anna/").text


def read(url: str, learner: int) -> float:
    """Look at the exercises and read a year of data, as a learner does; return the seconds."""
    began = time.monotonic()
    for name in EXERCISES:
        with urlopen(f"{url}/workshop/{name}.html", timeout=START) as page:
            assert b"<h1" in page.read()
    year = data.YEARS[learner % len(data.YEARS)]
    found = netcdf4(f"{url}/opendap/workshop/sst/sst-{year}.nc", "sst", None).astype("f8")
    celsius = np.where(found == data.FILL, np.nan, found * data.SST_SCALE + data.SST_OFFSET)
    np.testing.assert_allclose(celsius, data.sst(year), atol=data.SST_SCALE * 0.51)
    return time.monotonic() - began


def test_a_room_of_learners_is_served(
    guest: Guest, notebooks: str, record_property: RecordProperty
) -> None:
    """All of them read at the same time; then each runs a notebook, ten at the same time."""
    with ProcessPoolExecutor(LEARNERS, get_context("spawn")) as readers:
        reading = sorted(readers.map(read, [guest.machine.url] * LEARNERS, range(LEARNERS)))
    record_property(f"seconds until the last of {LEARNERS} has read a year", round(reading[-1], 1))
    cells = json.loads(guest.get("/workshop/answers/3-subset.ipynb").text)["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]

    def learn(learner: int) -> float:
        began = time.monotonic()
        assert guest.get(f"/jupyter/start?learner=learner-{learner}", START).status == 302
        kernel = Kernel(notebooks, f"learner-{learner}")
        assert "".join(kernel.run(each) for each in code).count("Right: ") >= 2
        kernel.end()
        return time.monotonic() - began

    began = time.monotonic()
    with ThreadPoolExecutor(NOTEBOOKS) as room:
        learning = sorted(room.map(learn, range(LEARNERS)))
    record_property("seconds for the slowest notebook", round(learning[-1], 1))
    record_property("notebooks a minute", round(LEARNERS * 60 / (time.monotonic() - began), 1))
    assert guest.check("systemctl show -P NRestarts hyrax-workshop") == "0"
    assert guest.get("/health").status == 200


def test_learners_reach_neither_the_network_nor_the_guest(guest: Guest, notebooks: str) -> None:
    kernel = Kernel(notebooks, "anna")
    port = guest.machine.url.rpartition(":")[2]
    reach = f"import socket\nsocket.create_connection(('{HOST}', {port}), 5)"
    with pytest.raises(AssertionError, match=r"TimeoutError|PermissionError|OSError"):
        kernel.run(reach)
    look = "import os; print(os.getuid(), os.listdir('/home'), *map(os.path.exists, FILES))"
    files = ["/usr/lib/hyrax-vm", "/etc/hyrax-vm-release", "/etc/shadow", "/srv/hyrax"]
    user, seen = kernel.run(f"FILES = {files}\n{look}").split(maxsplit=1)
    assert int(user) >= 61184  # systemd makes users from there on
    assert seen == "[] False False False False\n"
    kernel.end()
