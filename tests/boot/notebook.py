"""A learner's notebook in the virtual machine: Jupyter's own messages, through the front door."""

from __future__ import annotations

import json
import uuid
from typing import Any
from urllib.request import Request, urlopen

from websocket import create_connection

TIMEOUT = 300  # seconds for one message: on an emulated CPU, imports take long


class Kernel:
    """A Python process of a learner; `base` is JupyterLab's URL."""

    def __init__(self, base: str, folder: str) -> None:
        asked = json.dumps({"name": "python3", "path": folder}).encode()
        # What a page of JupyterLab sends, too; without it, the server takes this for another site.
        with urlopen(f"{base}/lab", timeout=TIMEOUT) as page:
            cookies = [one.partition(";")[0] for one in page.headers.get_all("Set-Cookie") or []]
        (token,) = (one.partition("=")[2] for one in cookies if one.startswith("_xsrf="))
        headers = {"Cookie": "; ".join(cookies), "X-XSRFToken": token, "Content-Type": "text/json"}
        request = Request(f"{base}/api/kernels", asked, headers)
        with urlopen(request, timeout=TIMEOUT) as answer:
            self.identity: str = json.load(answer)["id"]
        mine = f"{base}/api/kernels/{self.identity}"
        self.ending = Request(mine, headers=headers, method="DELETE")
        address = f"{base.replace('http', 'ws', 1)}/api/kernels/{self.identity}/channels"
        self.socket = create_connection(address, timeout=TIMEOUT, cookie=headers["Cookie"])

    def run(self, code: str) -> str:
        """Run a cell; return what it has printed.

        Raises `AssertionError` with the error's name and text if the cell has failed.
        """
        header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "version": "5.3",
                  "session": uuid.uuid4().hex, "username": "", "date": ""}  # fmt: skip
        content = {"code": code, "silent": False, "store_history": False, "stop_on_error": True,
                   "user_expressions": {}, "allow_stdin": False}  # fmt: skip
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
        self.socket.send(json.dumps({**message, "channel": "shell", "buffers": []}))
        printed = ""
        while True:
            said: dict[str, Any] = json.loads(self.socket.recv())
            if said["parent_header"].get("msg_id") != header["msg_id"]:
                continue
            found = said["content"]
            if said["msg_type"] == "stream":
                printed += found["text"]
            assert said["msg_type"] != "error", f"{found['ename']}: {found['evalue']}\n{code}"
            if said["msg_type"] == "status" and found["execution_state"] == "idle":
                return printed

    def end(self) -> None:
        """End the process, as `Shut Down Kernel` does."""
        self.socket.close()
        with urlopen(self.ending, timeout=TIMEOUT) as answer:
            assert answer.status == 204
