#!/usr/bin/env bats
# A Debian guest that serves a client over a tap moves from host to host (moving.py), and the client notices nothing.
# With TRAPEZE_NIGHTLY=1 the line is cut everywhere, too; rounds.bats is there and back ten times by every mode.

load boot

setup_file() {
    fetch cloud
}

# moves_at_night CASE: takes too long for each time.
moves_at_night() {
    if [ -z "${TRAPEZE_NIGHTLY:-}" ]; then
        skip "takes minutes; TRAPEZE_NIGHTLY=1 runs it"
    fi
    moves "$1" 3600
}

@test "a serving guest moves by every mode, on shared storage" {
    moves quick
}

@test "a serving guest moves with its disks, over each kind of line" {
    moves apart
}

@test "the line is cut at the hand-over and while pages follow: one guest, and its client notices a gap at most" {
    moves cuts
}

@test "what a client sends while the guest stands still is answered after the move" {
    moves in-between
}

@test "a destination whose disk is full, or whose memory is too little, is named" {
    moves full-disk
    moves little-memory
}

@test "a serving guest moves through a real sshd" {
    moves sshd
}

@test "wrong keys, foreign certificates, plain bytes and a missing interface are refused" {
    moves refused
}

@test "a destination that takes nothing any more does not keep a cancelled guest" {
    moves obstinate
}

@test "a serving guest moves with its snapshots, and restored from one" {
    moves_at_night snapshots
}

@test "undecided: asked again" {
    moves_at_night undecided
}

@test "the line is cut at every message" {
    moves_at_night all-cuts
}

@test "the line carries nothing any more, from each message on" {
    moves_at_night silences
}

@test "the cable is out for a moment, or for good" {
    moves_at_night cable
}
