"""The files that people edit, checked, and the names of what is built."""
