"""Squall in a cluster as a whole: what is installed, what it needs, how it goes away."""
