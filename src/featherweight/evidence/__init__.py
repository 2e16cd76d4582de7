"""Is it really better? Baselines and paired statistics."""
