"""Statistics of paired answers, on numbers alone."""
