# The configuration, subject by subject (OCI runtime specification 1.3): it says so, the container shows it.
load oci.bash

setup() { oci_setup; }
teardown() { oci_teardown; }

@test "namespaces: new ones, the host's, and one joined by path" {
    args sh -c 'for n in net uts ipc pid mnt cgroup; do readlink /proc/self/ns/$n; done'
    config '.linux.namespaces |= map(select(.type != "network"))'
    run oci run -b "$BUNDLE" "$ID"
    [ "${lines[0]}" = "$(readlink /proc/self/ns/net)" ]
    [ "${lines[1]}" != "$(readlink /proc/self/ns/uts)" ]
    [ "${lines[4]}" != "$(readlink /proc/self/ns/mnt)" ]
    config '.linux.namespaces += [{"type": "network"}]'
    start_sleeper
    pid=$(oci state "$ID" | jq .pid)
    args sh -c 'for n in net pid; do readlink /proc/self/ns/$n; done'
    config '.linux.namespaces |= map(if .type == "network" then .path = "/proc/\($p)/ns/net"
        elif .type == "pid" then .path = "/proc/\($p)/ns/pid" else . end)' --arg p "$pid"
    run oci run -b "$BUNDLE" "$ID-b"
    [ "${lines[0]}" = "$(readlink "/proc/$pid/ns/net")" ]
    [ "${lines[1]}" = "$(readlink "/proc/$pid/ns/pid")" ]
}

@test "the host's mount namespace, or another's: mounts go to the root's own place, and away with the container" {
    config '.linux.namespaces |= map(select(.type != "mount"))'
    mounts() { grep -cF "$WORK" /proc/self/mountinfo || true; } # others mount, too
    start_sleeper
    [ "$(readlink "/proc/$(oci state "$ID" | jq .pid)/ns/mnt")" = "$(readlink /proc/self/ns/mnt)" ]
    [ "$(oci exec "$ID" ls /)" = "$(ls "$BUNDLE/rootfs")" ]
    [ "$(oci exec "$ID" sh -c 'head -c 1 /proc/kcore | wc -c')" = 0 ]
    grep -qF " $BUNDLE/rootfs/proc " /proc/self/mountinfo
    oci delete --force "$ID"
    [ "$(mounts)" = 0 ]
    # What the engine has mounted there is not ours to take away, even when we fail half way.
    mount --bind "$BUNDLE/rootfs" "$BUNDLE/rootfs"
    args true
    runs 0 ''
    config '.mounts += [{"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=many"]}]'
    runs 1 'Bad value'
    [ "$(mounts)" = 1 ]
    umount "$BUNDLE/rootfs"
    config 'del(.mounts[-1]) | .linux.namespaces += [{"type": "mount", "path": $p}]' --arg p "/proc/self/ns/mnt"
    unshare -m sleep 1000 3>&- &
    timeout 60 sh -c 'until [ "$(readlink /proc/"$0"/ns/mnt)" != "$(readlink /proc/self/ns/mnt)" ]; do sleep 0.02; done' $!
    config '.linux.namespaces[-1].path = $p' --arg p "/proc/$!/ns/mnt"
    args readlink /proc/self/ns/mnt
    runs 0 "$(readlink "/proc/$!/ns/mnt")"
    kill $!
    [ "$(mounts)" = 0 ]
    config '.linux.namespaces |= map(select(.type != "mount")) + [{"type": "user"}] | .linux.uidMappings = [{"containerID": 0, "hostID": 100000, "size": 1000}]
        | .linux.gidMappings = .linux.uidMappings'
    runs 1 'a new user namespace needs a new mount namespace'
}

@test "rootfsPropagation: shared, slave, private, unbindable" {
    args sh -c 'grep " / / \| / rw\| / ro" /proc/self/mountinfo | head -n 1'
    for kind in shared slave private unbindable; do
        config '.linux.rootfsPropagation = $k' --arg k $kind
        run oci run -b "$BUNDLE" "$ID"
        echo "$kind: $output"
        [ "$status" -eq 0 ]
        case $kind in
        shared) [[ $output == *shared:* ]] ;;
        unbindable) [[ $output == *unbindable* ]] ;;
        *) [[ $output != *shared:* && $output != *unbindable* ]] ;;
        esac
    done
}

