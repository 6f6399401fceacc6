#!/usr/bin/env bats
# Debian's generic kernel as it comes: more drivers to probe, most of them for hardware that is not there.

load boot

setup_file() {
    fetch generic || return 0
}

@test "generic kernel, 1 processor" {
    passes 1 ""
}

@test "generic kernel, 2 processors" {
    passes 2 ""
}

@test "generic kernel, 4 processors, every mitigation on" {
    passes 4 "pti=on spectre_v2=on"
}
