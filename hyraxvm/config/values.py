"""Kinds of texts and numbers in `images.toml`: what they may be."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.+-]*$", max_length=40)]
DebianPackage = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.+-]+$")]
KernelModule = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
DpkgGlob = Annotated[str, StringConstraints(pattern=r"^!?/[^\s]+$")]
ModuleGlob = Annotated[str, StringConstraints(pattern=r"^!?[a-z][^\s]*$")]
AbsolutePath = Annotated[str, StringConstraints(pattern=r"^(/[A-Za-z0-9._+-]+)+$")]
TrimGlob = Annotated[str, StringConstraints(pattern=r"^(/[^/\s]+)+$")]
UrlPath = Annotated[
    str, StringConstraints(pattern=r"^(/[A-Za-z0-9._~-]+)+/?(\?[A-Za-z0-9._~,-]+)?$")
]
Megabytes = Annotated[int, Field(ge=1, le=100_000)]
Title = Annotated[str, StringConstraints(pattern=r"^[ -~]+$", max_length=80)]

# As distributions write them: "Debian", "24.04".
Distribution = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9-]*$", max_length=40)]
Number = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)*$", max_length=20)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
PythonVersion = Annotated[str, StringConstraints(pattern=r"^3\.[0-9]+$")]
Mirror = Annotated[str, StringConstraints(pattern=r"^(https?|file|copy)://[!-~]+$")]
Unit = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9:_.@-]+\.[a-z]+$")]
# Without quotes, because quotes of a shell and of apt.conf(5) are put around it.
Origin = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9=,.:${}_ -]+$")]
Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+$", max_length=80)]
