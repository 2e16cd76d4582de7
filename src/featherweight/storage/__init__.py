"""Files that are whole or absent, the cache, and names that become files."""