@test "time namespace with offsets" {
    [ -e /proc/self/ns/time ] || skip "no time namespaces here"
    config '.linux.namespaces += [{"type": "time"}] | .linux.timeOffsets = {"boottime": {"secs": 1000000000}}'
    args sh -c 'cut -d. -f1 /proc/uptime'
    run oci run -b "$BUNDLE" "$ID"
    [ "$output" -gt 1000000000 ]
}

@test "user namespace with mappings, alone and joined" {
    config '.linux.namespaces += [{"type": "user"}] | .root.readonly = false
        | .linux.uidMappings = [{"containerID": 0, "hostID": 100000, "size": 1000}] | .linux.gidMappings = .linux.uidMappings'
    args sh -c 'id -u; tr -s " " </proc/self/uid_map; echo x >/dev/null && echo device'
    chown 100000:100000 "$BUNDLE/rootfs/tmp"
    runs 0 $'0\n 0 100000 1000\ndevice'
    start_sleeper
    pid=$(oci state "$ID" | jq .pid)
    [ "$(stat -c %u "/proc/$pid")" = 100000 ]
    run oci exec "$ID" sh -c 'id -u; cat /proc/self/uid_map'
    [[ $output == 0*100000* ]]
    config 'del(.linux.uidMappings, .linux.gidMappings) | .linux.namespaces |= map(if .type == "user" then
        .path = "/proc/\($p)/ns/user" else . end)' --arg p "$pid"
    args readlink /proc/self/ns/user
    run oci run -b "$BUNDLE" "$ID-b"
    [ "$output" = "$(readlink "/proc/$pid/ns/user")" ]
}

@test "rootless: a normal user's container" {
    id nobody >/dev/null && command -v su >/dev/null || skip "no user nobody"
    chmod 755 "$BATS_RUN_TMPDIR" "$BATS_RUN_TMPDIR"/test "$WORK" "$BUNDLE" 2>/dev/null || true
    rm "$BUNDLE/config.json"
    chown nobody "$BUNDLE"
    mkdir "$WORK/run" && chown nobody "$WORK/run"
    su -s /bin/sh nobody -c "test -r '$BUNDLE/rootfs/bin/busybox'" || skip "the test's folder is closed to others"
    su -s /bin/sh nobody -c "'$OCI' spec --rootless -b '$BUNDLE'"
    config '.process.terminal = false'
    args sh -c 'id -u; cat /proc/self/uid_map'
    chmod 644 "$BUNDLE/config.json"
    run su -s /bin/sh nobody -c "XDG_RUNTIME_DIR='$WORK/run' '$OCI' run -b '$BUNDLE' $ID"
    echo "$output"
    [ "$status" -eq 0 ]
    [[ $output == *0*$(id -u nobody)*1 ]]
}

@test "mounts: options, binds of files and directories, propagation, tmpcopyup" {
    mkdir "$WORK/src" "$BUNDLE/rootfs/data"
    echo one >"$WORK/src/one"
    echo old >"$BUNDLE/rootfs/data/old"
    chmod 750 "$BUNDLE/rootfs/data"
    config '.root.readonly = false | .mounts += [
        {"destination": "/dir", "type": "bind", "source": $s, "options": ["rbind", "ro", "nosuid", "rprivate"]},
        {"destination": "/deep/er/file", "type": "bind", "source": ($s + "/one"), "options": ["bind", "noexec"]},
        {"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "ro", "size=1m"]},
        {"destination": "/shared", "type": "tmpfs", "source": "tmpfs", "options": ["shared", "nodev", "mode=700"]}]' --arg s "$WORK/src"
    args sh -c 'cat /dir/one /deep/er/file /data/old; stat -c %a /data; grep -E " (/dir|/data|/shared|/deep/er/file) " /proc/self/mountinfo'
    run oci run -b "$BUNDLE" "$ID"
    echo "$output"
    [ "$status" -eq 0 ]
    [ "${lines[0]}${lines[1]}${lines[2]}${lines[3]}" = oneoneold750 ]
    grep -q '/dir ro,nosuid' <<<"$output"
    grep -q '/deep/er/file rw,noexec' <<<"$output"
    grep -q '/data ro' <<<"$output"
    grep -q '/shared rw,nodev.*shared:' <<<"$output"
}

@test "mounts: a file system's own refusal is told in its words" {
    config '.mounts += [{"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=many"]}]'
    args true
    runs 1 "Bad value for 'size'"
    config '.mounts[-1].options = ["bogus"]'
    runs 1 "bogus"
    config '.mounts[-1] = {"destination": "/tmp", "type": "bind", "source": "/no/where", "options": ["bind"]}'
    runs 1 'bind mount source /no/where: No such file or directory'
}

