# One case or more per verb: what it prints, how it ends, what it leaves.
load oci.bash

setup() { oci_setup; }
teardown() { oci_teardown; }

@test "run gives the program's output and its exit status" {
    args sh -c 'echo hello; exit 7'
    runs 7 hello
    args sh -c 'kill -TERM $$; kill -KILL $$'
    config 'del(.linux.namespaces[] | select(.type == "pid"))'
    runs 143 ''
}

@test "run --keep leaves a stopped container, and delete removes it" {
    args true
    runs 0 '' --keep
    [ "$(status_of)" = stopped ]
    oci delete "$ID"
    fails 'container does not exist' oci state "$ID"
}

@test "run -d writes the pid file and comes back" {
    args sleep 1000
    oci run -d --pid-file "$WORK/pid" -b "$BUNDLE" "$ID" </dev/null >/dev/null
    [ "$(cat "$WORK/pid")" = "$(oci state "$ID" | jq .pid)" ]
    [ "$(status_of)" = running ]
}

@test "create, start, kill, delete" {
    args sh -c 'echo started >/tmp/it; sleep 1000'
    config '.root.readonly = false'
    oci create -b "$BUNDLE" "$ID" </dev/null >/dev/null
    [ "$(status_of)" = created ]
    [ ! -e "$BUNDLE/rootfs/tmp/it" ]
    oci start "$ID"
    fails 'cannot start an already running container' oci start "$ID"
    [ "$(status_of)" = running ]
    fails "cannot delete container $ID that is not stopped: running" oci delete "$ID"
    oci kill "$ID" KILL
    until_stopped
    [ "$(status_of)" = stopped ]
    [ "$(cat "$BUNDLE/rootfs/tmp/it")" = started ]
    fails 'container not running' oci kill "$ID" 9
    fails 'cannot start a container that has stopped' oci start "$ID"
    oci delete "$ID"
}

@test "a container without a process can be created, not started" {
    config 'del(.process)'
    oci create -b "$BUNDLE" "$ID" </dev/null >/dev/null 2>&1
    fails 'process property must not be empty' oci start "$ID"
    [ "$(status_of)" = created ]
    oci delete "$ID"
    fails 'process property must not be empty' oci run -b "$BUNDLE" "$ID"
}

@test "a created container can be deleted, and ends on a signal" {
    args true
    oci create -b "$BUNDLE" "$ID" </dev/null >/dev/null
    oci kill "$ID" TERM
    until_stopped
    oci delete "$ID"
    oci create -b "$BUNDLE" "$ID" </dev/null >/dev/null
    oci delete "$ID"
}

@test "state prints what the specification asks for" {
    config '.annotations = {"a.b": "c"}'
    start_sleeper
    oci state "$ID" | jq -e --arg id "$ID" --arg b "$BUNDLE" \
        '.ociVersion == "1.3.0" and .id == $id and .status == "running" and .pid > 1 and .bundle == $b
         and .annotations["a.b"] == "c" and .rootfs == $b + "/rootfs"'
}

@test "kill takes names and numbers, and refuses nonsense" {
    args sh -c 'trap "exit 3" USR1; echo ready >/tmp/ready; while :; do sleep 0.01; done'
    config '.root.readonly = false'
    oci run -d -b "$BUNDLE" "$ID" </dev/null >/dev/null
    fails 'unknown signal' oci kill "$ID" NONE
    timeout 60 sh -c 'until [ -e "$0" ]; do sleep 0.02; done' "$BUNDLE/rootfs/tmp/ready"
    oci kill "$ID" SIGUSR1
    until_stopped
}

@test "exec runs in the container and gives its status" {
    start_sleeper
    run oci exec "$ID" sh -c 'echo in $(hostname); exit 5'
    [ "$status" -eq 5 ]
    [ "$output" = 'in trapeze' ]
    run oci exec -e A=b --cwd /tmp "$ID" sh -c 'echo $A $(pwd)'
    [ "$output" = 'b /tmp' ]
    run oci exec -u 5:6 -g 7 "$ID" id
    echo "$output"
    [[ $output == 'uid=5 gid=6 groups='*7* ]]
    run oci exec "$ID" nothing-here
    [ "$status" -eq 255 ]
    [[ $output == *'executable file not found in $PATH'* ]]
    run oci exec "$ID" sh -c 'kill -9 $$'
    [ "$status" -eq 137 ]
}

