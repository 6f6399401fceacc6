#!/usr/bin/env bats
# `trapeze snapshot`: with small guests; tests/boot has one with a kernel under load.

load guests

# taken GUEST NAME [ARGUMENT...]: a snapshot is taken; $output is its id.
taken() {
    local guest=$1 name=$2
    shift 2
    run --separate-stderr timeout -k 5 60 "$TRAPEZE" snapshot create "$@" "$guest" "$name"
    echo "status $status; $output; $stderr"
    [ "$status" -eq 0 ]
    [[ $output =~ ^[0-9a-f]{12}$ ]]
    [[ $stderr == *"snapshot '$name': "* ]]
}

# web_with_disk [SNAPSHOT...]: the guest `web` has a disk, and snapshots of it are taken, each standing on the one before.
web_with_disk() {
    local name parent=
    truncate -s 1M "$BATS_TEST_TMPDIR/disk"
    guest e --name web --disk "$BATS_TEST_TMPDIR/disk"
    for name in "$@"; do
        taken web "$name" ${parent:+--parent "$parent"}
        parent=$name
    done
}

# fails TEXT ARGUMENT...: the verb fails and says TEXT.
fails() {
    local want=$1
    shift
    run --separate-stderr timeout -k 5 60 "$TRAPEZE" snapshot "$@"
    echo "trapeze snapshot $*: status $status; $stderr"
    [ "$status" -ne 0 ]
    [[ $stderr == *"$want"* ]]
}

# echoes SNAPSHOT: a guest from it goes on: it returns what it gets.
echoes() {
    local in=$BATS_TEST_TMPDIR/in out=$BATS_TEST_TMPDIR/out
    [ -e "$in" ] || mkfifo "$in"
    "$TRAPEZE" snapshot restore --name probe "$1" <>"$in" >"$out" 2>&1 &
    VM=$!
    echo over-there >"$in"
    until_is 1 grep -c over-there "$out" || { cat "$out"; return 1; }
    kill -HUP "$VM"
    wait "$VM" || true
    VM=
    [[ $(cat "$out") != *trapeze:* ]] || { cat "$out"; return 1; }
}

# nothing_left: no unfinished folder, and no layer but those that are named.
nothing_left() {
    [ -z "$(find "$TRAPEZE_ROOT/snapshots" -name '.*' -mindepth 1)" ]
}

# stands STEP ARGUMENT...: the verb stands still at that step, as a process on a slow disk does; it is $STANDS. What a shell
# starts in the background ignores Ctrl-C; this does not.
stands() {
    local step=$1
    shift
    TRAPEZE_STAND_AT=$step env --default-signal=INT "$TRAPEZE" snapshot "$@" >"$BATS_TEST_TMPDIR/stands" 2>&1 &
    STANDS=$!
    until_is T ps -o state= -p "$STANDS"
}

# goes_on: what stood still ends well.
goes_on() {
    kill -CONT "$STANDS"
    wait "$STANDS" || { cat "$BATS_TEST_TMPDIR/stands"; return 1; }
}

# stopped_by SIGNAL: what stood still is ended by that signal.
stopped_by() {
    local status=0
    kill "-$1" "$STANDS"
    kill -CONT "$STANDS"
    wait "$STANDS" || status=$?
    cat "$BATS_TEST_TMPDIR/stands"
    [ "$status" -eq $((128 + $(kill -l "$1"))) ]
}

@test "create, ls, show, restore, rm" {
    guest e --name web
    taken web clean
    id=$output
    trapeze snapshot ls
    [[ ${lines[1]} == "$id  clean "*" web "*"16 MiB"* ]]
    trapeze snapshot ls --format json
    [ "$(jq -r '.[0].name' <<<"$output")" = clean ]
    trapeze snapshot show clean
    [[ $output == *"cpu 0"*"  rip: 0x"* ]]
    [[ $output == *"lapic 0"* ]]
    trapeze snapshot show --format json "${id:0:5}"
    [ "$(jq -r '.config.memory' <<<"$output")" = 16M ]
    [ "$(state web)" = running ]
    echoes clean
    trapeze snapshot rm clean
    trapeze snapshot ls --format json
    [ "$output" = "[]" ]
    [ "$(state web)" = running ]
}

