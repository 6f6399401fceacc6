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
    timeout 10 sh -c 'until [ -e "$0" ]; do sleep 0.02; done' "$BUNDLE/rootfs/tmp/ready"
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
    timeout 10 sh -c 'until [ "$(cat "$0" 2>/dev/null)" -gt 3 ] 2>/dev/null; do sleep 0.02; done' "$count"
    oci --criu "$criu" checkpoint --leave-running --image-path "$WORK/one" --work-path "$WORK/log" "$ID"
    [ "$(status_of)" = running ]
    oci --criu "$criu" checkpoint --image-path "$WORK/two" --work-path "$WORK/log" "$ID"
    fails 'container does not exist' oci state "$ID"
    before=$(cat "$count")
    oci --criu "$criu" restore -d --image-path "$WORK/two" --work-path "$WORK/log" --pid-file "$WORK/pid" -b "$BUNDLE" "$ID" </dev/null
    [ "$(status_of)" = running ]
    timeout 10 sh -c 'until [ "$(cat "$0")" -gt "$1" ] 2>/dev/null; do sleep 0.02; done' "$count" "$before"
    run oci exec "$ID" sh -c 'ps | grep -c "[w]hile"'
    [ "$output" -ge 1 ]
}
