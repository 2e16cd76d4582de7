"""What a model is tuned for. A task is one file here and one line in the ``TASKS`` table."""