@test "wrong names are said" {
    fails "there is no guest" create nobody s
    guest i --name web
    fails "cannot be a snapshot's name" create web ../s
    taken web s
    fails "there is a snapshot 's' already" create web s
    fails "there is no snapshot 'x'" restore x
    fails "there is no snapshot 'x'" create --parent x web y
    fails "'zstd' is one operand too many" create web y zstd
    fails "there is no verb 'crate', did you mean 'create'" crate
    fails "--clock 'past' is not known" restore --clock past s
    trapeze kill web
    fails "web: it is not running" create web t
}

@test "every verb has its help, and its options are in the manual" {
    man=$BATS_TEST_DIRNAME/../../docs/man/trapeze-snapshot.1
    trapeze snapshot --help
    for verb in $(sed -n '/^Verbs:/,/^$/s/^  \([a-z]*\) .*/\1/p' <<<"$output"); do
        trapeze snapshot "$verb" --help
        grep -q "snapshot $verb" "$man"
        for option in $(grep -o -- '--[a-z-]*' <<<"$output" | sort -u); do
            grep -q -- "Fl -${option#--}\b" "$man" || { echo "$verb $option is not in the manual"; false; }
        done
    done
}

@test "an incremental snapshot holds what changed; a chain restores as one, and can be flattened" {
    guest e --name web
    taken web one
    taken web two --parent one
    taken web three --parent two
    [ "$("$TRAPEZE" snapshot ls --format json | jq -r 'map(.name) | join(" ")')" = "one two three" ] # the oldest first
    fails "can stand on 'three'" create --parent one web four
    trapeze snapshot diff one three
    [[ ${lines[0]} == "memory: "*" pages"* ]]
    full=$("$TRAPEZE" snapshot ls --format json | jq '.[] | select(.name == "one") | .size')
    small=$("$TRAPEZE" snapshot ls --format json | jq '.[] | select(.name == "three") | .size')
    # The kernel is the first one's.
    [ "$small" -lt "$full" ]
    fails "snapshot 'two' stands on it" rm one
    echoes three
    trapeze snapshot flatten --compress two
    trapeze snapshot rm one
    echoes three
    trapeze snapshot flatten three
    trapeze snapshot rm two
    echoes three
    nothing_left
}

@test "taken under KVM, restored under bt and again under KVM" {
    [ -r /dev/kvm ] && [ -w /dev/kvm ] || skip "there is no /dev/kvm"
    export TRAPEZE_ACCEL_ANYWAY=kvm # one that fails the probe does for this guest
    guest e --name web --accel kvm --cpus 2
    taken web s
    unset TRAPEZE_ACCEL_ANYWAY
    echoes s # auto would take a KVM that works
    trapeze snapshot restore -d --name other --accel bt s
    taken other back
    export TRAPEZE_ACCEL_ANYWAY=kvm
    trapeze snapshot restore -d --name third --accel kvm back
    [ "$(state third)" = running ]
    taken third again # it answers, too
    echoes again
}

@test "compressed" {
    guest e
    taken vm1 small --compress
    echoes small
}

@test "disks: frozen at the snapshot's moment, layers go when nobody needs them" {
    web_with_disk s
    [ "$(ls "$TRAPEZE_ROOT/layers" | wc -l)" -eq 1 ]
    trapeze snapshot clone --name-prefix c --count 2 s
    [ "$(ls "$TRAPEZE_ROOT/layers" | wc -l)" -eq 3 ]
    trapeze kill c-1 c-2 web
    trapeze rm c-1 c-2
    trapeze snapshot rm s
    [ "$(ls "$TRAPEZE_ROOT/layers" | wc -l)" -eq 1 ] # web's own, as its record says
    grep -q "$(ls "$TRAPEZE_ROOT/layers")" <<<"$("$TRAPEZE" inspect web)"
}

