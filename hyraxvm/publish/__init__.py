"""The way from a release to its users: publishing, the page, downloads, nightlies."""
