"""Faster arithmetic for the layers that models are made of, each held to stock before it is used."""