@test "what a snapshot stands on is write-protected: the guest's old image, its overlays, imported disks" {
    disk=$BATS_TEST_TMPDIR/disk
    truncate -s 1M "$disk"
    guest e --name web --disk "$disk"
    taken web s
    taken web t --parent s
    trapeze kill web
    refuses 4 "$disk: is write-protected" "$TRAPEZE" run -d -k "$ENDS" --disk "$disk" --net none
    refuses 4 "is write-protected" "$TRAPEZE" disk resize -f raw "$disk" 2M
    for path in $("$TRAPEZE" snapshot show --format json t | jq -r '.snapshot.disks[0].layers[].path'); do
        [ "$(stat -c %A "$path" | tr -d rx-)" = "" ]
    done
    trapeze start web # on its overlay
    trapeze snapshot restore -d --name again t
    trapeze snapshot export t "$BATS_TEST_TMPDIR/t.snapshot"
    trapeze snapshot import "$BATS_TEST_TMPDIR/t.snapshot" in
    path=$("$TRAPEZE" snapshot show --format json in | jq -r '.snapshot.disks[0].layers[0].path')
    refuses 4 "is write-protected" "$TRAPEZE" disk resize "$path" 2M
    echoes in
    # Nothing stands on it any more, as the user knows: it is an image like others again.
    trapeze rm -f web again
    trapeze snapshot rm t s in
    chmod u+w "$disk"
    guest e --name last --disk "$disk"
    taken last u
}

@test "ten clones (a hundred with TRAPEZE_NIGHTLY=1), each with a name, an identity and a life of its own" {
    count=${TRAPEZE_NIGHTLY:+100}
    count=${count:-10}
    guest e
    taken vm1 s
    trapeze snapshot clone --count "$count" --name-prefix w --new-mac s
    [ "${#lines[@]}" -eq "$count" ]
    [ "$("$TRAPEZE" ps --format json | jq '[.[] | select(.name | startswith("w-"))] | length')" -eq "$count" ]
    trapeze stats --no-stream --format json
    [ "$(jq 'map(select(.answers)) | length' <<<"$output")" -eq $((count + 1)) ]
    fails "w-1" clone --name-prefix w s
    trapeze kill w-3
    [ "$(state w-4)" = running ]
    for i in 5 6; do
        timeout 60 "$TRAPEZE" snapshot create "w-$i" "of-$i" 2>/dev/null
        "$TRAPEZE" snapshot show --format json "of-$i" | jq -c '.identity | .generation, .uuid, .mac' >"$BATS_TEST_TMPDIR/id$i"
    done
    [ "$(cat "$BATS_TEST_TMPDIR"/id[56] | sort -u | wc -l)" -eq 6 ]
}

@test "export and import, to another host" {
    web_with_disk s
    file=$BATS_TEST_TMPDIR/s.snapshot
    trapeze snapshot export --compress s "$file"
    fails "is there already" export s "$file"
    fails "give it a name of its own behind the file: there is a snapshot 's' already" import "$file"
    export TRAPEZE_ROOT=$BATS_TEST_TMPDIR/root2
    trapeze snapshot import "$file" other
    echoes other
    "$TRAPEZE" snapshot rm other
    [ -z "$(ls "$TRAPEZE_ROOT/layers")" ]
    # Cut and altered ones, at places all over the file.
    size=$(stat -c %s "$file")
    for i in 0 1 2; do
        at=$((size * (2 * i + 1) / 6))
        head -c "$at" "$file" >"$BATS_TEST_TMPDIR/cut"
        fails "before offset" import "$BATS_TEST_TMPDIR/cut"
        cp "$file" "$BATS_TEST_TMPDIR/altered"
        printf '\377\000\377' | dd of="$BATS_TEST_TMPDIR/altered" bs=1 seek="$at" conv=notrunc 2>/dev/null
        fails "before offset" import "$BATS_TEST_TMPDIR/altered"
    done
    [ "$(ls "$TRAPEZE_ROOT/snapshots")" = lock ]
    nothing_left
    export TRAPEZE_ROOT=$BATS_TEST_TMPDIR/root
}

