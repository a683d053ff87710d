#!/bin/sh
# Installs the Debian packages that the lab needs, and only those that are missing.
# Says nothing when nothing is to do.
set -eu

packages="ca-certificates conntrack curl gcc git iproute2 iptables kmod libc6-dev libseccomp-dev make mount pkg-config"

missing=""
for package in $packages; do
	status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
	[ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
	echo "the lab needs system packages: sudo apt-get install$missing" >&2
	exit 1
fi
echo "installing Debian packages:$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # a list of words on purpose
if ! { apt-get update && apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1; then
	tail -n 20 "$log" >&2
	echo "apt-get could not install$missing: see above" >&2
	exit 1
fi
