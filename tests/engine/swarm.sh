#!/bin/bash
# A Docker Swarm of three nodes on one machine, each a dockerd in a network namespace of its own, with
# trapeze-oci as the default runtime: deploy, scale, a node's death, a rolling update.
. "$(dirname "$0")/engine.sh"
begin "$@"
needs docker.io containerd busybox-static iproute2

NET=tz$$
d() { local n=$1; shift; /usr/bin/docker -H "unix://$WORK/n$n/sock" "$@"; }

clean() {
    for n in 1 2 3; do
        d $n swarm leave --force
        d $n ps -aq | xargs -r /usr/bin/docker -H "unix://$WORK/n$n/sock" rm -f
    done >/dev/null 2>&1
    for n in 1 2 3; do ip netns del "$NET-$n"; done 2>/dev/null
    ip link del "$NET" 2>/dev/null
}

# A bridge, and per node a namespace with one cable to it. The name servers are unreachable at once, so that
# no task waits for a registry that is not there.
make_network() {
    ip link add "$NET" type bridge && ip link set "$NET" up
    for n in 1 2 3; do
        ip netns add "$NET-$n"
        ip link add "$NET$n" type veth peer name eth0 netns "$NET-$n"
        ip link set "$NET$n" master "$NET" up
        nsenter --net="/run/netns/$NET-$n" sh -c "ip link set lo up; ip addr add 10.77.0.$n/24 dev eth0; ip link set eth0 up
            ip route add unreachable default metric 9999"
    done
}

# dockerd takes its node's name from the host's, so each has a UTS namespace too.
start_node() {
    IN="nsenter --net=/run/netns/$NET-$1 unshare -m -u sh -c 'hostname node$1; exec \"\$@\"' sh"
    mkdir -p "$WORK/n$1"
    eval "$IN" /usr/sbin/dockerd --data-root "$WORK/n$1/data" --exec-root "$WORK/n$1/exec" --pidfile "$WORK/n$1/pid" \
        -H "unix://$WORK/n$1/sock" --iptables=false --bridge=none --add-runtime "trapeze=$OCI" --default-runtime trapeze \
        >"$WORK/n$1/log" 2>&1 &
    eventually 60 d "$1" version && d "$1" import "$WORK/image.tar" bb
}

is_running() { [ "$(d 1 service ps -f desired-state=running --format '{{.CurrentState}}' "$1" | grep -c '^Running')" = "$2" ]; }
spread() { d 1 service ps -f desired-state=running --format '{{.Node}}' web | sort | uniq -c | awk '{ print $1 }' | tr '\n' ' '; }
runtimes() { d "$1" ps -q | xargs -r /usr/bin/docker -H "unix://$WORK/n$1/sock" inspect -f '{{.HostConfig.Runtime}}' | sort -u; }
node_is() { d 1 node ls --format '{{.Hostname}} {{.Status}}' | grep -q "^node$1 $2"; }
all_on() { [ "$(d 1 service ps -f desired-state=running --format '{{.Node}} {{.CurrentState}}' web | grep -c "^node[$1] Running")" = "$2" ]; }
updated() { [ "$(d 1 service ps -f desired-state=running --format '{{.CurrentState}}' web | grep -c '^Running')" = 4 ] &&
    [ "$(d 1 service inspect -f '{{.UpdateStatus.State}}' web)" = completed ]; }

make_network
for n in 1 2 3; do ok "node $n starts" start_node $n; done
ok 'swarm init' d 1 swarm init --advertise-addr 10.77.0.1
TOKEN=$(d 1 swarm join-token -q worker)
for n in 2 3; do ok "node $n joins" d $n swarm join --token "$TOKEN" --advertise-addr "10.77.0.$n" 10.77.0.1:2377; done
ok 'three nodes are ready' eventually 30 node_is 3 Ready
ok 'deploy' d 1 service create --detach --no-resolve-image --name web --replicas 6 --restart-delay 1s bb sleep 100000
ok 'six tasks run' eventually 90 is_running web 6
ok 'two on each node' says '2 2 2' spread
for n in 1 2 3; do ok "node $n runs them with trapeze" says trapeze runtimes $n; done
ok 'scale down' d 1 service scale --detach web=4
ok 'four tasks run' eventually 60 is_running web 4
ok 'rolling update' d 1 service update --detach --no-resolve-image --env-add A=b --update-delay 1s --update-parallelism 2 --stop-grace-period 1s web
ok 'the update is complete' eventually 120 updated
start=$SECONDS
ip link set "${NET}3" down
ok 'a dead node is seen' eventually 60 node_is 3 Down
echo "# node down after $((SECONDS - start)) s"
ok 'its tasks run elsewhere' eventually 90 all_on 12 4
echo "# all tasks elsewhere after $((SECONDS - start)) s"
ip link set "${NET}3" up
ok 'the node comes back' eventually 90 node_is 3 Ready
ok 'remove the service' d 1 service rm web
