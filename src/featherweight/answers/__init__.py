"""Kinds of answer: what is kept of a row, and what measures it."""
