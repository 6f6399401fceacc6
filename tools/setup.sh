#!/bin/sh
# Installs the Debian packages of tools/packages.txt that are missing; a quick no-op when all are there.
# usage: tools/setup.sh [GROUP...]        default: build run test
#        tools/setup.sh --markdown        prints the list as README.md shows it
set -eu
list=$(dirname "$0")/packages.txt

if [ "${1:-}" = --markdown ]; then
    echo '| package | group | why |'
    echo '|---|---|---|'
    awk '!/^#/ && NF { p = $2; g = $1; $1 = $2 = ""; sub(/^ +/, ""); print "| " p " | " g " | " $0 " |" }' "$list"
    exit 0
fi

[ $# -gt 0 ] || set -- build run test
wanted=$(awk -v groups=" $* " '!/^#/ && NF && index(groups, " " $1 " ") { print $2 }' "$list")

if ! command -v dpkg-query >/dev/null; then
    echo "setup: this is not Debian; needed are (Debian's names):" $wanted >&2
    exit 1
fi

# What is not fully installed, one name a line.
missing() {
    installed=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' 2>/dev/null | sed -n 's/^installed //p')
    printf '%s\n' "$installed" "--" $wanted | awk '$0 == "--" { w = 1; next } !w { have[$0] = 1; next } !have[$0]'
}

need=$(missing)
[ -n "$need" ] || exit 0

sudo=
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "setup: packages are missing; install them as root: apt-get install" $need >&2
        exit 1
    fi
    sudo=sudo
fi
apt() {
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 "$@" </dev/null
}

echo "setup: installing" $need >&2
# The package lists may be absent or old: one more try with fresh ones.
if ! apt install -y --no-install-recommends $need >/dev/null 2>&1; then
    apt update >&2
    apt install -y --no-install-recommends $need >&2
fi
need=$(missing)
if [ -n "$need" ]; then
    echo "setup: still missing:" $need >&2
    exit 1
fi
