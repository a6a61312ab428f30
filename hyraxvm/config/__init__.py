"""The configuration files, read and checked, and the names of what is built."""