@test "exec --process and --detach, as engines call it" {
    start_sleeper
    jq '.process | .args = ["sh", "-c", "sleep 1000"] | .user.uid = 9' "$BUNDLE/config.json" >"$WORK/process.json"
    oci exec --process "$WORK/process.json" --detach --pid-file "$WORK/pid" "$ID" </dev/null >/dev/null
    [ "$(stat -c %u "/proc/$(cat "$WORK/pid")")" = 9 ]
    oci ps -f json "$ID" | jq -e --argjson pid "$(cat "$WORK/pid")" 'index($pid)'
}

@test "exec refuses what is not running" {
    fails 'exec failed: container does not exist' oci exec "$ID" true
    start_sleeper
    oci pause "$ID"
    fails 'cannot exec in a paused container (use --ignore-paused to override)' oci exec "$ID" true
    oci resume "$ID"
    oci kill "$ID" KILL
    until_stopped
    fails 'cannot exec in a stopped container' oci exec "$ID" true
}

@test "pause and resume" {
    start_sleeper
    oci pause "$ID"
    [ "$(status_of)" = paused ]
    fails 'container not running' oci pause "$ID"
    oci resume "$ID"
    [ "$(status_of)" = running ]
    fails 'container not paused' oci resume "$ID"
    oci pause "$ID"
    oci kill "$ID" KILL
    until_stopped
}

@test "list knows its own and leaves others alone" {
    mkdir -p "$ROOT/other-runtime"
    echo '{}' >"$ROOT/other-runtime/state.json"
    [ "$(oci list -f json)" = null ]
    start_sleeper
    [ "$(oci list -q)" = "$ID" ]
    oci list | grep -q "^$ID *[0-9]* *running"
    oci list -f json | jq -e --arg id "$ID" 'length == 1 and .[0].id == $id and .[0].owner == "root"'
    fails 'container with given ID already exists' oci run -b "$BUNDLE" other-runtime
    oci delete --force other-runtime
    [ -e "$ROOT/other-runtime/state.json" ]
    rm -r "$ROOT/other-runtime"
}

@test "ps lists processes as a table and as JSON" {
    start_sleeper
    oci ps "$ID" | grep -q 'sleep 1000'
    oci ps "$ID" -o pid,comm | grep -q sleep
    oci ps --format json "$ID" | jq -e 'length == 1'
}

@test "events --stats counts" {
    start_sleeper
    oci events --stats "$ID" | jq -e '.type == "stats" and .data.pids.current == 1 and .data.memory.usage.usage > 0'
}

@test "update by options, by file and by standard input" {
    [ -d /sys/fs/cgroup/memory ] || skip "no v1 memory hierarchy here"
    start_sleeper
    oci update --memory 64m --pids-limit 30 --cpu-share 200 --cpu-quota 20000 --cpu-period 100000 "$ID"
    [ "$(v1 memory memory.limit_in_bytes)" = 67108864 ]
    [ "$(v1 pids pids.max)" = 30 ]
    [ "$(v1 cpu cpu.shares)" = 200 ]
    [ "$(v1 cpu cpu.cfs_quota_us)" = 20000 ]
    echo '{"memory": {"limit": 33554432}, "cpu": {"burst": 1000}}' | oci update -r - "$ID"
    [ "$(v1 memory memory.limit_in_bytes)" = 33554432 ]
    [ "$(v1 cpu cpu.cfs_burst_us)" = 1000 ]
    oci update --cpu-idle 1 "$ID"
    [ "$(v1 cpu cpu.idle)" = 1 ]
    fails 'invalid value for memory' oci update --memory lots "$ID"
}

@test "spec writes a configuration that runs, and never over another" {
    rm "$BUNDLE/config.json"
    (cd "$BUNDLE" && "$OCI" spec)
    jq -e '.ociVersion and .process.args == ["sh"]' "$BUNDLE/config.json"
    fails 'File config.json exists. Remove it first' "$OCI" spec -b "$BUNDLE"
}

