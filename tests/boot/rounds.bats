#!/usr/bin/env bats
# A Debian with systemd and nginx serves a client over a tap and moves there and back ten times by every mode (rounds.py); the
# client notices nothing. Takes an hour: only with TRAPEZE_NIGHTLY=1. TRAPEZE_ROUNDS: how often instead, TRAPEZE_MODE: one of its
# modes.

load boot

setup_file() {
    nightly "takes an hour" && fetch cloud && debian_image || return 0
}

@test "ten times there and back by every mode, on shared storage" {
    moves rounds 7200
}

@test "ten times there and back by every mode, with its disks" {
    moves rounds-apart 7200
}
