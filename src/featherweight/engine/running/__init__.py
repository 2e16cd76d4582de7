"""Running a model on rows: packed or padded, its frozen part kept, many adapters at once."""
