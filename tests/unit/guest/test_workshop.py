"""The workshop in the guest: who may use the notebooks, and what the front door shows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hyraxvm.config import images
from hyraxvm.stages.provision import guest_tar
from tests.unit.guest.front_door import ECHO, DataServer, FrontDoor
from tests.unit.guest.guest_copy import Guest
from tests.unit.guest.workshop import RECIPE, with_workshop

ROUTES = """
case "$*" in
*-4*route*\\ proto\\ kernel*) echo "192.0.2.0/24 dev eth0 scope link src 192.0.2.7 metric 1024" ;;
*-4*route*) echo "192.0.2.1 dev eth0 proto dhcp scope link src 192.0.2.7 metric 1024" ;;
esac"""
ME, NEIGHBOUR = "127.0.0.1", "127.0.0.9"


@pytest.fixture
def room(guest: Guest) -> Guest:
    """A guest with the workshop, whose networks `ip` shows."""
    with_workshop(guest)
    guest.stand_in("ip", ROUTES)
    return guest


@pytest.fixture
def door(room: Guest, server: DataServer) -> Iterator[FrontDoor]:
    """The front door of that guest, with a stand-in for the data server and for JupyterLab."""
    made = FrontDoor(room, server.port)
    part = room.root / "usr/lib/hyrax-vm/front-door.d/workshop.sh"
    text = part.read_text().replace("127.0.0.1:8082", f"127.0.0.1:{server.port}")
    room.write("usr/lib/hyrax-vm/front-door.d/workshop.sh", text)
    room.write("usr/lib/hyrax/workshop/srv/workshop/www/index.html", "<h1>Exercises</h1>")
    made.start()
    yield made
    made.stop()


def setup(guest: Guest, *words: str) -> tuple[int, str, str]:
    return guest.run("usr/bin/hyrax-setup", "workshop", *words)


def test_only_its_own_image_has_any_of_it(guest: Guest) -> None:
    others = [images.recipe(images.load(), name, "dapdir") for name in ("nfs", "smb", "local")]
    mine = set(guest_tar.landing_files(RECIPE))
    for recipe in others:
        theirs = guest_tar.landing_files(recipe)
        assert mine - set(theirs)
        assert not [name for name in theirs if "workshop" in name or "learners" in name]
    assert setup(guest) == (
        2, "", "hyrax-setup: 'workshop' is not a command; see: hyrax-setup --help\n"
    )  # fmt: skip
    assert "workshop" not in guest.run("usr/bin/hyrax-setup", "--help")[1]
    assert "workshop" not in guest.run("usr/bin/hyrax-server", "set")[1]


def test_the_help_names_its_commands(room: Guest) -> None:
    said = room.run("usr/bin/hyrax-setup", "--help")[1]
    for words in ("workshop on NETWORK...", "workshop off", "workshop status", "See also:"):
        assert f"hyrax-setup {words}" in said or words in said
    assert max(map(len, said.splitlines())) < 80


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("on",), "workshop on needs the networks of the learners; for example: "
                  "hyrax-setup workshop on 192.0.2.0/24"),
        (("off", "now"), "workshop off takes nothing after it"),
        (("onn",), "'onn' is not one of on, off and status; see: hyrax-setup --help"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(room: Guest, words: tuple[str, ...], message: str) -> None:
    assert setup(room, *words) == (2, "", f"hyrax-setup: {message}\n")


@pytest.mark.parametrize("network", ["192.0.2.0/33", "all", "192.0.2.7;", "10.0.0.0/8\nallow all"])
def test_what_is_no_network_opens_nothing(room: Guest, network: str) -> None:
    status, out, error = setup(room, "on", network)
    assert (status, out) == (2, "")
    assert len(error.splitlines()) == 1
    assert "is not valid for workshop; expected: addresses or networks" in error
    assert "enable" not in room.read("calls.log")


def test_on_names_who_may_come_in_and_off_ends_it(room: Guest, door: FrontDoor) -> None:
    assert door.get("/jupyter/lab").status == 403
    status, out, error = setup(room, "on", ME, "198.51.100.0/24")
    assert (status, error) == (0, "")
    assert f"without a password, for {ME} 198.51.100.0/24: http://" in out
    assert "systemctl enable --quiet --now hyrax-workshop.service" in room.read("calls.log")
    door.reload()
    assert door.get("/jupyter/lab").status == 200
    answer = door.get("/jupyter/lab", source=NEIGHBOUR)
    assert answer.status == 403
    assert "hyrax-setup workshop on NETWORK" in answer.text
    assert setup(room, "off")[0] == 0
    assert "systemctl disable --quiet --now hyrax-workshop.service" in room.read("calls.log")
    door.reload()
    assert door.get("/jupyter/lab").status == 403


def test_learners_behind_one_address_are_not_limited(room: Guest, door: FrontDoor) -> None:
    room.write("usr/lib/hyrax/front-door", "reader_connections=1\n")
    assert setup(room, "on", "127.0.0.5", "127.0.7.0/24", "2001:db8::/64")[0] == 0
    door.reload()
    for source, held in (("127.0.0.5", 3), ("127.0.7.9", 3), ("127.0.8.9", 1)):
        readers = [door.connect(source) for _ in range(held)]
        for reader in readers:
            reader.sendall(b"GET /opendap/64.bin HTTP/1.0\r\n\r\n")
            assert reader.recv(1000).startswith(b"HTTP/1.1 200")
        assert door.get(ECHO, source=source).status == (503 if held == 1 else 200)
        for reader in readers:
            reader.close()


def test_status_says_who_may_use_them(room: Guest, door: FrontDoor) -> None:
    assert setup(room)[1].startswith("notebooks: off; to start them: hyrax-setup workshop on")
    assert setup(room, "on", "192.0.2.0/24")[0] == 0
    room.stand_in("systemctl", "exit 0")
    room.stand_in("curl", 'echo \'[{"execution_state": "idle"}]\'')
    said = setup(room, "status")[1].splitlines()
    assert said[:2] == ["notebooks: on for 192.0.2.0/24", "in use:    1"]


def test_the_pages_are_for_everybody(door: FrontDoor) -> None:
    for source in (ME, NEIGHBOUR):
        assert door.get("/workshop/", source=source).text == "<h1>Exercises</h1>"
    assert door.get("/workshop").headers["Location"] == "/workshop/"
    assert door.get("/workshop/none.html").status == 404


def test_a_notebook_keeps_its_connection(room: Guest, door: FrontDoor) -> None:
    setup(room, "on", ME)
    door.reload()
    asked = {"Upgrade": "websocket", "Connection": "Upgrade"}
    seen = door.seen("/jupyter/api/kernels/1/channels", asked)
    assert (seen["upgrade"], seen["connection"]) == ("websocket", "upgrade")
    assert seen["host"] == f"127.0.0.1:{door.port}"


def test_the_landing_page_leads_to_exercise_1(room: Guest, http: dict[str, str]) -> None:
    assert room.run("usr/lib/hyrax-vm/landing")[0] == 0
    page = room.read("run/hyrax/www/index.html")
    assert '<a href="/workshop/1-browser.html">' in page
    assert "/opendap/workshop/" in page
    assert "No data set yet" not in page


def test_the_landing_page_of_other_images_does_not(guest: Guest, http: dict[str, str]) -> None:
    assert guest.run("usr/lib/hyrax-vm/landing")[0] == 0
    assert "orkshop" not in guest.read("run/hyrax/www/index.html")


def test_learners_code_sees_no_network_and_nothing_of_the_guest() -> None:
    unit = guest_tar.landing_files(RECIPE)["usr/lib/systemd/system/hyrax-workshop.service"]
    lines = unit.content.decode().splitlines()
    for line in (
        "DynamicUser=yes",
        "RootDirectory=/usr/lib/hyrax/workshop",
        "IPAddressDeny=any",
        "IPAddressAllow=localhost",
        "CapabilityBoundingSet=",
        "NoNewPrivileges=yes",
    ):
        assert line in lines
