"""The only place that reads the outside: data files, hubs, model folders, files that installed packages ship."""
