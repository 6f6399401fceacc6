#!/bin/sh
# usage: bench/run.sh BUILD [options of run.py]: what `make bench` runs.
set -eu
build=$1
here=$(dirname "$0")
shift
python3 "$here/run.py" --build "$build" "$@"
python3 "$here/snapshot.py" --build "$build" --out "$here/SNAPSHOT.md"
if command -v qemu-img >/dev/null; then
    python3 "$here/disk.py" --trapeze "$build/src/cmd/trapeze" --append "$here/SNAPSHOT.md"
fi
python3 "$here/migrate.py" --build "$build" --rounds 5 --busy --moves 100 --out "$here/MIGRATE.md"
python3 "$here/oci/run.py" --oci "$build/src/container/trapeze-oci" --load --out "$here/oci/RESULTS.md"
