"""What is to be said about the data before anything is trained on it."""
