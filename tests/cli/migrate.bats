#!/usr/bin/env bats
# migrate and receive: two hosts are two folders for records on this one.

load guests

# receiver ARGUMENT...: waits for machines as the other host; it listens when this returns.
receiver() {
    THERE=$BATS_TEST_TMPDIR/there
    mkdir -p "$THERE"
    PLACE=unix:$BATS_TEST_TMPDIR/in
    TRAPEZE_ROOT=$THERE timeout -k 5 300 "$TRAPEZE" receive "$@" "$PLACE" >"$BATS_TEST_TMPDIR/receiver" 2>&1 3>&- &
    RECEIVER=$!
    until_is yes listens
}

# The same for the way back to this host.
receiver_back() {
    rm -f "$BATS_TEST_TMPDIR/back"
    timeout -k 5 300 "$TRAPEZE" receive "unix:$BATS_TEST_TMPDIR/back" >>"$BATS_TEST_TMPDIR/receiver" 2>&1 3>&- &
    BACK=$!
    until_is yes listens back
}

listens() {
    [ -S "$BATS_TEST_TMPDIR/${1:-in}" ] && echo yes
}

teardown() {
    cat "$BATS_TEST_TMPDIR/receiver" 2>/dev/null || true
    kill ${RECEIVER:-} ${BACK:-} 2>/dev/null || true
    for root in "$TRAPEZE_ROOT" "${THERE:-}"; do
        if [ -n "$root" ]; then
            TRAPEZE_ROOT=$root "$TRAPEZE" ps -q 2>/dev/null | TRAPEZE_ROOT=$root xargs -r "$TRAPEZE" kill -f 2>/dev/null || true
        fi
    done
}

there() {
    TRAPEZE_ROOT=$THERE "$@"
}

@test "a guest moves there and back, by every way of copying" {
    receiver
    guest b --name web
    for how in "" --postcopy "--compress zstd" "--connections 3 --delta 16M" --hybrid --precopy; do
        trapeze migrate -q $how web "$PLACE"
        until_is ended state web
        [ "$(there state web)" = running ]
        receiver_back
        there trapeze migrate -q web "unix:$BATS_TEST_TMPDIR/back"
        kill "$BACK"
        [ "$(state web)" = running ] # under its name, although that is what it left behind
    done
}

@test "start: a guest that runs on another host now is not started twice" {
    receiver
    guest b --name web
    trapeze migrate -q web "$PLACE"
    until_is ended state web
    trapeze ps -a
    [[ $output == *"moved away"* ]]
    run timeout 60 "$TRAPEZE" start web
    [ "$status" -eq 4 ]
    [[ $output == *"web: it moved to another host"*--force* ]]
    [ "$(there state web)" = running ]
    there trapeze kill web
    trapeze start --force web
    [ "$(state web)" = running ]
}

@test "migrate: a paused guest is paused over there" {
    receiver
    guest b --name web
    trapeze pause web
    trapeze migrate -q web "$PLACE"
    [ "$(there state web)" = paused ]
    there trapeze resume web
    [ "$(there state web)" = running ]
}

@test "migrate: JSON lines without a terminal, and a summary" {
    receiver
    guest b --name web
    trapeze migrate web "$PLACE"
    [ "$(echo "$output" | jq -rs 'last | .event')" = moved ]
    [ "$(echo "$output" | jq -rs 'last | .left_bytes')" = 0 ]
    [ "$(echo "$output" | jq -rs 'last | .downtime_ns > 0')" = true ]
    [ "$(echo "$output" | jq -rs 'last | .downtime_ns == (.downtime_parts_ns | add)')" = true ]
}

