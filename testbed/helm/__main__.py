"""Build helm unless it is there, and print where it is."""

from testbed.helm import program

print(program())
