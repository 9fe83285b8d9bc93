#!/usr/bin/env bash
# Install the Debian packages that running and testing Squall needs; does nothing when all are there.
# `system.sh machine` does so for what only make test-aarch64-kernel needs.
set -euo pipefail

run=(python3-venv nftables iproute2 stress-ng util-linux)                      # the product
build=(gcc make libc6-dev)                                        # the native crate
tests=(etcd-server etcd-client postgresql-15 podman iperf3 kmod flex bison bc libelf-dev linux-source-6.1 busybox-static libfaketime)
cluster=(containerd runc containernetworking-plugins iptables conntrack socat ethtool prometheus debootstrap buildah)
images=(buildah debootstrap)                                      # container images, without a registry
bench=(fio libfuse3-dev pkg-config)                               # bench/files.py
arm=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user)        # the native crate for 64-bit Arm, and its tests
[[ $(uname -m) == x86_64 ]] || arm=()                             # elsewhere it is built as it is, or not
machine=(qemu-system-arm busybox-static)                          # the same on a kernel of its own

wanted=("${run[@]}" "${build[@]}" "${tests[@]}" "${cluster[@]}" "${images[@]}" "${bench[@]}" "${arm[@]}")
[[ ${1-} != machine ]] || wanted=("${machine[@]}")
missing=()
for package in "${wanted[@]}"; do
    dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep -q '^installed$' ||
        missing+=("$package")
done
if ((${#missing[@]})); then
    if ((EUID)); then
        echo "not installed: ${missing[*]}; run as root, or: sudo apt-get install ${missing[*]}" >&2
        exit 1
    fi
    echo "installing ${missing[*]}"
    apt-get update --quiet=2
    DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --no-install-recommends "${missing[@]}" >/dev/null
fi
for tool in cargo:"Rust 1.80 or newer (rustup.rs, or Debian's rustup)" go:"Go 1.24 or newer, for the API server of the tests"; do
    command -v "${tool%%:*}" >/dev/null || { echo "no ${tool%%:*} on PATH: install ${tool#*:}" >&2; exit 1; }
done
