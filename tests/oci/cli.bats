# The command line itself: options as Go reads them, wording, log lines, exit statuses.
load oci.bash

setup() { oci_setup; }
teardown() { oci_teardown; }

@test "long options with one dash, values behind an equals sign" {
    args true
    run "$OCI" -root="$ROOT" run -bundle "$BUNDLE" -keep=false -no-subreaper "$ID"
    [ "$status" -eq 0 ]
    run "$OCI" --root "$ROOT" list --format=json
    [ "$output" = null ]
}

@test "unknown options and verbs, missing arguments" {
    fails 'flag provided but not defined: -bogus' "$OCI" --bogus list
    fails 'flag provided but not defined: -bogus' "$OCI" list --bogus
    fails 'flag needs an argument: -root' "$OCI" --root
    fails 'requires exactly 1 argument(s)' "$OCI" state
    fails 'requires exactly 1 argument(s)' "$OCI" run a b
    run "$OCI" bogus
    [ "$status" -eq 3 ]
}

@test "help and version" {
    "$OCI" --help | grep -q checkpoint
    "$OCI" run --help | grep -q -- --preserve-fds
    "$OCI" --version | grep -q '^trapeze-oci version'
    "$OCI" --version | grep -q '^spec: 1.3.0'
}

@test "container ids" {
    for id in a/b ../x 'x y' . ..; do
        fails 'invalid container ID format' oci run -b "$BUNDLE" "$id"
    done
    fails 'container id cannot be empty' oci run -b "$BUNDLE" ''
    fails 'invalid container ID format' oci state ../../etc
}

@test "errors are one JSON line in the log and text on standard error" {
    fails 'container does not exist' "$OCI" --root "$ROOT" --log "$WORK/log" --log-format json state nobody
    jq -e '.level == "error" and .msg == "container does not exist" and (.time | length == 20)' "$WORK/log"
    run "$OCI" --root "$ROOT" state nobody
    [[ $output == 'time="'*'level=error msg="container does not exist"' ]]
    fails 'invalid log-format' "$OCI" --log-format xml list
}

@test "a program that is not there, or may not be executed" {
    args nothing-here
    runs 1 'executable file not found in $PATH'
    args /no/where
    runs 1 'stat /no/where: No such file or directory'
    touch "$BUNDLE/rootfs/plain"
    args /plain
    runs 1 'permission denied'
}

@test "a bundle that is not there, or holds nonsense" {
    fails 'chdir /no/where' oci run -b /no/where "$ID"
    mkdir "$WORK/empty"
    fails 'JSON specification file config.json not found' oci run -b "$WORK/empty" "$ID"
    echo '{"ociVersion": "1.0.0", ' >"$WORK/empty/config.json"
    fails 'invalid JSON' oci run -b "$WORK/empty" "$ID"
    echo '[]' >"$WORK/empty/config.json"
    fails 'does not hold an object' oci run -b "$WORK/empty" "$ID"
}

@test "versions: any 1.x is taken, the rest is refused; unknown members are ignored" {
    args true
    config '.ociVersion = "1.99.0-dev" | .somethingNew = {"a": 1} | .linux.alsoNew = [1]'
    runs 0 ''
    for version in banana 2.0.0 1 ''; do
        config '.ociVersion = $v' --arg v "$version"
        runs 1 'ociVersion'
    done
}

@test "descriptors: none leak in, those asked for do" {
    args sh -c 'ls /proc/self/fd | wc -l; cat <&3; cat <&4'
    # bats has a descriptor 3 of its own; another shell lends 3, 4 and, unasked, 9.
    run bash -c '"$@" 3<<<three 4<<<four 9</' - "$OCI" --root "$ROOT" run --preserve-fds 2 -b "$BUNDLE" "$ID"
    echo "$output"
    [ "${lines[1]}" = three ]
    [ "${lines[2]}" = four ]
    # 0 1 2 3 4 and the directory that ls itself reads.
    [ "${lines[0]}" = 6 ]
    fails 'unable to preserve fd' oci run --preserve-fds 50 -b "$BUNDLE" "$ID"
}

@test "a terminal for run, and sockets that get one" {
    args sh -c 'test -t 0 && test -t 1 && tty && stty size'
    config '.process.terminal = true | .process.consoleSize = {"height": 31, "width": 77}'
    run script -qec "'$OCI' --root '$ROOT' run -b '$BUNDLE' $ID" /dev/null </dev/null
    echo "$output"
    [ "$status" -eq 0 ]
    [[ $output == *'/dev/console'* || $output == *'/dev/pts/0'* ]]
    fails 'cannot allocate tty if runc will detach without setting console socket' oci create -b "$BUNDLE" "$ID"
    config '.process.terminal = false'
    fails 'cannot use console socket if runc will not detach or allocate tty' \
        oci create --console-socket /tmp/x -b "$BUNDLE" "$ID"
}
