"""What every stage stands on: errors, paths, processes, the cache, templates, progress."""