@test "mounts: id-mapped" {
    mkdir "$WORK/src"
    touch "$WORK/src/file"
    chown 5:5 "$WORK/src/file"
    config '.mounts += [{"destination": "/tmp", "type": "bind", "source": $s, "options": ["bind"],
        "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 100}],
        "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 100}]}]' --arg s "$WORK/src"
    args stat -c %u:%g /tmp/file
    run oci run -b "$BUNDLE" "$ID"
    [[ $output == *'does its file system allow it'* ]] && skip "this file system cannot be id-mapped"
    echo "$output"
    [ "$output" = 1005:1005 ]
}

@test "devices: the default ones, more, and the rules" {
    config '.linux.devices = [{"path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 384, "uid": 3, "gid": 4},
        {"path": "/dev/pipe", "type": "p"}]'
    args sh -c 'for d in null zero full random urandom tty; do test -c /dev/$d || echo no $d; done
        stat -c "%a %u %g %t:%T" /dev/mine; test -p /dev/pipe && echo pipe; readlink /dev/fd; readlink /dev/ptmx
        head -c 3 /dev/zero | wc -c; mknod /tmp/x b 8 0 2>/dev/null && head -c 1 /tmp/x || echo denied'
    config '.root.readonly = false | .process.capabilities.bounding += ["CAP_MKNOD"]
        | .process.capabilities.permitted += ["CAP_MKNOD"] | .process.capabilities.effective += ["CAP_MKNOD"]'
    run oci run -b "$BUNDLE" "$ID"
    echo "$output"
    [ "${lines[0]}" = '600 3 4 1:5' ]
    [ "${lines[1]}" = pipe ]
    [ "${lines[3]}" = pts/ptmx ]
    [ "${lines[4]}" = 3 ]
    [[ ${lines[-1]} == denied ]]
}

@test "capabilities: exactly those of the configuration" {
    config '.process.capabilities = {"bounding": ["CAP_CHOWN", "CAP_KILL"], "permitted": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"],
        "inheritable": ["CAP_CHOWN"], "ambient": ["CAP_CHOWN"]} | .process.user.uid = 7'
    args sh -c 'grep ^Cap /proc/self/status | cut -f2'
    run oci run -b "$BUNDLE" "$ID"
    [ "$output" = $'0000000000000001\n0000000000000001\n0000000000000001\n0000000000000021\n0000000000000001' ]
    config 'del(.process.capabilities)'
    run oci run -b "$BUNDLE" "$ID"
    [ "$(sort -u <<<"$output")" = 0000000000000000 ]
}

@test "capabilities: what the host has not is left out with a warning" {
    [ "$((0x$(sed -n 's/^CapBnd:\t//p' /proc/self/status) & (1 << 24)))" = 0 ] || skip "nothing is missing here"
    config '.process.capabilities.bounding += ["CAP_SYS_RESOURCE"]'
    args true
    runs 0 'left out of the container'"'"'s capabilities: CAP_SYS_RESOURCE'
}

@test "user, groups, umask, environment, working directory" {
    config '.process.user = {"uid": 11, "gid": 12, "additionalGids": [13, 14], "umask": 63}
        | .process.env += ["A=b c"] | .process.cwd = "/made/here" | .root.readonly = false'
    args sh -c 'id -u; id -g; id -G; umask; echo $A; pwd'
    runs 0 $'11\n12\n12 13 14\n0077\nb c\n/made/here'
}

@test "rlimits, oom score, no new privileges, personality" {
    config '.process.rlimits = [{"type": "RLIMIT_NOFILE", "soft": 99, "hard": 199}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 18446744073709551615}]
        | .process.oomScoreAdj = 500 | .linux.personality = {"domain": "LINUX32"}'
    args sh -c 'ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj; sed -n "s/^NoNewPrivs:.//p" /proc/self/status; uname -m'
    run oci run -b "$BUNDLE" "$ID"
    echo "$output"
    [ "$output" = $'99\n199\n500\n1\ni686' ]
}