@test "migrate: what the other host lacks is said at once, and the guest goes on" {
    truncate -s 1M "$BATS_TEST_TMPDIR/disk"
    receiver --disk "$BATS_TEST_TMPDIR/nowhere" --net tap,ifname=nosuchtap0
    guest b --name web --disk "$BATS_TEST_TMPDIR/disk"
    run timeout 60 "$TRAPEZE" migrate -q web "$PLACE"
    [ "$status" -eq 4 ]
    [[ $output == *"the destination cannot take the machine"*"disk 0: "*nowhere*"network 0: "*nosuchtap0* ]]
    [ "$(state web)" = running ]
    run timeout 60 "$TRAPEZE" migrate --dry-run web "$PLACE"
    [ "$status" -eq 4 ]
    [ "$(there "$TRAPEZE" ps -aq)" = "" ]
}

@test "migrate: a receiver that names other disks or networks than there are says so before anything is copied" {
    truncate -s 1M "$BATS_TEST_TMPDIR/disk" "$BATS_TEST_TMPDIR/other"
    seq 1000 >"$BATS_TEST_TMPDIR/kept"
    truncate -s 1M "$BATS_TEST_TMPDIR/kept"
    cp "$BATS_TEST_TMPDIR/kept" "$BATS_TEST_TMPDIR/copy"
    receiver --disk "$BATS_TEST_TMPDIR/kept" --net user
    guest b --name web --disk "$BATS_TEST_TMPDIR/disk" --disk "$BATS_TEST_TMPDIR/other"
    run timeout 60 "$TRAPEZE" migrate -q --copy-disks web "$PLACE"
    [ "$status" -eq 4 ]
    [[ $output == *"disk: the machine has 2, and the receiver's --disk options name 1"*"net: the machine has 0, "*" name 1"* ]]
    cmp "$BATS_TEST_TMPDIR/kept" "$BATS_TEST_TMPDIR/copy"
    [ "$(state web)" = running ]
}

@test "migrate: nothing is left of a machine that the other host could not start" {
    truncate -s 1M "$BATS_TEST_TMPDIR/disk"
    receiver # the disk is in use
    guest b --name web --disk "$BATS_TEST_TMPDIR/disk"
    refuses 4 "in use" "$TRAPEZE" migrate -q --copy-disks web "$PLACE"
    until_is "" words_there
    [ "$(state web)" = running ]
}

# What the other host keeps for sources that may ask it.
words_there() {
    ls -A "$THERE/run/arrivals"
}

@test "migrate: of a guest whose process dies on its way nobody says that it goes on" {
    receiver
    guest b --name web
    child=$(pgrep -P "$RECEIVER")
    kill -STOP "$child" # the connection stands, and nothing is said
    "$TRAPEZE" migrate -q web "$PLACE" 2>"$BATS_TEST_TMPDIR/said" 3>&- &
    until_is migrating state web
    kill -9 "$("$TRAPEZE" ps --format json | jq -r '.[0].pid')"
    status=0
    wait $! || status=$?
    kill -CONT "$child"
    cat "$BATS_TEST_TMPDIR/said"
    [ "$status" -eq 4 ]
    grep -q "has died, .*Look at the other host" "$BATS_TEST_TMPDIR/said"
    ! grep -q "goes on here" "$BATS_TEST_TMPDIR/said"
}

@test "migrate: wrong places and options" {
    guest b --name web
    refuses 2 "'host' is no place" "$TRAPEZE" migrate web host
    refuses 2 "has no port" "$TRAPEZE" migrate web tcp://host
    refuses 2 "where to?" "$TRAPEZE" migrate web
    refuses 2 "--max-downtime: " "$TRAPEZE" migrate --max-downtime 0 web unix:/x
    refuses 2 "--compress: " "$TRAPEZE" migrate --compress lots web unix:/x
    refuses 2 "--precopy excludes" "$TRAPEZE" migrate --precopy --hybrid web unix:/x
    refuses 4 "cannot connect to '/nowhere'" "$TRAPEZE" migrate web unix:/nowhere
    refuses 4 "plain TCP beyond this host" "$TRAPEZE" migrate web tcp://192.0.2.1:1
    refuses 4 "no migration is under way" "$TRAPEZE" migrate --cancel web
    refuses 4 "nothing is undecided" "$TRAPEZE" migrate --claim web
    refuses 4 "plain TCP beyond this host" "$TRAPEZE" receive tcp://:1
    refuses 2 "where to listen?" "$TRAPEZE" receive
    refuses 4 "cannot make the folder" timeout -s HUP 20 "$TRAPEZE" receive --root /dev/null/x "unix:$BATS_TEST_TMPDIR/x"
    refuses 2 "--accel: " "$TRAPEZE" receive --accel tcg unix:/x
    [ "$(state web)" = running ]
}

