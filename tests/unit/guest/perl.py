"""One perl for many runs of the guest's perl programs.

It has loaded the modules, and runs each program in a new child process, with arguments and files
as a shell would give them. A perl for each run takes five times as long, most of it for `Socket`.
"""

from __future__ import annotations

import atexit
import functools
import os
import subprocess
import tempfile
from pathlib import Path

_SERVER = r"""
use strict; use warnings;
use Socket (); use POSIX (); use Encode ();
$| = 1;
while (defined(my $line = <STDIN>)) {
    chomp $line;
    my ($folder, $program, @arguments) = map { pack 'H*', substr $_, 1 } split / /, $line;
    my $child = fork // die "fork: $!";
    if ($child) { waitpid $child, 0; print "$?\n"; next }
    open STDIN, '<', "$folder/in" or die $!;
    open STDOUT, '>', "$folder/out" or die $!;
    open STDERR, '>', "$folder/err" or die $!;
    $| = 0;
    @ARGV = @arguments;
    $0 = $program;
    do $program;
    die $@ if $@;
    exit 0;
}
"""


class Perl:
    """A running perl that waits for programs to run."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="perl-")
        self._process = subprocess.Popen(
            ["perl", "-e", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        atexit.register(self.stop)

    def stop(self) -> None:
        self._process.communicate()
        self._folder.cleanup()

    def run(
        self, program: Path, *arguments: str | bytes | Path, given: bytes = b""
    ) -> tuple[int, bytes, bytes]:
        """Run a program; return (exit status, stdout, stderr)."""
        folder = Path(self._folder.name)
        (folder / "in").write_bytes(given)
        words = (os.fsencode(folder), os.fsencode(program), *map(os.fsencode, arguments))
        assert self._process.stdin and self._process.stdout
        # A letter before each word, so that an empty word is a word, too.
        print(*(f"x{word.hex()}" for word in words), file=self._process.stdin, flush=True)
        status = os.waitstatus_to_exitcode(int(self._process.stdout.readline()))
        return status, (folder / "out").read_bytes(), (folder / "err").read_bytes()


@functools.cache
def perl() -> Perl:
    """Return the one perl of this process."""
    return Perl()