@test "scheduler, ioPriority, memoryPolicy, execCPUAffinity" {
    config '.process.scheduler = {"policy": "SCHED_BATCH", "nice": 5} | .process.ioPriority = {"class": "IOPRIO_CLASS_IDLE", "priority": 0}
        | .linux.memoryPolicy = {"mode": "MPOL_BIND", "nodes": "0"} | .process.execCPUAffinity = {"initial": "0", "final": "0"}'
    start_sleeper
    pid=$(oci state "$ID" | jq .pid)
    grep -q '^policy *: *3' "/proc/$pid/sched" || chrt -p "$pid" | grep -q SCHED_BATCH
    ionice -p "$pid" | grep -q idle
    grep -q 'bind:0' "/proc/$pid/numa_maps" 2>/dev/null || [ ! -e "/proc/$pid/numa_maps" ]
    [ "$(oci exec "$ID" sed -n 's/^Cpus_allowed_list:.//p' /proc/self/status)" = 0 ]
    config '.process.scheduler.policy = "SCHED_DREAM"'
    fails 'invalid policy SCHED_DREAM' oci run -b "$BUNDLE" "$ID-b"
}

@test "hooks: six kinds, in order, with the state on standard input" {
    log=$WORK/hooks.log
    printf '#!/bin/sh\nexec >>%s\nprintf "%%s %%s\\n" "$1" "$(jq -r ".status + \\" \\" + .id")"\n' "$log" >"$WORK/hook"
    chmod +x "$WORK/hook"
    printf '#!/bin/sh\nread -r line\necho startContainer\n' >"$BUNDLE/rootfs/bin/inside"
    chmod +x "$BUNDLE/rootfs/bin/inside"
    config '.hooks = ([("prestart", "createRuntime", "createContainer", "poststart", "poststop")
        | {(.): [{"path": $h, "args": ["hook", .], "env": ["PATH=/usr/bin:/bin"]}]}] | add)
        | .hooks.startContainer = [{"path": "/bin/inside"}]' --arg h "$WORK/hook"
    args true
    run oci run -b "$BUNDLE" "$ID"
    echo "$output"
    cat "$log"
    [ "$status" -eq 0 ]
    [ "$(cut -d' ' -f1,2 "$log" | tr '\n' ,)" = 'prestart creating,createRuntime creating,createContainer creating,poststart running,poststop stopped,' ]
    config '.hooks = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "echo why >&2; exit 3"]}]}'
    runs 1 'error running hook #0'
    [[ $output == *'exit status 3'*why* ]]
    config '.hooks = {"poststop": [{"path": "/bin/false"}]}'
    runs 0 'poststop: error running hook #0: /bin/false: exit status 1'
}

@test "hooks: a failing one stops the container, and poststop hooks still run" {
    printf '#!/bin/sh\njq -r .status >>%s\n' "$WORK/stopped" >"$WORK/hook"
    chmod +x "$WORK/hook"
    config '.hooks.poststop = [{"path": $h, "env": ["PATH=/usr/bin:/bin"]}]' --arg h "$WORK/hook"
    for kind in prestart createRuntime createContainer startContainer poststart; do
        args sleep 1000
        config '.hooks = {"poststop": .hooks.poststop, ($k): [{"path": "/bin/false"}]}' --arg k $kind
        runs 1 "$kind: error running hook #0: /bin/false: exit status 1"
        [ "$(cat "$WORK/stopped")" = stopped ]
        rm "$WORK/stopped"
        [ -z "$(oci list -q)" ]
    done
    oci create -b "$BUNDLE" "$ID" </dev/null >/dev/null 2>&1
    fails 'poststart: error running hook #0' oci start "$ID"
    [ "$(status_of)" = stopped ]
    oci delete "$ID"
    [ "$(cat "$WORK/stopped")" = stopped ]
    # The program could not be started: the hooks before it had run.
    args /no/where
    config 'del(.hooks.poststart)'
    runs 1 'stat /no/where: No such file'
    [ "$(wc -l <"$WORK/stopped")" = 2 ]
    # Nothing had begun yet: no hook runs.
    config '.linux.namespaces += [{"type": "bogus"}]'
    runs 1 'invalid namespace type'
    [ "$(wc -l <"$WORK/stopped")" = 2 ]
}

@test "seccomp: errno, arguments, default action, kill" {
    config '.linux.seccomp = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"], "syscalls": [
        {"names": ["mkdir", "mkdirat", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
        {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 1, "value": 12, "op": "SCMP_CMP_EQ"}]}]} | .root.readonly = false'
    args sh -c 'mkdir /tmp/x; kill -12 $$ || echo refused; kill -0 $$ && echo allowed; grep ^Seccomp: /proc/self/status'
    run oci run -b "$BUNDLE" "$ID"
    echo "$output"
    [[ $output == *'No space left on device'*refused*allowed*$'Seccomp:\t2'* ]]
    config '.process.noNewPrivileges = false'
    run oci run -b "$BUNDLE" "$ID"
    [[ $output == *'No space left on device'*$'Seccomp:\t2'* ]]
    config '.linux.seccomp = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_KILL_PROCESS"}]}'
    args mkdir /tmp/x
    runs 159 ''
}

