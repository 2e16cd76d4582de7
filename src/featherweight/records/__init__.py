"""Frozen records that travel between the stages. They hold data and derive from it; they do no I/O."""
