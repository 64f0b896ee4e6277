"""Where instances live: files that survive a power cut, and their agreement with the index."""
