#!/bin/sh
# usage: bench/run.sh BUILD [options of run.py]: what `make bench` runs.
set -eu
build=$1
shift
exec python3 "$(dirname "$0")/run.py" --build "$build" "$@"
