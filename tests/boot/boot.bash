# What the boot tests share: a kernel, its root file system, and machines judged by what they print.
#
# They skip with a reason where no accelerator works or the kernel cannot be fetched. $TRAPEZE_ACCEL picks the
# accelerator, $TRAPEZE_BOOT_LIMIT the seconds that a boot may take (120).

bats_require_minimum_version 1.5.0
ROOT=$BATS_TEST_DIRNAME/../..
: "${TRAPEZE_BUILD:=$ROOT/build}" "${TRAPEZE:=$TRAPEZE_BUILD/src/cmd/trapeze}"

# bats 1.8 knows no skip in setup_file: what is found there is kept for each test.
setup() {
    if [ -n "${SKIP:-}" ]; then
        skip "$SKIP"
    fi
}

# without WHY: the tests of this file are skipped. Fails, so that setup_file can end with `|| return 0`.
without() {
    export SKIP=$1
    return 1
}

# nightly WHY: the file's tests run only with TRAPEZE_NIGHTLY=1.
nightly() {
    [ -n "${TRAPEZE_NIGHTLY:-}" ] || without "$1; TRAPEZE_NIGHTLY=1 runs it"
}

# fetch FLAVOUR: kernel and root file system for a file of tests.
fetch() {
    run "$TRAPEZE" accel
    if [ "$status" -eq 4 ]; then
        without "${lines[-1]}" || return 1
    fi
    KERNEL=$("$ROOT/tools/fetch-kernel.sh" "$1" 2>"$BATS_FILE_TMPDIR/fetch") ||
        without "$(tail -n 1 "$BATS_FILE_TMPDIR/fetch")" || return 1
    INITRD=$BATS_FILE_TMPDIR/rootfs
    "$ROOT/tools/make-rootfs.sh" "$KERNEL" "$TRAPEZE_BUILD" "$INITRD"
    export KERNEL INITRD
}

# debian_image: a disk with Debian in it (debian.sh), for a file of tests. $TRAPEZE_DEBIAN names one that was made before.
debian_image() {
    IMAGE=${TRAPEZE_DEBIAN:-$BATS_FILE_TMPDIR/debian.img}
    export IMAGE
    if [ -f "$IMAGE" ]; then
        return 0
    fi
    [ "$(id -u)" = 0 ] || without "only root can make a root file system" || return 1
    command -v mmdebstrap >/dev/null || without "mmdebstrap is missing" || return 1
    "$ROOT/tests/boot/debian.sh" "$KERNEL" "$IMAGE" >"$BATS_FILE_TMPDIR/made" 2>&1 ||
        without "Debian cannot be fetched: $(tail -n 1 "$BATS_FILE_TMPDIR/made")"
}

# boot STATUS CPUS APPEND [ARGUMENT...]: runs a machine to its end; $output is what it printed.
boot() {
    local want=$1 cpus=$2 append=$3
    shift 3
    truncate -s 32M "$BATS_TEST_TMPDIR/disk"
    run timeout -s HUP -k 5 "${TRAPEZE_BOOT_LIMIT:-120}" "$TRAPEZE" run --accel "${TRAPEZE_ACCEL:-auto}" \
        --kernel "$KERNEL/vmlinuz" --initrd "$INITRD" --append "console=ttyS0 panic=-1 $append" --memory 512M \
        --cpus "$cpus" --disk "$BATS_TEST_TMPDIR/disk" --debug-exit 0xf4 "$@" </dev/null
    echo "status $status"
    echo "$output" | tail -n 60
    [ "$status" -eq "$want" ]
}

# passes CPUS APPEND [ARGUMENT...]: boots, and the guest finds all that it should.
passes() {
    local cpus=$1 append=$2
    shift 2
    boot 0 "$cpus" "quiet trapeze.check trapeze.cpus=$cpus trapeze.memory=512 $append" "$@"
    [[ $output == *"self-check: all passed"* ]]
}

# moves CASE [SECONDS]: a case of moving.py. The longest gaps that its client saw go to descriptor 3, where people see them.
moves() {
    run env TRAPEZE="$TRAPEZE" TRAPEZE_DEBIAN="${IMAGE:-}" timeout -k 5 "${2:-500}" python3 "$BATS_TEST_DIRNAME/moving.py" "$1"
    echo "$output"
    if [ "$status" -eq 77 ]; then
        skip "$output"
    fi
    echo "$output" | sed -n 's/^# \(.*longest gaps.*\)/#   \1/p' >&3
    [ "$status" -eq 0 ]
}
