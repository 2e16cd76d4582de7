"""What people read: terminal tables, progress, the model card. Made from ``metrics.json`` and the predictions alone."""