@test "migrate: disks go along where storage is not shared" {
    disk=$BATS_TEST_TMPDIR/disk there=$BATS_TEST_TMPDIR/there-disk
    "$TRAPEZE" disk create -f raw "$disk.raw" 3M
    seq 200000 | dd of="$disk.raw" conv=notrunc bs=4k seek=20 status=none
    "$TRAPEZE" disk convert -O qcow2 "$disk.raw" "$disk.qcow2"
    "$TRAPEZE" disk create -f qcow2 "$there.qcow2" 3M
    seq 300000 >"$there.raw" # is lost
    truncate -s 3M "$there.raw"
    receiver --disk "$there.qcow2,format=qcow2" --disk "$there.raw"
    guest b --name web --disk "$disk.raw" --disk "$disk.qcow2,format=qcow2"
    for how in "" --postcopy; do
        trapeze migrate -q $how --copy-disks web "$PLACE"
        until_is ended state web
        [ "$(there state web)" = running ]
        there trapeze kill web
        there trapeze rm web
        trapeze disk compare -f raw -F qcow2 "$disk.raw" "$there.qcow2"
        trapeze disk compare -f raw -F raw "$disk.raw" "$there.raw"
        trapeze disk check "$there.qcow2"
        trapeze start --force web
    done
}

@test "migrate: images of another size over there are said with all else, and nothing of them is lost" {
    local here=$BATS_TEST_TMPDIR/here there=$BATS_TEST_TMPDIR/there-disk
    "$TRAPEZE" disk create -f qcow2 "$here.qcow2" 3M
    "$TRAPEZE" disk create -f qcow2 "$there.qcow2" 5M
    truncate -s 3M "$here.raw" "$here.same" "$there.same"
    seq 100000 >"$there.raw"
    cp "$there.raw" "$BATS_TEST_TMPDIR/kept"
    receiver --disk "$there.qcow2,format=qcow2" --disk "$there.same" --disk "$there.raw" --net tap,ifname=nosuchtap0
    guest b --name web --disk "$here.qcow2,format=qcow2" --disk "$here.same" --disk "$here.raw"
    for how in --copy-disks --dry-run ""; do
        run timeout 60 "$TRAPEZE" migrate -q $how web "$PLACE"
        [ "$status" -eq 4 ]
        [[ $output == *"disk 0: '$there.qcow2' has 5242880 bytes and the machine's has 3145728 ("*"disk 2: '$there.raw' has "*"network 0: "* ]]
        [[ $output != *"disk 1: "* ]]
        [ "$(state web)" = running ]
    done
    cmp "$there.raw" "$BATS_TEST_TMPDIR/kept"
    [ "$(there "$TRAPEZE" ps -aq)" = "" ]
}

@test "migrate: an image over there that cannot be opened is said before anything is copied" {
    truncate -s 1M "$BATS_TEST_TMPDIR/disk"
    mkfifo "$BATS_TEST_TMPDIR/pipe"
    receiver --disk "$BATS_TEST_TMPDIR/disk,format=qcow2" --disk "$BATS_TEST_TMPDIR/pipe"
    truncate -s 1M "$BATS_TEST_TMPDIR/other"
    guest b --name web --disk "$BATS_TEST_TMPDIR/disk" --disk "$BATS_TEST_TMPDIR/other"
    refuses 4 "disk 0: $BATS_TEST_TMPDIR/disk: " "$TRAPEZE" migrate -q --copy-disks web "$PLACE"
    [[ $stderr == *"disk 1: $BATS_TEST_TMPDIR/pipe: "* ]]
    [ "$(state web)" = running ]
}

