"""NoCloud's disks: what Proxmox, virt-install and multipass write is set on the machine."""

from __future__ import annotations

import io
import json
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from tests.unit.guest.guest_copy import TREE
from tests.unit.guest.perl import perl
from tests.unit.guest.test_settings import HASH, KEY

LIB = TREE / "usr/lib/hyrax-vm"
# Prints as JSON what Yaml.pm reads, or what is wrong.
DUMP = r"""
use strict; use warnings;
require "$ARGV[0]/Yaml.pm";
local $/;
sub text { my ($t) = @_; $t =~ s/(["\\\x00-\x1f\x7f])/sprintf '\\u%04x', ord $1/ge; qq("$t") }
sub dump_of {
    my ($v) = @_;
    return 'null' unless defined $v;
    return '[' . join(',', map { dump_of($_) } @$v) . ']' if ref $v eq 'ARRAY';
    return text($v) unless ref $v;
    return '{' . join(',', map { text($_) . ':' . dump_of($v->{$_}) } sort keys %$v) . '}';
}
print dump_of(eval { Yaml::parse(<STDIN>) } // (ref \$@ && $@ ? { error => $@ } : undef));
"""


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("yaml") / "dump.pl"
    path.write_text(DUMP)
    return path


def read(dump: Path, text: str) -> Any:
    status, out, err = perl().run(dump, LIB, given=text.encode())
    assert (status, err) == (0, b""), err
    return json.loads(out)


# Proxmox: PVE/QemuServer/Cloudinit.pm, nocloud.
PROXMOX = {
    "meta-data": "instance-id: 5a9ba2c5b6d3ad2a6ad3f3ec6e1bd3d1fe3c1f2d\n",
    "user-data": f"""\
#cloud-config
hostname: dap1
manage_etc_hosts: true
fqdn: dap1.example.org
user: me
password: {HASH}
ssh_authorized_keys:
  - {KEY}
chpasswd:
  expire: False
users:
  - default
package_upgrade: true
""",
    "network-config": """\
version: 1
config:
    - type: physical
      name: eth0
      mac_address: 'bc:24:11:00:00:01'
      subnets:
      - type: static
        address: '192.168.1.10'
        netmask: '255.255.255.0'
        gateway: '192.168.1.1'
    - type: nameserver
      address:
      - '192.168.1.1'
      - '9.9.9.9'
      search:
      - 'example.org'
""",
}
# virt-install --cloud-init: virtinst/install/cloudinit.py.
VIRT_INSTALL = {
    "meta-data": "instance-id: dap2\nlocal-hostname: dap2\n",
    "user-data": f"""\
#cloud-config
chpasswd:
  list: |
    root:topsecret
  expire: False
users:
  - default
  - name: root
    ssh_authorized_keys:
      - {KEY}
runcmd:
- [ sudo, touch, /etc/cloud/cloud-init.disabled ]
""",
}
# multipass: src/daemon; the network as of netplan.
MULTIPASS = {
    "meta-data": "instance-id: dap3\nlocal-hostname: dap3\ncloud-name: multipass\n",
    "user-data": f"""\
#cloud-config
{{ssh_authorized_keys: ["{KEY}"], system_info: {{default_user: {{name: ubuntu}}}},
 packages: [pollinate], growpart: {{mode: auto, devices: [/], ignore_growroot_disabled: false}}}}
""",
    "network-config": """\
version: 2
ethernets:
  default:
    match: {macaddress: "52:54:00:aa:bb:cc"}
    dhcp4: false
    addresses: [10.1.2.3/16]
    routes:
    - to: default
      via: 10.1.0.1
    nameservers:
      addresses: [10.1.0.53, 10.1.0.54]
""",
}


