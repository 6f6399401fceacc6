#!/bin/bash
# Podman with trapeze-oci: conmon's way of calling a runtime, and pods, which share namespaces by path.
. "$(dirname "$0")/engine.sh"
begin "$@"
needs podman conmon busybox-static

podman() {
    command podman --root "$WORK/p/root" --runroot "$WORK/p/run" --tmpdir "$WORK/p/tmp" --cgroup-manager cgroupfs \
        --events-backend file --runtime "$OCI" "$@"
}
clean() { podman rm -af -t 0; } >/dev/null 2>&1

podman import "$WORK/image.tar" bb >/dev/null 2>&1
ok 'run' says hello podman run --rm --network none bb echo hello
ok 'exit status' ends 9 podman run --rm --network none bb sh -c 'exit 9'
ok 'a program that is not there gives 127' ends 127 podman run --rm --network none bb nothing-here
ok 'a program that may not be executed gives 126' ends 126 podman run --rm --network none bb /etc/passwd
ok 'run -d' podman run -d --network none --name c bb sleep 1000
ok 'ps' says 'Up ' podman ps
ok 'exec' says uid=0 podman exec c id
ok 'exec status' ends 4 podman exec c sh -c 'exit 4'
ok 'top' says sleep podman top c
ok 'pause' podman pause c
ok 'paused' says Paused podman ps -a
ok 'unpause' podman unpause c
ok 'stats' says '%' podman stats --no-stream c
ok 'stop' podman stop -t 0 c
ok 'start' podman start c
ok 'restart' podman restart -t 0 c
ok 'kill' podman kill c
ok 'rm' podman rm -f -t 0 c
ok 'run -t' says /dev/ podman run --rm -t --network none bb tty
ok 'ulimit' says 1000 podman run --rm --network none --ulimit nofile=1000:1000 bb sh -c 'ulimit -n'
ok 'without --ulimit, where the default cannot be had' podman run --rm --network none bb true
ok 'read-only root, tmpfs, bind mount' says 'Read-only file system' podman run --rm --network none --read-only \
    --tmpfs /run -v /etc:/host:ro bb touch /x
ok 'user namespace' says '100000' podman run --rm --network none --uidmap 0:100000:65536 --gidmap 0:100000:65536 bb \
    cat /proc/self/uid_map
ok 'memory limit' says 20971520 podman run --rm --network none -m 20m bb cat /sys/fs/cgroup/memory/memory.limit_in_bytes
ok 'healthcheck' podman run --rm --network none --health-cmd true bb true
