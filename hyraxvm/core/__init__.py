"""What every stage uses: errors, paths, processes, the cache, templates, progress."""
