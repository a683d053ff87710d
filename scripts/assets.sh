#!/usr/bin/env bash
# Prints where a lab binary stands, when it is built: the path of the program that
# is named, or, without a name, a folder that holds what envtest calls its assets
# (etcd, kube-apiserver, kubectl). Prints nothing otherwise, and the tests that
# need it say so.
cd "$(dirname "$0")/.." || exit 0
[ -x bin/lab ] || exit 0
bin=$(bin/lab env --bin) || exit 0
if [ $# -gt 0 ]; then
  [ -x "$bin/$1" ] && echo "$bin/$1"
  exit 0
fi
mkdir -p bin/assets
for program in "$bin/node/etcd" "$bin/node/kube-apiserver" "$bin/kubectl"; do
  [ -x "$program" ] || exit 0
  ln -sf "$program" bin/assets/
done
echo "$PWD/bin/assets"
