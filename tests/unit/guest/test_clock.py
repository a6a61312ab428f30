"""hyrax-setup timezone and ntp."""

from __future__ import annotations

import pytest

from tests.unit.guest.guest_copy import Guest


def setup(guest: Guest, *arguments: str) -> tuple[int, str, str]:
    return guest.run("usr/bin/hyrax-setup", *arguments)


def test_the_timezone_is_set_shown_and_checked(guest: Guest) -> None:
    (guest.root / "etc/localtime").symlink_to("/usr/share/zoneinfo/Etc/UTC")
    assert setup(guest, "timezone") == (0, "Etc/UTC\n", "")
    assert setup(guest, "timezone", "Europe/Vienna", "--check") == (0, "", "")
    assert setup(guest, "timezone") == (0, "Etc/UTC\n", "")
    status, out, err = setup(guest, "timezone", "Europe/Vienna")
    assert (status, err) == (0, "") and out.startswith("the timezone is now Europe/Vienna;")
    assert (guest.root / "etc/localtime").readlink().as_posix() == (
        "/usr/share/zoneinfo/Europe/Vienna"
    )


@pytest.mark.parametrize("zone", ["Vienna", "Europe", "../passwd", "/etc/passwd", "tzdata.zi", "é"])
def test_what_is_not_a_timezone_is_refused(guest: Guest, zone: str) -> None:
    status, out, err = setup(guest, "timezone", zone)
    assert (status, out) == (2, "") and "is not a timezone; for example: Europe/Vienna" in err
    assert err.count("\n") == 1 and not (guest.root / "etc/localtime").is_symlink()


def test_time_servers_are_set_shown_and_reset(guest: Guest) -> None:
    conf = "etc/systemd/timesyncd.conf.d/50-hyrax.conf"
    assert setup(guest, "ntp") == (0, "default\n", "")
    assert setup(guest, "ntp", "ntp.example.org,2001:db8::1")[0] == 0
    assert guest.read(conf) == (
        "# Written by: hyrax-setup ntp\n[Time]\nNTP=ntp.example.org 2001:db8::1\n"
    )
    assert "systemctl try-restart systemd-timesyncd.service" in guest.read("calls.log")
    assert setup(guest, "ntp")[1] == "ntp.example.org 2001:db8::1\n"
    for wrong in ("a b", "a,,b", "a\nNTP=b", "a;b"):
        status, _, err = setup(guest, "ntp", wrong)
        assert status == 2 and "cannot be time servers" in err
    assert setup(guest, "ntp", "default")[0] == 0
    assert not (guest.root / conf).exists()
