#!/bin/bash
# Docker with trapeze-oci as its default runtime: the commands of a day, by Debian's docker.io.
. "$(dirname "$0")/engine.sh"
begin "$@"
needs docker.io containerd busybox-static

docker() { /usr/bin/docker -H "unix://$WORK/d/sock" "$@"; }
clean() { docker ps -aq | xargs -r /usr/bin/docker -H "unix://$WORK/d/sock" rm -f >/dev/null 2>&1; }
runtime_of() { docker inspect -f '{{.HostConfig.Runtime}}' "$1"; }

ok 'dockerd starts with the runtime' start_dockerd d --bridge=none
docker import "$WORK/image.tar" bb >/dev/null
ok 'run' says hello docker run --rm --net none bb echo hello
ok 'exit status' ends 9 docker run --rm --net none bb sh -c 'exit 9'
ok 'a program that is not there gives 127' ends 127 docker run --rm --net none bb nothing-here
ok 'a program that may not be executed gives 126' ends 126 docker run --rm --net none bb /etc/passwd
ok 'run -d' docker run -d --name cc --net none bb sleep 1000
ok 'the runtime is ours' says trapeze runtime_of cc
ok 'exec' says uid=0 docker exec cc id
ok 'exec -u' says uid=5 docker exec -u 5 cc id
ok 'exec -t' says /dev/pts/0 script -qec "/usr/bin/docker -H unix://$WORK/d/sock exec -t cc tty" /dev/null
ok 'run -t' says /dev/ script -qec "/usr/bin/docker -H unix://$WORK/d/sock run --rm -t --net none bb tty" /dev/null
ok 'top' says 'sleep 1000' docker top cc
ok 'pause' docker pause cc
ok 'paused' says Paused docker ps
ok 'unpause' docker unpause cc
ok 'update' docker update --memory 64m --memory-swap 128m --pids-limit 40 cc
ok 'stats' says '64MiB' docker stats --no-stream cc
ok 'restart' docker restart -t 0 cc
ok 'kill' docker kill cc
ok 'start again' docker start cc
ok 'stop' docker stop -t 0 cc
ok 'logs' docker logs cc
ok 'rm' docker rm cc
ok 'limits, user, capabilities, read-only root, tmpfs' says 'uid=5' docker run --rm --net none -m 20m \
    --cpus .5 --pids-limit 20 --cap-add SYS_ADMIN --cap-drop CHOWN --read-only --tmpfs /run -u 5:5 -w /tmp \
    --ulimit nofile=1000:2000 bb id
ok 'bind mount, read-only' says 'Read-only file system' docker run --rm --net none -v /etc:/host:ro bb touch /host/x
ok 'volume keeps what is written' says kept sh -c "/usr/bin/docker -H unix://$WORK/d/sock run --rm --net none -v vol:/v bb sh -c 'echo kept >/v/f' &&
    /usr/bin/docker -H unix://$WORK/d/sock run --rm --net none -v vol:/v bb cat /v/f"
ok 'privileged' docker run --rm --net none --privileged bb mount -t tmpfs none /tmp
ok 'not privileged' ends 1 docker run --rm --net none bb mount -t tmpfs none /tmp
ok 'host namespaces' docker run --rm --net host --pid host --ipc host --uts host bb true
ok 'another container'"'"'s namespaces' says 'sleep 1000' sh -c "
    D='/usr/bin/docker -H unix://$WORK/d/sock'
    \$D run -d --name aa --net none bb sleep 1000 && \$D run --rm --pid container:aa --net container:aa bb ps; \$D rm -f aa"
ok 'device' says 'crw' docker run --rm --net none --device /dev/null:/dev/mine bb ls -l /dev/mine
ok 'sysctl' says 1000 docker run --rm --net none --sysctl net.core.somaxconn=1000 bb cat /proc/sys/net/core/somaxconn
ok 'init' docker run --rm --net none --init bb true
ok 'OOM kill is told' says true sh -c "D='/usr/bin/docker -H unix://$WORK/d/sock'
    \$D run --name oom --net none -m 8m bb sh -c 'x=a; while :; do x=\$x\$x; done'; \$D inspect -f '{{.State.OOMKilled}}' oom"
ok 'healthcheck runs exec' eventually 20 says '(healthy)' sh -c "D='/usr/bin/docker -H unix://$WORK/d/sock'
    \$D ps | grep -q h1 || \$D run -d --name h1 --net none --health-cmd true --health-interval 1s bb sleep 1000; \$D ps"
ok 'twenty at once' sh -c "for i in \$(seq 20); do /usr/bin/docker -H unix://$WORK/d/sock run --rm --net none bb true & p=\"\$p \$!\"; done; for i in \$p; do wait \$i || exit 1; done"
clean
ok 'no cgroup is left' ends 1 sh -c "find /sys/fs/cgroup -path '*/$GROUP/*' -type d | grep ."
