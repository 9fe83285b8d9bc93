"""Squall injects faults into running systems, proves that they acted, and takes them back."""
