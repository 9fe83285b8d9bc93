"""Build kubectl and kube-apiserver unless they are there, and print their folder."""

from testbed.kubernetes.build import programs

print(programs())