@test "seccomp: a list of the allowed calls need not know what the runtime itself calls" {
    config '.linux.seccomp = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"action": "SCMP_ACT_ALLOW", "names":
        ["arch_prctl", "brk", "capset", "execve", "exit_group", "getrandom", "getuid", "mprotect", "prctl", "prlimit64",
         "readlink", "rseq", "set_robust_list", "set_tid_address"]}]}'
    args true
    for new_privs in false true; do
        config '.process.noNewPrivileges = ($v == "true")' --arg v $new_privs
        runs 0 ''
    done
}

@test "seccomp: a listener gets the descriptor and the state" {
    config '.linux.seccomp = {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": $p, "listenerMetadata": "meta",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}' --arg p "$WORK/listener"
    args true
    cat >"$WORK/listener.py" <<'END'
import array, json, socket, sys
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(1); print('ready', flush=True)
c, _ = s.accept()
data, fds, _, _ = socket.recv_fds(c, 65536, 4)
state = json.loads(data)
print(len(fds), state['metadata'], state['fds'], state['state']['status'], state['pid'] > 1, flush=True)
END
    python3 "$WORK/listener.py" "$WORK/listener" >"$WORK/heard" 3>&- &
    timeout 60 sh -c 'until grep -q ready "$0"; do sleep 0.02; done' "$WORK/heard"
    runs 0 ''
    wait %1
    grep -qF "1 meta ['seccompFd'] creating True" "$WORK/heard"
    config 'del(.linux.seccomp.listenerPath) | del(.linux.seccomp.listenerMetadata)'
    runs 1 'needs a listenerPath'
}

@test "hostname, domainname, loopback, sysctl" {
    config '.hostname = "here" | .domainname = "there" | .linux.sysctl = {"net.core.somaxconn": "77"}'
    args sh -c 'hostname; cat /proc/sys/kernel/domainname /proc/sys/net/core/somaxconn; ip link show lo | grep -o "[<,]UP"'
    run oci run -b "$BUNDLE" "$ID"
    echo "$output"
    [ "${lines[0]} ${lines[1]} ${lines[2]}" = 'here there 77' ]
    [[ ${lines[3]} == *UP ]]
}

@test "netDevices: moved, renamed, with its address" {
    ip link add "tr$$" type veth peer name "tp$$" 2>/dev/null || skip "no veth here"
    ip addr add 10.99.1.2/24 dev "tr$$"
    config '.linux.netDevices = {($d): {"name": "moved0"}}' --arg d "tr$$"
    args sh -c 'ip addr show moved0'
    run oci run -b "$BUNDLE" "$ID"
    ip link del "tp$$" 2>/dev/null || true
    echo "$output"
    [ "$status" -eq 0 ]
    [[ $output == *UP*'10.99.1.2/24'* ]]
    config '.linux.netDevices = {"nonesuch0": {}}'
    runs 1 'nonesuch0 does not exist'
}

@test "netDevices: they come back when the container cannot be made" {
    ip link add "tr$$" type veth peer name "tp$$" 2>/dev/null || skip "no veth here"
    ip addr add 10.99.1.2/24 dev "tr$$"
    args true
    is_home() { ip addr show "tr$$" | grep -q '10.99.1.2/24' && [ -z "$(ip link show up dev "tr$$")" ]; }
    config '.linux.netDevices = {($d): {"name": "lo"}}' --arg d "tr$$"
    runs 1 'has a device named lo already'
    is_home
    config '.linux.netDevices = {($d): {"name": "in0"}, "nonesuch0": {}}' --arg d "tr$$"
    runs 1 'nonesuch0 does not exist'
    is_home
    config '.linux.netDevices = {($d): {"name": ""}} | .hooks.createRuntime = [{"path": "/bin/false"}]' --arg d "tr$$"
    runs 1 'createRuntime'
    is_home
    ip link del "tp$$"
    config '.linux.netDevices = {"lo": {}}'
    runs 1 'lo is bound to its network namespace'
    for name in 'a b' eth%d a/b 0123456789abcdef; do
        config '.linux.netDevices = {"lo": {"name": $n}}' --arg n "$name"
        runs 1 "netDevices.lo: invalid device name"
    done
}

