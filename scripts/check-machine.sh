#!/bin/sh
# Says in one line what is missing before anything long is begun, and installs
# the Debian packages that are needed.
#
#   KUBECONFIG_GIVEN  a cluster that the user already has: no root is needed then
set -eu
cd "$(dirname "$0")/.."

fail() {
	echo "make: $1" >&2
	exit 1
}
another="or use a cluster that you have: make demo KUBECONFIG=path REGISTRY=host/path"
command -v go >/dev/null || fail "Go is not installed or not in PATH: see https://go.dev/dl (1.26 or newer)"
# 1.21 and later fetch the toolchain that go.mod asks for by themselves.
case $(go env GOVERSION) in
go1.2[1-9]* | go1.[3-9][0-9]* | devel*) ;;
*) fail "$(go env GOVERSION) is too old: install Go 1.26 or newer, see https://go.dev/dl" ;;
esac
[ -z "${KUBECONFIG_GIVEN:-}" ] || exit 0
[ "$(uname -s)" = Linux ] || fail "the lab needs Linux, this is $(uname -s): use a Debian 12 machine, $another"
[ "$(id -u)" = 0 ] || fail "the lab starts a Kubernetes node and needs root: sudo -E env PATH=\"\$PATH\" make …, $another"
if command -v dpkg-query >/dev/null && command -v apt-get >/dev/null; then
	exec ./lab/setup-debian.sh
fi
echo "note: this is not Debian; install what lab/setup-debian.sh lists by your own package manager" >&2
