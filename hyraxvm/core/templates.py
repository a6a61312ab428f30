"""Jinja2, set up once: a missing variable is an error, and each language has its quoting."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from hyraxvm.core.paths import ROOT


def hcl(value: object) -> str:
    """Quote a string for HCL2, where `${` and `%{` start templates (HCL Native Syntax)."""
    quoted = json.dumps(str(value), ensure_ascii=False)
    return quoted.replace("${", "$${").replace("%{", "%%{")


def vmx_value(value: object) -> str:
    """Quote a value for a VMX file; hyraxvm/formats/vmx.py describes the format."""
    escaped = re.sub(
        r'[|"\x00-\x1f\x7f\x85\u2028\u2029]',
        lambda found: "".join(f"|{byte:02X}" for byte in found[0].encode()),
        str(value),
    )
    return f'"{escaped}"'


def variable(name: str) -> bool:
    """Return whether `name` can be the name of an environment variable."""
    return re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is not None


def systemd_value(value: object) -> str:
    """Quote a word for a unit file (systemd.syntax(7), "Quoting"), as in `Environment=`.

    Control characters are escaped: a carriage return ends a line there too.
    """
    text = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return '"' + re.sub(r"[\0-\x1f\x7f]", lambda found: f"\\x{ord(found[0]):02x}", text) + '"'


def systemd_quote(value: object) -> str:
    """Quote a word of a command line, where `$` would be expanded (systemd.service(5))."""
    return systemd_value(value).replace("$", "$$")


@functools.cache
def environment() -> Environment:
    """Return the environment for all templates; their names are paths below the checkout.

    It keeps compiled templates, and reads a template again if its file has changed.
    """
    env = Environment(
        loader=FileSystemLoader(ROOT),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=select_autoescape(enabled_extensions=("html.j2", "ovf.j2"), default=False),
    )
    env.tests["variable"] = variable
    env.filters["hcl"] = hcl
    env.filters["systemd_quote"] = systemd_quote
    env.filters["systemd_value"] = systemd_value
    env.filters["vmx_value"] = vmx_value
    return env


def render(template: Path, **values: Any) -> str:
    """Render one template of the checkout.

    Raises `jinja2.UndefinedError`: the template uses a name that is not in `values`.
    """
    return environment().get_template(str(template.relative_to(ROOT))).render(**values)