@test "features is valid JSON with the specification's members" {
    "$OCI" features | jq -e '.ociVersionMin and .ociVersionMax == "1.3.0" and (.hooks | length == 6)
        and (.mountOptions | index("rro")) and (.linux.namespaces | index("time")) and .linux.seccomp.enabled
        and .linux.netDevices.enabled and .linux.mountExtensions.idmap.enabled'
}

@test "checkpoint without a working criu says what is missing" {
    start_sleeper
    fails 'checkpoint and restore need CRIU' oci --criu "$WORK/no-criu" checkpoint "$ID"
    [ "$(status_of)" = running ]
    "$OCI" checkpoint --help | grep -q -- --image-path
    "$OCI" restore --help | grep -q -- --image-path
}

@test "delete --force is quiet about what is not there, delete is not" {
    fails 'container does not exist' oci delete "$ID"
    run oci delete --force "$ID"
    [ "$status" -eq 0 ]
    [ -z "$output" ]
}

@test "checkpoint and restore with a criu that works here (TRAPEZE_CRIU names one)" {
    criu=${TRAPEZE_CRIU:-criu}
    "$criu" check >/dev/null 2>&1 || skip "no criu that works on this kernel"
    args sh -c 'i=0; while :; do i=$((i + 1)); echo $i >/tmp/count; sleep 0.02; done'
    config '.root.readonly = false'
    oci run -d -b "$BUNDLE" "$ID" </dev/null >/dev/null 2>&1
    count="$BUNDLE/rootfs/tmp/count"
    timeout 60 sh -c 'until [ "$(cat "$0" 2>/dev/null)" -gt 3 ] 2>/dev/null; do sleep 0.02; done' "$count"
    oci --criu "$criu" checkpoint --leave-running --image-path "$WORK/one" --work-path "$WORK/log" "$ID"
    [ "$(status_of)" = running ]
    oci --criu "$criu" checkpoint --image-path "$WORK/two" --work-path "$WORK/log" "$ID"
    fails 'container does not exist' oci state "$ID"
    before=$(cat "$count")
    oci --criu "$criu" restore -d --image-path "$WORK/two" --work-path "$WORK/log" --pid-file "$WORK/pid" -b "$BUNDLE" "$ID" </dev/null
    [ "$(status_of)" = running ]
    timeout 60 sh -c 'until [ "$(cat "$0")" -gt "$1" ] 2>/dev/null; do sleep 0.02; done' "$count" "$before"
    run oci exec "$ID" sh -c 'ps | grep -c "[w]hile"'
    [ "$output" -ge 1 ]
}

# A program that answers as `criu swrk` does, for what no CRIU can do on most kernels. It writes down what it was
# asked: "TYPE field=value ...". $WORK/refuse holds what it lacks.
fake_criu() {
    cat >"$WORK/criu" <<END
#!/usr/bin/python3
import os, socket, subprocess, sys
WORK = '$WORK'
END
    cat >>"$WORK/criu" <<'END'
def varint(b, i):
    n = s = 0
    while True:
        n |= (b[i] & 127) << s; s += 7; i += 1
        if b[i - 1] < 128: return n, i
def fields(b):
    i = 0
    while i < len(b):
        key, i = varint(b, i)
        v, i = varint(b, i)
        if key & 7 == 2: v, i = b[i:i + v], i + v
        yield key >> 3, v
def number(field, n):
    out = bytes([field << 3]) if field < 16 else bytes([(field << 3 & 127) | 128, field >> 4])
    while n > 127: out += bytes([n & 127 | 128]); n >>= 7
    return out + bytes([n])
def message(field, b): return bytes([field << 3 | 2, len(b)]) + b
def text(b): return b.decode('latin1').replace('\n', '.') if isinstance(b, bytes) else b
assert sys.argv[1] == 'swrk'
s = socket.socket(fileno=int(sys.argv[2]))
req = list(fields(s.recv(1 << 20)))
kind, opts = dict(req)[1], list(fields(dict(req).get(2, b'')))
lacks = open(WORK + '/refuse').read() if os.path.exists(WORK + '/refuse') else ''
answer = number(1, kind) + number(2, 1)
if kind == 10: answer += message(10, number(1, 4) + number(2, 2) + number(4, 1))
if kind == 9:
    for f, _ in fields(dict(req)[5]): answer += message(8, number(f, f'feature{f}' not in lacks))
if kind in (1, 2, 13):
    with open(WORK + '/asked', 'a') as f: print(kind, *[f'{a}={text(b)}' for a, b in opts], file=f)
    if 'vdso' in lacks:
        fd = dict(opts)[17]
        with open(f'/proc/{os.getppid()}/fd/{fd}/dump.log', 'w') as f: print('(00.1) Error (criu/vdso.c:1): vdso: Unexpected rt vDSO area bounds', file=f)
        answer = number(1, kind) + number(2, 0)
    # "post-dump", a question on the way
    s.send(number(1, 6) + number(2, 1) + message(5, message(1, b'post-dump')))
    assert dict(fields(s.recv(100))) == {1: 6, 3: 1}
if kind == 1 and 'vdso' not in lacks and dict(opts).get(3) != 1: os.kill(dict(opts)[2], 9)
if kind == 2:
    # CRIU's CLONE_PARENT: the process becomes our parent's child.
    import ctypes
    pid = ctypes.CDLL(None).syscall(56, 0x8000 | 17, 0, 0, 0, 0)
    if pid == 0: os.execlp('sleep', 'sleep', '1000')
    answer += message(4, number(1, pid))
s.send(answer)
END
    chmod +x "$WORK/criu"
}

