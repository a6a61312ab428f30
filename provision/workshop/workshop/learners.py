"""An extension of the Jupyter server: /jupyter/start?learner=NAME opens a learner's own folder."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.utils import url_path_join
from tornado import web

NOTEBOOKS = Path("/srv/workshop/www/notebooks")
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,30}")


class Start(JupyterHandler):
    """Makes the folder with the notebooks, if it is not there, and opens the first one."""

    @web.authenticated
    def get(self) -> None:
        """Send the learner to their own notebooks; a name that was used before opens its folder."""
        name = self.get_query_argument("learner", "").strip().lower()
        if not NAME.fullmatch(name):
            raise web.HTTPError(
                400,
                f"{name[:40]!r} is not a name; expected: 1 to 31 of a to z, 0 to 9, _ and -",
            )
        folder = Path(self.settings["server_root_dir"]).expanduser() / name
        folder.mkdir(exist_ok=True)
        for notebook in sorted(self.settings["workshop_notebooks"].glob("*.ipynb")):
            if not (folder / notebook.name).exists():
                shutil.copyfile(notebook, folder / notebook.name)
        first = min(path.name for path in folder.glob("*.ipynb"))
        place = ("lab/workspaces", name, "tree", name, first)
        self.redirect(url_path_join(self.base_url, *place))


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "workshop.learners"}]


def _load_jupyter_server_extension(server: Any) -> None:
    """Add the address to Jupyter's web application."""
    application = server.web_app
    application.settings.setdefault("workshop_notebooks", NOTEBOOKS)
    start = url_path_join(application.settings["base_url"], "start")
    application.add_handlers(".*$", [(start, Start)])