@test "cgroup limits at creation" {
    [ -d /sys/fs/cgroup/memory ] || skip "no v1 memory hierarchy here"
    config '.linux.resources += {"memory": {"limit": 33554432, "reservation": 16777216, "swappiness": 10}, "pids": {"limit": 17},
        "cpu": {"shares": 300, "quota": 50000, "period": 100000, "burst": 10000, "cpus": "0"},
        "blockIO": {"throttleReadBpsDevice": [{"major": 254, "minor": 0, "rate": 1048576}]}}'
    start_sleeper
    [ "$(v1 memory memory.limit_in_bytes)" = 33554432 ]
    [ "$(v1 memory memory.soft_limit_in_bytes)" = 16777216 ]
    [ "$(v1 memory memory.swappiness)" = 10 ]
    [ "$(v1 pids pids.max)" = 17 ]
    [ "$(v1 cpu cpu.shares)" = 300 ]
    [ "$(v1 cpu cpu.cfs_quota_us)" = 50000 ]
    [ "$(v1 cpu cpu.cfs_burst_us)" = 10000 ]
    [ "$(v1 cpuset cpuset.cpus)" = 0 ]
    [ "$(v1 blkio blkio.throttle.read_bps_device)" = '254:0 1048576' ]
}

@test "cgroup limits that cannot be had undo the container" {
    config '.linux.resources += {"network": {"classID": 5}}'
    args true
    [ ! -d /sys/fs/cgroup/net_cls ] || skip "net_cls is here"
    runs 1 'no net_cls cgroup controller'
    config 'del(.linux.resources.network) | .linux.resources.cpu = {"cpus": "4000"}'
    runs 1 'cpuset.cpus'
    config '.linux.resources.cpu = {"shares": "many"} '
    runs 1 'cpu.shares'
    [ -z "$(oci list -q)" ]
}

@test "cgroups above the container's own: those that were made for it go with it, as far as nobody else is there" {
    local pod=/$ID-pod/inner find=(find /sys/fs/cgroup -type d -path "*/$ID-pod*")
    config '.linux.cgroupsPath = $p' --arg p "$pod/a"
    start_sleeper
    "${find[@]}" | grep -q "$pod/a"
    config '.linux.cgroupsPath = $p' --arg p "$pod/b"
    args true
    oci run -b "$BUNDLE" "$ID-b" </dev/null
    "${find[@]}" | grep -q "$pod/a"
    oci delete --force "$ID"
    [ -z "$("${find[@]}")" ]
    # What was there before stays.
    local dir=/sys/fs/cgroup
    [ ! -d $dir/pids ] || dir=$dir/pids
    mkdir "$dir/$ID-pod"
    oci run -b "$BUNDLE" "$ID-b" </dev/null
    [ "$("${find[@]}")" = "$dir/$ID-pod" ]
    rmdir "$dir/$ID-pod"
    # Several at once, each of which may take away what another has just found.
    for i in 1 2 3 4 5 6; do
        (for n in 1 2 3 4 5; do
            jq '.linux.cgroupsPath = $p' --arg p "$pod/c$i-$n" "$BUNDLE/config.json" >"$WORK/c$i"
            mkdir -p "$WORK/b$i" && ln -sfn "$BUNDLE/rootfs" "$WORK/b$i/rootfs" && cp "$WORK/c$i" "$WORK/b$i/config.json"
            oci run -b "$WORK/b$i" "$ID-$i-$n" </dev/null 3>&- || touch "$WORK/failed"
        done) &
    done
    wait
    find /sys/fs/cgroup -depth -type d -path "*/$ID-pod*" -exec rmdir {} + # whose maker left before the others
    [ ! -e "$WORK/failed" ]
}

@test "hugetlb of the v2 tree beside v1" {
    grep -q hugetlb /sys/fs/cgroup/unified/cgroup.controllers 2>/dev/null || skip "no v2 tree with hugetlb here"
    config '.linux.resources += {"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}], "unified": {"hugetlb.2MB.rsvd.max": "8388608"}}'
    start_sleeper
    group=/sys/fs/cgroup/unified$(sed -n 's/^0:://p' "/proc/$(oci state "$ID" | jq .pid)/cgroup")
    [ "$(cat "$group/hugetlb.2MB.max")" = 4194304 ]
    [ "$(cat "$group/hugetlb.2MB.rsvd.max")" = 8388608 ]
}