@test "import says what is no snapshot" {
    echo "a letter" >"$BATS_TEST_TMPDIR/letter"
    fails "'$BATS_TEST_TMPDIR/letter': this is no snapshot: it does not begin as a file that 'trapeze snapshot export'" \
        import "$BATS_TEST_TMPDIR/letter"
    fails "'/etc/passwd': this is no snapshot" import /etc/passwd
    fails "'/dev/null' is no regular file" import /dev/null
    fails "'$BATS_TEST_TMPDIR' is a folder" import "$BATS_TEST_TMPDIR"
    mkfifo "$BATS_TEST_TMPDIR/pipe"
    fails "is no regular file: save the snapshot in a regular file first" import "$BATS_TEST_TMPDIR/pipe"
    nothing_left
}

@test "export replaces nothing: two at once, and files of others with names like its own" {
    file=$BATS_TEST_TMPDIR/s.snapshot
    guest e
    taken vm1 s
    echo precious >"$file.part"
    stands export-written export s "$file"
    trapeze snapshot export --compress s "$file"
    cp "$file" "$BATS_TEST_TMPDIR/first"
    kill -CONT "$STANDS"
    status=0
    wait "$STANDS" || status=$?
    [ "$status" -eq 4 ]
    grep "'$file' is there already: another program made it meanwhile" "$BATS_TEST_TMPDIR/stands"
    cmp "$file" "$BATS_TEST_TMPDIR/first"
    [ "$(cat "$file.part")" = precious ]
    [ "$(stat -c %a "$file")" = 600 ] # it has all of the guest's memory
    # Stopped by a signal: no part is left.
    stands export-written export s "$file.more"
    stopped_by TERM
    [ "$(cd "$BATS_TEST_TMPDIR" && echo s.snapshot*)" = "s.snapshot s.snapshot.part" ]
}

@test "a guest from a snapshot ends like any other: nothing follows, its disks stay" {
    web_with_disk s
    trapeze rm -f web
    trapeze snapshot restore -d s
    trapeze snapshot clone --name-prefix c s
    for name in web c-1; do
        overlay=$("$TRAPEZE" inspect "$name" | jq -r '.[0].machine.disks[0].path')
        trapeze kill "$name"
        run "$TRAPEZE" wait "$name"
        [ "$output" = 10 ]
        trapeze logs --messages "$name"
        [ -z "$output" ]
        [ -e "$overlay" ]
    done
}

