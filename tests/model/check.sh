#!/bin/sh
# Checks migrate.pml with spin, in every interleaving: without and with kills. Prints TAP.
# usage: check.sh FOLDER_OF_THE_MODEL
set -u
if ! command -v spin >/dev/null; then
    echo "spin is not installed: the model of who owns a migrating guest was not checked"
    exit 77
fi
model=$(cd "$1" && pwd)/migrate.pml
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
echo 1..4
number=0

# verdict NAME FLAGS WANTED: wanted is how many errors there are, 0 or 1.
verdict() {
    number=$((number + 1))
    if spin $2 -a "$model" >spin.log 2>&1 && cc -O1 -DSAFETY -DNOREDUCE -w -o pan pan.c >>spin.log 2>&1 &&
        ./pan -m100000 >pan.log 2>&1 && grep -q "errors: $3" pan.log && ! grep -q "max search depth too small" pan.log; then
        echo "ok $number - $1"
    else
        sed 's/^/# /' spin.log pan.log 2>/dev/null
        echo "not ok $number - $1"
    fi
}

verdict "never two, never lost: cuts at every moment" "" 0
verdict "never two, never lost: cuts, and either end is killed at every moment" "-DKILLS" 0
# The model must be able to see it: a source that resumes after GO without asking runs the guest twice, and so does `start`
# where nothing was written down.
sed 's/    here = UNDECIDED;/    goto resume;/' "$model" >silent.pml
sed 's/    noted_away = true;//' "$model" >unwritten.pml
model=$work/silent.pml
verdict "a source that does not ask is caught" "" 1
model=$work/unwritten.pml
verdict "a source that writes nothing down is caught" "-DKILLS" 1
