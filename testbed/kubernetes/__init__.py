"""Kubernetes from its Go modules: build the programs, start an API server with etcd."""
