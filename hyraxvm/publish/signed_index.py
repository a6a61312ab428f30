"""The list of releases as a reader takes it: signed, and never older than one seen before.

Whoever runs a site can show an old list, with its true signature.  This computer remembers the date
of the newest list that each key has signed.
"""

from __future__ import annotations

import datetime
import json
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from hyraxvm.core.errors import UserError
from hyraxvm.publish.site import Site
from hyraxvm.release import index, signing

OLD: Final = datetime.timedelta(days=30)  # nightlies sign the list every night
DAY: Final = datetime.timedelta(days=1)  # by which two clocks may differ

_writing = threading.Lock()  # several images are downloaded side by side


def memory() -> Path:
    """Return the file with the dates that this user has seen (XDG Base Directory Specification)."""
    folder = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(folder) / "hyrax-vm" / "lists.json"


def read_signed(
    site: Site, keys: Sequence[str], seen: Path, say: Callable[[str], None]
) -> index.Index:
    """Return the index of a site; `keys` are the fingerprints that count; `seen` is `memory()`.

    `say` takes a notice if the index is so old that the site may withhold newer ones.

    Raises `UserError`: it is not signed by one of the keys, or is older than one seen before.
    """
    where = f"{site.url}{index.INDEX}"
    data = site.text(index.INDEX)
    found = index.read_index(data, where)
    if found.key not in keys:
        raise UserError(
            f"{where}: is signed by key {found.key}, not by {' or '.join(keys)}; add --key "
            f"{found.key} if the maintainers, and not only this site, say that it is theirs"
        )
    plain = index.signed_part(data, where)
    public = site.text(index.key_path(found.key))
    signing.verify_text(plain, found.signature, public, found.key, index.INDEX)
    _check_age(found.date, where, say)
    _remember(found, where, seen)
    return found


def _check_age(date: str, where: str, say: Callable[[str], None]) -> None:
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(date)
    if age > OLD:
        say(
            f"{where}: was signed {age.days} days ago; ask the maintainers, or another site, "
            "whether there is a newer release: this one may withhold it"
        )
    elif -age > DAY:
        say(f"{where}: was signed on {date}, which is in the future; set this computer's clock")


def _remember(found: index.Index, where: str, seen: Path) -> None:
    """Raise `UserError` if an index is older than the newest one that was seen of its key."""
    with _writing:
        try:
            dates = json.loads(seen.read_text()) if seen.exists() else {}
            newest = str(dates.get(found.key, ""))
        except (ValueError, AttributeError, RecursionError) as error:
            raise UserError(f"{seen}: is damaged ({error}); remove it, and try again") from error
        if found.date < newest:
            raise UserError(
                f"{where}: was signed on {found.date}, but this computer has seen a list of "
                f"{newest}; the site is out of date, or hides releases; name another with --url"
            )
        if found.date > newest:
            seen.parent.mkdir(parents=True, exist_ok=True)
            work = seen.with_name(f".{seen.name}.{os.getpid()}")
            work.write_text(json.dumps({**dates, found.key: found.date}, indent=1) + "\n")
            work.replace(seen)
