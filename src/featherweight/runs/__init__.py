"""The run directory: the contract between the stages."""
