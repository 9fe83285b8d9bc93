"""The agent: what happens on one node."""
