"""The process: signals, imports, threads, and libraries' noise."""
