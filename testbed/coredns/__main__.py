"""Build CoreDNS unless it is there, and print where it is."""

from testbed.coredns import program

print(program())