@test "the cgroup mount shows the container's groups and nothing above" {
    args sh -c 'cat /proc/self/cgroup | cut -d: -f3 | sort -u; ls /sys/fs/cgroup/memory/cgroup.procs /sys/fs/cgroup/cgroup.procs 2>/dev/null | wc -l
        cat /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/cgroup.procs 2>/dev/null | sort -u | head -n 1'
    config '.linux.namespaces += [{"type": "cgroup"}] | .linux.namespaces |= unique_by(.type)'
    run oci run -b "$BUNDLE" "$ID"
    echo "$output"
    [ "$output" = $'/\n1\n1' ]
}

@test "--no-pivot, and exec into such a container" {
    args sleep 1000
    oci run -d --no-pivot -b "$BUNDLE" "$ID" </dev/null >/dev/null
    run oci exec "$ID" ls /
    [[ $output == *bin* && $output != *usr* ]]
}

@test "socket activation" {
    args sh -c 'echo $LISTEN_FDS $LISTEN_PID; cat <&3'
    run bash -c '"$@" 3<<<socket' - env LISTEN_FDS=1 "$OCI" --root "$ROOT" run -b "$BUNDLE" "$ID"
    echo "$output"
    [ "$output" = $'1 1\nsocket' ]
}

@test "pidfd socket" {
    args sleep 1000
    python3 - "$WORK/sock" >"$WORK/heard" 3>&- <<'END' &
import os, socket, sys
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(1); print('ready', flush=True)
c, _ = s.accept()
_, fds, _, _ = socket.recv_fds(c, 100, 4)
print(os.readlink(f'/proc/self/fd/{fds[0]}'), flush=True)
END
    timeout 60 sh -c 'until grep -q ready "$0"; do sleep 0.02; done' "$WORK/heard"
    oci run -d --pidfd-socket "$WORK/sock" -b "$BUNDLE" "$ID" </dev/null >/dev/null
    wait %1
    grep -q pidfd "$WORK/heard"
}

@test "a host with nothing but cgroup v2" {
    mkdir -p "$WORK/v2" && unshare -m sh -c "mount -t cgroup2 none '$WORK/v2'" || skip "no cgroup v2 here"
    [ "$(stat -fc %T /sys/fs/cgroup)" = tmpfs ] || skip "it is one already"
    args sleep 1000
    config '.process.capabilities |= map_values(. + ["CAP_MKNOD"]) | .root.readonly = false'
    cat >"$WORK/inside" <<'END'
set -eu
umount -R -l /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
oci() { "$OCI" --root "$ROOT" "$@"; }
oci run -d -b "$BUNDLE" "$ID" </dev/null >/dev/null
trap 'oci delete --force "$ID"' EXIT
grep -qx "$(oci state "$ID" | jq .pid)" "/sys/fs/cgroup/$ID/cgroup.procs"
oci exec "$ID" grep -qx '0::/.*' /proc/self/cgroup
oci exec "$ID" test -e /sys/fs/cgroup/cgroup.procs
# The device program: a node may be made, a disk not be opened, zeros be read.
oci exec "$ID" mknod /tmp/disk b 8 0
! oci exec "$ID" head -c 1 /tmp/disk
[ "$(oci exec "$ID" head -c 2 /dev/zero | wc -c)" = 2 ]
oci pause "$ID"
[ "$(oci state "$ID" | jq -r .status)" = paused ]
oci resume "$ID"
oci ps -f json "$ID" | jq -e 'length == 1'
# A program that delegates leaves its group without processes of its own; exec follows it.
mkdir "/sys/fs/cgroup/$ID/below"
oci state "$ID" | jq .pid >"/sys/fs/cgroup/$ID/below/cgroup.procs"
echo +hugetlb >"/sys/fs/cgroup/$ID/cgroup.subtree_control"
oci exec "$ID" true
oci kill --all "$ID" KILL
END
    export OCI ROOT BUNDLE ID
    unshare -m --propagation private bash "$WORK/inside"
}