@test "receive: garbage and silence harm nobody" {
    receiver
    guest b --name web
    head -c 100000 /dev/urandom | timeout 5 python3 -c '
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
try:
    s.sendall(sys.stdin.buffer.read())
except OSError:
    pass
' "$BATS_TEST_TMPDIR/in"
    trapeze migrate -q web "$PLACE"
    [ "$(there state web)" = running ]
}

@test "receive: those who say nothing do not keep others out" {
    receiver
    guest b --name web
    # More than the receiver holds, for as long as it lets them.
    timeout 60 python3 -c '
import socket, sys, time
held = []
for _ in range(100):
    s = socket.socket(socket.AF_UNIX)
    s.connect(sys.argv[1])
    s.send(b"TZ")
    held.append(s)
print("held", flush=True)
time.sleep(60)
' "$BATS_TEST_TMPDIR/in" >"$BATS_TEST_TMPDIR/loris" 2>&1 3>&- &
    local silent=$!
    until_is held cat "$BATS_TEST_TMPDIR/loris"
    trapeze migrate -q web "$PLACE"
    kill "$silent"
    [ "$(there state web)" = running ]
}

@test "migrate: a disk on shared storage goes from hand to hand, and has one writer at any time" {
    for format in raw qcow2; do
        "$TRAPEZE" disk create -f $format "$BATS_TEST_TMPDIR/disk.$format" 4M
    done
    receiver
    guest b --name web --disk "$BATS_TEST_TMPDIR/disk.raw" --disk "$BATS_TEST_TMPDIR/disk.qcow2,format=qcow2"
    trapeze migrate -q web "$PLACE"
    [ "$(there state web)" = running ]
    # It is the other one's now, and locked.
    run timeout 20 "$TRAPEZE" run -k "$ENDS" -a p -m 16M --net none --disk "$BATS_TEST_TMPDIR/disk.raw" --serial null
    [ "$status" -eq 4 ]
    there trapeze kill web
    trapeze disk check "$BATS_TEST_TMPDIR/disk.qcow2"
}

@test "migrate: --dry-run measures, and says how long it would take" {
    receiver
    guest b --name web
    run --separate-stderr timeout 60 "$TRAPEZE" migrate --dry-run --format text --bandwidth 100M web "$PLACE"
    [ "$status" -eq 0 ]
    [[ $output == *"it can go there"*"at 100 MiB/s it takes about"* ]]
    [ "$(state web)" = running ]
    [ "$(there "$TRAPEZE" ps -aq)" = "" ]
}

@test "migrate: who has a user-mode network hears that its connections end" {
    receiver
    run timeout -k 5 60 "$TRAPEZE" run -d --name nat -k "$ENDS" -a b -m 16M --debug-exit 0xf4
    [ "$status" -eq 0 ]
    run timeout 60 "$TRAPEZE" migrate nat "$PLACE"
    [ "$status" -eq 0 ]
    [[ $output == *"connections through the user-mode network will end"* ]]
}

@test "migrate: ssh starts the receiver at the other end" {
    THERE=$BATS_TEST_TMPDIR/there
    mkdir -p "$THERE"
    cat >"$BATS_TEST_TMPDIR/ssh" <<END
#!/bin/sh
echo "\$@" >"$BATS_TEST_TMPDIR/asked"
TRAPEZE_ROOT=$THERE exec "$TRAPEZE" receive -
END
    chmod +x "$BATS_TEST_TMPDIR/ssh"
    guest b --name web
    TRAPEZE_SSH=$BATS_TEST_TMPDIR/ssh run timeout -k 5 60 "$TRAPEZE" migrate -q --postcopy web ssh://me@other:2222
    [ "$status" -eq 0 ]
    [ "$(cat "$BATS_TEST_TMPDIR/asked")" = "-T -o BatchMode=yes -o ServerAliveInterval=5 -o ServerAliveCountMax=4 -p 2222 -- me@other trapeze receive -" ]
    [ "$(there state web)" = running ]
}
