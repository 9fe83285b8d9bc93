"""The Kubernetes API, by HTTP or embedded in this process."""
