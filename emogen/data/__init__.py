"""From users' files to batches: sources, splits by song, the prepared cache, windows."""
