"""User-mode Linux: a kernel with netem and cgroup v2 for tests, whatever the host's own has."""
