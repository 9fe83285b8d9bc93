"""A Kubernetes API of our own over SQLite, and what runs on this host shown as Pods."""