@test "--systemd-cgroup asks systemd for a scope" {
    config '.linux.cgroupsPath = "no-colons"'
    fails 'of format' oci --systemd-cgroup run -b "$BUNDLE" "$ID"
    config '.linux.cgroupsPath = "a-b.slice:pre:\($id)" | .linux.resources.memory = {"limit": 50000000}' --arg id "$ID"
    [ -d /sys/fs/cgroup/systemd ] || skip "no hierarchy named systemd"
    cat >"$WORK/systemd.py" <<'END'
# A bus with a systemd on it, as far as one call goes: it moves the process and says yes.
import os, socket, struct, sys
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(4); print('ready', flush=True)
def answer(c):
    head = c.recv(16, socket.MSG_WAITALL)
    if len(head) < 16: return None
    body, fields = struct.unpack('<I', head[4:8])[0], struct.unpack('<I', head[12:16])[0]
    rest = c.recv(body + (fields + 7) // 8 * 8, socket.MSG_WAITALL)
    c.sendall(struct.pack('<cBBBIII', b'l', 2, 1, 1, 0, 1, 8) + b'\x05\x01u\0' + struct.pack('<I', 1))
    return rest
while True:
    c, _ = s.accept()
    while not c.recv(1) == b'\n': pass
    c.sendall(b'OK 00\r\n')
    while not c.recv(1) == b'\n': pass
    while True:
        rest = answer(c)
        if rest is None: break
        for word in (b'Hello', b'StartTransientUnit', b'StopUnit', b'a-b.slice', b'Delegate', b'MemoryLimit', sys.argv[2].encode()):
            if word in rest: print(word.decode(), flush=True)
        if b'PIDs' in rest:
            at = rest.index(b'PIDs'); at += 5 + 4; at = (at + 3) // 4 * 4
            pid = struct.unpack('<I', rest[at + 4:at + 8])[0]
            group = '/sys/fs/cgroup/systemd/a.slice/a-b.slice/pre-' + sys.argv[2] + '.scope'
            os.makedirs(group, exist_ok=True)
            open(group + '/cgroup.procs', 'w').write(str(pid))
END
    python3 "$WORK/systemd.py" "$WORK/bus" "$ID" >"$WORK/heard" 2>&1 3>&- &
    timeout 60 sh -c 'until grep -q ready "$0"; do sleep 0.02; done' "$WORK/heard"
    args sh -c 'grep systemd /proc/self/cgroup'
    DBUS_SYSTEM_BUS_ADDRESS=unix:path=$WORK/bus run oci --systemd-cgroup run -b "$BUNDLE" "$ID"
    kill %1
    cat "$WORK/heard"
    echo "$output"
    find /sys/fs/cgroup/systemd/a.slice -depth -type d -exec rmdir {} +
    [ "$status" -eq 0 ]
    for word in Hello StartTransientUnit StopUnit a-b.slice Delegate MemoryLimit; do grep -qx "$word" "$WORK/heard"; done
}

@test "sd_notify: readiness is passed on with the container's pid, by run and by start" {
    cat >"$WORK/notify.py" <<'END'
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind(sys.argv[1]); print('listening', flush=True)
while True: print(s.recv(4096).decode().replace('\n', ' '), flush=True)
END
    # The container has no program that speaks to datagram sockets: python of the host is lent to it.
    cat >"$BUNDLE/rootfs/tell.py" <<'END'
import os, socket, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.sendto(b'STATUS=coming\nREADY=1', os.environ['NOTIFY_SOCKET'])
time.sleep(1000)
END
    config '.mounts += [("/usr", "/lib", "/lib64" | {"destination": ., "type": "bind", "source": ., "options": ["rbind", "ro"]})] | .root.readonly = false'
    [ -x /usr/bin/python3 ] || skip "no python in /usr/bin"
    args /usr/bin/python3 /tell.py
    python3 "$WORK/notify.py" "$WORK/host.sock" >"$WORK/heard" 3>&- &
    timeout 60 sh -c 'until grep -q listening "$0"; do sleep 0.02; done' "$WORK/heard"
    NOTIFY_SOCKET=$WORK/host.sock oci run -d -b "$BUNDLE" "$ID" </dev/null >/dev/null
    NOTIFY_SOCKET=$WORK/host.sock oci create -b "$BUNDLE" "$ID-b" </dev/null >/dev/null
    NOTIFY_SOCKET=$WORK/host.sock oci start "$ID-b"
    first=$(oci state "$ID" | jq .pid) second=$(oci state "$ID-b" | jq .pid)
    timeout 60 sh -c 'until grep -q "$1" "$0"; do sleep 0.02; done' "$WORK/heard" "MAINPID=$second"
    kill %1
    cat "$WORK/heard"
    grep -qx "READY=1 MAINPID=$first" "$WORK/heard"
    grep -qx "READY=1 MAINPID=$second" "$WORK/heard"
}
