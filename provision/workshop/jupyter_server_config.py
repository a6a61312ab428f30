"""JupyterLab in the workshop's virtual machine, behind the front door, which says who comes in."""

# ruff: noqa: F821 - Jupyter defines `c`
from pathlib import Path

c.ServerApp.ip = "127.0.0.1"
c.ServerApp.port = 8082
c.ServerApp.port_retries = 0
c.ServerApp.base_url = "/jupyter/"
c.ServerApp.root_dir = str(Path("learners").resolve())
c.ServerApp.open_browser = False
c.ServerApp.quit_button = False
# Names and addresses of the machine are not known beforehand.
c.ServerApp.allow_remote_access = True
c.ServerApp.trust_xheaders = True
# No password: `hyrax-setup workshop on NETWORK` names the networks that are let in.
c.IdentityProvider.token = ""
c.ServerApp.jpserver_extensions = {"jupyterlab": True, "workshop.learners": True}
c.FileContentsManager.delete_to_trash = False
c.ServerApp.max_body_size = c.ServerApp.max_buffer_size = 64 * 1024 * 1024

# Sockets in a folder: each notebook would take five ports of the machine.
c.KernelManager.transport = "ipc"
# Thirty learners share the memory: whoever pauses for so many seconds starts their notebook again.
c.MappingKernelManager.cull_idle_timeout = 1200
c.MappingKernelManager.cull_interval = 60
c.MappingKernelManager.cull_connected = True
c.TerminalManager.cull_inactive_timeout = 1800
c.TerminalManager.cull_interval = 60

# Nothing here asks the Internet.
c.LabApp.extension_manager = "readonly"
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
