"""What tasks share in reading rows: labels, splits, lengths, tokens."""
