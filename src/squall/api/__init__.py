"""The words on the wire: what Kubernetes objects say, and the port they go through."""