@pytest.mark.parametrize(
    ("files", "settings"),
    [
        (
            PROXMOX,
            {
                "vm": {"hostname": "dap1", "password_hash": HASH, "ssh_keys": [KEY]},
                "network": {
                    "address": "192.168.1.10/255.255.255.0",
                    "gateway": "192.168.1.1",
                    "dns": ["192.168.1.1", "9.9.9.9"],
                },
            },
        ),
        (VIRT_INSTALL, {"vm": {"hostname": "dap2", "ssh_keys": [KEY]}}),
        (
            MULTIPASS,
            {
                "vm": {"hostname": "dap3", "ssh_keys": [KEY]},
                "network": {
                    "address": "10.1.2.3/16",
                    "gateway": "10.1.0.1",
                    "dns": ["10.1.0.53", "10.1.0.54"],
                },
            },
        ),
        ({"meta-data": "instance-id: x\n", "network-config": "version: 1\nconfig: disabled\n"}, {}),
    ],
    ids=["Proxmox", "virt-install", "multipass", "nothing"],
)
def test_what_a_disk_sets(
    tmp_path: Path, files: dict[str, str], settings: dict[str, object]
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        # The text is what another reader of YAML takes it for.
        assert YAML(typ="safe").load(text)
    status, out, err = perl().run(LIB / "cidata-settings", tmp_path)
    assert (status, err) == (0, b"")
    assert tomllib.loads(out.decode()) == settings


@pytest.mark.parametrize(
    "lines",
    [
        "password: s3cret",
        "users:\n- name: me\n  plain_text_passwd: s3cret\n  lock_passwd: false",
        "chpasswd:\n  users:\n  - {name: me, password: s3cret, type: text}",
        'chpasswd: {"list": ["root:other", "me:s3cret"]}',
    ],
)
def test_a_password_is_hashed(tmp_path: Path, lines: str) -> None:
    (tmp_path / "user-data").write_text(f"#cloud-config\n{lines}\n")
    _, out, err = perl().run(LIB / "cidata-settings", tmp_path)
    assert err == b"" and b"s3cret" not in out
    found = tomllib.loads(out.decode())["vm"]["password_hash"]
    _, _, salt, _ = found.split("$")
    again = subprocess.run(
        ["openssl", "passwd", "-6", "-salt", salt, "s3cret"], capture_output=True, text=True
    )
    assert again.stdout.strip() == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("#!/bin/sh\nreboot\n", "user-data does not begin with #cloud-config"),
        ("#cloud-config\nhostname: &name dap\n", "user-data: line 2: anchors, tags and other"),
        ("#cloud-config\nhostname: [dap\n", "user-data: line 2: a list [ ... ] does not end"),
        ("#cloud-config\nhostname: a\nhostname: b\n", "user-data: line 3: 'hostname' is there"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "user-data").write_text(text)
    (tmp_path / "meta-data").write_text("local-hostname: dap\n")
    _, out, err = perl().run(LIB / "cidata-settings", tmp_path)
    assert err.decode().startswith(said), err
    # The rest is used.
    assert tomllib.loads(out.decode()) == {"vm": {"hostname": "dap"}}


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Zl", "Zp"]))
SIGNS = ["a: b", "- c", "#d", "e #f", "null", "yes", "1", "'", '"', "|", ">x", "&g", "*", "[", "}"]


def maps(keys: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    values: st.SearchStrategy[Any] = st.recursive(
        st.one_of(TEXTS, st.sampled_from(SIGNS)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=4)
        ),
        max_leaves=12,
    )
    return st.dictionaries(keys, values, min_size=1, max_size=4)


@given(value=maps(TEXTS.filter(str.strip)))
def test_json_is_read_as_yaml(dump: Path, value: dict[str, Any]) -> None:
    assert read(dump, json.dumps(value, ensure_ascii=False)) == value


@given(
    value=maps(st.from_regex(r"[A-Za-z_][A-Za-z0-9_./-]{0,8}", fullmatch=True)),
    flow=st.sampled_from([False, None]),
)
def test_what_others_write_is_read_as_they_mean_it(
    dump: Path, value: dict[str, Any], flow: bool | None
) -> None:
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = flow
    yaml.allow_unicode = True
    yaml.width = 10**6
    written = io.StringIO()
    yaml.dump(value, written)
    assert read(dump, written.getvalue()) == value
