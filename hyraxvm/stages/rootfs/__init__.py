"""Stage `rootfs`: the Debian packages of one image."""
