"""Container images without a registry: a base made by debootstrap, and what is built on it."""