@test "a guest from a snapshot can be started again, when the snapshot and what it was made of have gone" {
    cp "$ENDS" "$BATS_TEST_TMPDIR/kernel"
    truncate -s 1M "$BATS_TEST_TMPDIR/disk"
    run --separate-stderr "$TRAPEZE" run -d --name web -k "$BATS_TEST_TMPDIR/kernel" -a e -m 16M --net none \
        --disk "$BATS_TEST_TMPDIR/disk"
    [ "$status" -eq 0 ]
    taken web s
    trapeze rm -f web
    rm "$BATS_TEST_TMPDIR/kernel"
    trapeze snapshot restore -d s
    trapeze snapshot clone --name-prefix c s
    trapeze kill web c-1
    trapeze snapshot rm s
    for name in web c-1; do
        overlay=$("$TRAPEZE" inspect "$name" | jq -r '.[0].options.disk[0]')
        trapeze start "$name"
        [ -e "${overlay%%,*}" ]
        [ "$(timeout -k 5 60 "$TRAPEZE" attach "$name" <<<"hello, $name")" = "hello, $name" ]
        taken "$name" "of-$name" # it can be taken again
    done
    echoes of-web
    trapeze kill web
    rm "$TRAPEZE_ROOT"/guests/*/kernel
    refuses 4 "trapeze start: web: it came from elsewhere without its kernel: 'trapeze run' starts" "$TRAPEZE" start web
}

@test "what a restored guest cannot have a second time is said" {
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    run --separate-stderr "$TRAPEZE" run -d -k "$ENDS" -a e -m 16M --name web --net "user,hostfwd=tcp:127.0.0.1:$port-:1"
    [ "$status" -eq 0 ]
    taken web s
    fails "--name: 'web' is the name of a running guest" restore -d s
    fails "cannot listen at tcp:127.0.0.1:$port for port 1 of the guest, which another guest or program does" \
        restore -d --name other s
    trapeze snapshot clone s
    fails "--name-prefix: 's-1' is the name of a running guest" clone s
}

@test "damaged files are refused, with their names" {
    guest e
    taken vm1 s
    folder=$TRAPEZE_ROOT/snapshots/$output
    cp -r "$folder" "$BATS_TEST_TMPDIR/good"
    for file in state map kernel; do
        truncate -s 100 "$folder/$file"
        fails "$file" restore --name x s
        cp "$BATS_TEST_TMPDIR/good/$file" "$folder/$file"
    done
    truncate -s 4096 "$folder/memory"
    fails "the memory file ends at 4096" restore --name x s
    cp --sparse=always "$BATS_TEST_TMPDIR/good/memory" "$folder/memory"
    sed -i 's/"name": "s"/"name": "t"/' "$folder/manifest"
    fails "checksum is wrong, it was altered" rm s
    cp "$BATS_TEST_TMPDIR/good/manifest" "$folder/manifest"
    echoes s
}

@test "what a restored guest touches first is noted for the next one; a note that is none harms nothing" {
    guest e
    taken vm1 s
    set=$TRAPEZE_ROOT/snapshots/$output/working-set
    [ ! -e "$set" ]
    echoes s
    [ "$(head -c 8 "$set")" = TRZWSET1 ]
    [ "$(od -A n -t u4 -j 16 -N 4 "$set")" -gt 0 ]
    echoes s
    for note in /dev/null "$TRAPEZE" "$set"; do
        head -c 100000 "$note" | tr T S >"$BATS_TEST_TMPDIR/note"
        cp "$BATS_TEST_TMPDIR/note" "$set"
        echoes s
        [ "$(head -c 8 "$set")" = TRZWSET1 ]
    done
    "$TRAPEZE" snapshot rm s
    [ ! -e "$set" ]
}

@test "kill -9 at every step harms nothing that existed, and the next one cleans up" {
    web_with_disk base
    for step in begin overlays record asked taken written synced renamed; do
        run env TRAPEZE_DIE_AT=$step timeout -k 5 60 "$TRAPEZE" snapshot create web "at-$step"
        [ "$status" -eq 137 ]
        [ "$(state web)" = running ]
        run "$TRAPEZE" snapshot ls --format json
        [ "$(jq 'any(.name == "base")' <<<"$output")" = true ]
    done
    taken web after
    nothing_left
    for step in rm-begin rm-renamed rm-removed; do
        run env TRAPEZE_DIE_AT=$step "$TRAPEZE" snapshot rm after
        [ "$status" -eq 137 ]
        [ "$step" = rm-begin ] || taken web after
    done
    taken web child --parent after
    for step in begin written synced renamed; do
        run env TRAPEZE_DIE_AT=$step timeout -k 5 60 "$TRAPEZE" snapshot flatten child
        [ "$status" -eq 137 ]
        "$TRAPEZE" snapshot show child >/dev/null
        [ "$step" = renamed ] || [ "$("$TRAPEZE" snapshot show --format json child | jq -r .snapshot.parent)" != "" ]
    done
    for step in restore-disks; do
        run env TRAPEZE_DIE_AT=$step timeout -k 5 60 "$TRAPEZE" snapshot restore -d --name x base
        [ "$status" -eq 137 ]
    done
    echoes child
    echoes base
    nothing_left
}

@test "kill -9 at every step of clone, export and import" {
    file=$BATS_TEST_TMPDIR/s.snapshot
    web_with_disk s
    for step in restore-disks restored; do
        run env TRAPEZE_DIE_AT=$step timeout -k 5 60 "$TRAPEZE" snapshot clone --count 2 --name-prefix "$step" s
        [ "$status" -eq 137 ]
    done
    [ "$(state restored-1)" = running ] # it was up before the second one's turn
    trapeze rm -f restored-1
    run env TRAPEZE_DIE_AT=export-written timeout -k 5 60 "$TRAPEZE" snapshot export s "$file"
    [ "$status" -eq 137 ]
    [ ! -e "$file" ]
    trapeze snapshot export s "$file"
    for step in begin written synced renamed; do
        run env TRAPEZE_DIE_AT=$step timeout -k 5 60 "$TRAPEZE" snapshot import "$file" "at-$step"
        [ "$status" -eq 137 ]
    done
    echoes at-renamed
    "$TRAPEZE" snapshot rm at-renamed s 2>/dev/null
    trapeze snapshot ls --format json
    [ "$output" = "[]" ]
    nothing_left
    [ "$(state web)" = running ]
    trapeze rm -f web
    guest e --name other
    taken other last
    trapeze snapshot rm last
    [ -z "$(ls "$TRAPEZE_ROOT/layers")" ]
}

@test "while a create stands still, the host does all else; the same guest and the same name are refused" {
    web_with_disk
    guest e --name db
    taken db base
    for step in asked taken synced; do
        stands "$step" create web "slow-$step"
        trapeze ps
        guest i --name "during-$step"
        taken db "other-$step"
        taken db "child-$step" --parent "other-$step"
        fails "web: another process is taking a snapshot of it right now" create web more
        fails "another process is making a snapshot 'slow-$step' right now" create db "slow-$step"
        trapeze snapshot clone --name-prefix "c-$step" base
        trapeze snapshot flatten "child-$step"
        trapeze snapshot export "child-$step" "$BATS_TEST_TMPDIR/$step.snapshot"
        trapeze snapshot import "$BATS_TEST_TMPDIR/$step.snapshot" "in-$step"
        trapeze snapshot rm "other-$step" # sweeps layers, but for those that the create needs
        goes_on
        echoes "slow-$step"
    done
    stands taken create --parent slow-synced web late
    fails "another process is making the snapshot 'late' right now, which stands on it" rm slow-synced
    trapeze rename web shop
    goes_on
    echoes late
    trapeze kill shop
    trapeze start shop # with the disks that its record names
    nothing_left
}

@test "while an import, an export, a flatten or a clone stands still, others work, and what it needs stays" {
    file=$BATS_TEST_TMPDIR/s.snapshot
    web_with_disk one two
    stands export-written export one "$file"
    taken web three
    trapeze snapshot rm three
    goes_on
    stands written import "$file" in
    fails "another process is making a snapshot 'in' right now" import "$file" in
    taken web three
    trapeze snapshot rm three # sweeps layers
    goes_on
    echoes in
    stands written flatten two
    fails "'two': another process is flattening it right now" flatten two
    fails "two: another process is flattening it right now" rm two
    fails "snapshot 'two' stands on it" rm one
    echoes two
    goes_on
    trapeze snapshot rm one
    echoes two
    stands restored clone --count 2 --name-prefix c two # one runs, the second is not begun
    taken web four
    trapeze snapshot rm two
    kill -CONT "$STANDS"
    status=0
    wait "$STANDS" || status=$?
    [ "$status" -eq 4 ]
    grep "'two' was there a moment ago" "$BATS_TEST_TMPDIR/stands"
    [ "$(state c-1)" = running ]
    nothing_left
}

# breaks CALL N ARGUMENT...: the verb when its N-th such call fails with EIO; 1: it did not come that far.
breaks() {
    local call=$1 n=$2
    shift 2
    run timeout -k 5 60 strace -qq -o "$BATS_TEST_TMPDIR/trace" -e trace="$call" -e inject="$call:error=EIO:when=$n" \
        "$TRAPEZE" snapshot "$@"
    grep -q INJECTED "$BATS_TEST_TMPDIR/trace" || return 1
    echo "$call $n, trapeze snapshot $*: status $status; $output"
    [ "$status" -ne 0 ] && [[ $output == *"Input/output error"* ]] && return 0
    return 2
}

@test "a medium that fails at any sync or rename: an error, and nothing that existed is harmed" {
    command -v strace >/dev/null || skip "strace is not installed"
    file=$BATS_TEST_TMPDIR/s.snapshot
    guest e --name web
    taken web base
    taken web child --parent base
    trapeze snapshot export base "$file"
    for n in 1 2 3 4 5 6 7 8; do # the seventh of create is the last: of the folder, after the rename
        for verb in "create web new" "import $file new" "flatten child"; do
            came=0
            # shellcheck disable=SC2086
            breaks fsync "$n" $verb || came=$?
            [ "$came" -le 1 ]
            trapeze snapshot ls --format json
            if [ "$(jq -c 'map(.name) | sort' <<<"$output")" != '["base","child"]' ]; then
                [ "$came" -eq 1 ] # what failed is not there
                "$TRAPEZE" snapshot rm new
            fi
        done
    done
    breaks renameat2 1 create web new
    breaks renameat2 1 import "$file" new
    breaks renameat2 1 export base "$file.more"
    [ ! -e "$file.more" ]
    nothing_left
    [ "$(state web)" = running ]
    echoes child
    echoes base
}

@test "a full disk: the snapshot fails, the guest and older ones do not" {
    [ "$(id -u)" -eq 0 ] || skip "only root can mount a small file system"
    mkdir -p "$TRAPEZE_ROOT/snapshots"
    mount -t tmpfs -o size=700k none "$TRAPEZE_ROOT/snapshots" || skip "no file system can be mounted here"
    guest e --name web
    taken web small
    while :; do
        run --separate-stderr timeout -k 5 60 "$TRAPEZE" snapshot create web "s$((++n))"
        [ "$status" -eq 0 ] || break
        [ "$n" -lt 100 ]
    done
    echo "$stderr"
    [[ $stderr == *"No space left"* ]]
    fails "/snapshots/whole was not made: " export small "$TRAPEZE_ROOT/snapshots/whole"
    [ -z "$(find "$TRAPEZE_ROOT/snapshots" -name 'whole*')" ]
    [ "$(state web)" = running ]
    nothing_left
    echoes small
    umount -l "$TRAPEZE_ROOT/snapshots"
}

@test "a create that is stopped takes what it has begun with it, and the guest runs on" {
    web_with_disk
    for step in begin overlays record asked taken written synced; do
        for signal in INT TERM; do
            stands "$step" create web never
            stopped_by "$signal"
            nothing_left
            [ "$(state web)" = running ]
            # It may have been quicker than its end; then it is whole.
            if [ "$("$TRAPEZE" snapshot ls --format json)" != "[]" ]; then
                echoes never
                trapeze snapshot rm never
            fi
        done
    done
    taken web after
    echoes after
}

@test "a flatten and an import that are stopped take what they have begun with them" {
    file=$BATS_TEST_TMPDIR/s.snapshot
    web_with_disk one two
    trapeze snapshot export one "$file"
    layers=$(ls "$TRAPEZE_ROOT/layers")
    for verb in "flatten two" "import $file in"; do
        # shellcheck disable=SC2086
        stands begin $verb
        stopped_by TERM
        nothing_left
    done
    [ "$(ls "$TRAPEZE_ROOT/layers")" = "$layers" ]
    echoes two
}
