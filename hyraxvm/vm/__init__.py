"""Virtual machines: QEMU's command line, the running machine, its console."""