@test "criu's service is asked for what the options say: dump, pre-dump, parents, lazy pages, page server, restore" {
    fake_criu
    local criu=(--criu "$WORK/criu") images=(--image-path "$WORK/img" --work-path "$WORK/log")
    start_sleeper
    pid=$(oci state "$ID" | jq .pid)
    oci "${criu[@]}" checkpoint "${images[@]}" --pre-dump "$ID"
    [ "$(status_of)" = running ]
    grep -qE "^13 .*\b2=$pid .*\b3=1 15=1" "$WORK/asked"
    oci "${criu[@]}" checkpoint "${images[@]}" --leave-running --parent-path ../pre --tcp-established --file-locks --ext-unix-sk \
        --shell-job --link-remap --manage-cgroups-mode strict --empty-ns network "$ID"
    tail -n 1 "$WORK/asked" | grep -qE '^1 .*\b34=5 38=1073741824 5=1 4=1 7=1 8=1 18=1 .*14=../pre'
    echo feature1 >"$WORK/refuse"
    fails 'needs dirty page tracking' oci "${criu[@]}" checkpoint "${images[@]}" --pre-dump "$ID"
    echo feature2 >"$WORK/refuse"
    fails 'needs userfaultfd' oci "${criu[@]}" checkpoint "${images[@]}" --lazy-pages "$ID"
    echo vdso >"$WORK/refuse"
    fails 'too old for this kernel' oci "${criu[@]}" checkpoint "${images[@]}" "$ID"
    [ "$(status_of)" = running ]
    rm "$WORK/refuse"
    fails 'is no ADDRESS:PORT' oci "${criu[@]}" checkpoint "${images[@]}" --page-server nowhere "$ID"
    oci "${criu[@]}" checkpoint "${images[@]}" --lazy-pages --page-server 10.0.0.1:777 --status-fd 2 "$ID"
    tail -n 1 "$WORK/asked" | grep -qE '\b48=1 .*49=2 '
    tail -n 1 "$WORK/asked" | grep -qF '10.0.0.1'
    fails 'container does not exist' oci state "$ID"
    fails 'inventory.img of a checkpoint' oci "${criu[@]}" restore -d "${images[@]}" -b "$BUNDLE" "$ID"
    touch "$WORK/img/inventory.img"
    oci "${criu[@]}" restore -d "${images[@]}" --lazy-pages --pid-file "$WORK/pid" -b "$BUNDLE" "$ID" </dev/null
    [ "$(status_of)" = running ]
    [ "$(cat /proc/"$(cat "$WORK/pid")"/comm)" = sleep ]
    tail -n 1 "$WORK/asked" | grep -qE '^2 .*\b26=1 '
    oci kill "$ID" KILL
    printf '#!/bin/sh\nexit 1\n' >"$WORK/criu"
    fails 'cannot be run as a service' oci "${criu[@]}" restore "${images[@]}" -b "$BUNDLE" "$ID-b"
}
