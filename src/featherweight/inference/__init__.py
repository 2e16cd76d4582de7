"""Answering with a finished model."""
