#!/bin/bash
# containerd's runc shim with trapeze-oci as its runtime, driven by ctr: Kubernetes' way in.
. "$(dirname "$0")/engine.sh"
begin "$@"
needs containerd busybox-static jq

ctr() { /usr/bin/ctr -a "$WORK/c/sock" -n test "$@"; }
clean() {
    ctr task ls -q | while read -r id; do ctr task rm -f "$id"; done
    ctr c ls -q | xargs -r /usr/bin/ctr -a "$WORK/c/sock" -n test c rm
} >/dev/null 2>&1
gone() { ! ctr task ls | grep -q "^$1 .*RUNNING"; }

# An image archive in OCI's layout, made by hand: a layer, a configuration, a manifest, an index.
make_archive() {
    local dir=$WORK/oci blobs=$WORK/oci/blobs/sha256 layer config manifest
    mkdir -p "$blobs"
    put() { local d; d=$(sha256sum "$1" | cut -d' ' -f1); mv "$1" "$blobs/$d"; echo "$d"; }
    size() { stat -c %s "$blobs/$1"; }
    cp "$WORK/image.tar" "$WORK/x"; layer=$(put "$WORK/x")
    jq -n --arg l "sha256:$layer" '{architecture: "amd64", os: "linux", config: {Env: ["PATH=/bin"]},
        rootfs: {type: "layers", diff_ids: [$l]}}' >"$WORK/x"; config=$(put "$WORK/x")
    jq -n --arg c "sha256:$config" --arg l "sha256:$layer" --argjson cs "$(size "$config")" --argjson ls "$(size "$layer")" \
        '{schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json",
          config: {mediaType: "application/vnd.oci.image.config.v1+json", digest: $c, size: $cs},
          layers: [{mediaType: "application/vnd.oci.image.layer.v1.tar", digest: $l, size: $ls}]}' >"$WORK/x"
    manifest=$(put "$WORK/x")
    jq -n --arg m "sha256:$manifest" --argjson s "$(size "$manifest")" '{schemaVersion: 2, manifests:
        [{mediaType: "application/vnd.oci.image.manifest.v1+json", digest: $m, size: $s,
          annotations: {"io.containerd.image.name": "test/bb:1", "org.opencontainers.image.ref.name": "1"}}]}' >"$dir/index.json"
    echo '{"imageLayoutVersion": "1.0.0"}' >"$dir/oci-layout"
    tar -C "$dir" -cf "$WORK/oci.tar" .
}

mkdir -p "$WORK/c"
printf 'version = 2\nroot = "%s/c/root"\nstate = "%s/c/state"\n[grpc]\naddress = "%s/c/sock"\n[ttrpc]\naddress = "%s/c/ttrpc"\n' \
    "$WORK" "$WORK" "$WORK" "$WORK" >"$WORK/c/config.toml"
containerd -c "$WORK/c/config.toml" >"$WORK/c/log" 2>&1 &
PIDS+=($!)
eventually 30 ctr version
make_archive
ok 'import an image' ctr image import "$WORK/oci.tar"
IMG=$(ctr image ls -q | head -n 1)
ok 'run' says hello ctr run --rm --runc-binary "$OCI" "$IMG" a echo hello
ok 'exit status' ends 9 ctr run --rm --runc-binary "$OCI" "$IMG" a sh -c 'exit 9'
ok 'run -d' ctr run -d --runc-binary "$OCI" "$IMG" b sleep 1000
ok 'the task runs' says RUNNING ctr task ls
ok 'exec' says uid=0 ctr task exec --exec-id e1 b id
ok 'exec of a failing program' ends 3 ctr task exec --exec-id e2 b sh -c 'exit 3'
ok 'pause' ctr task pause b
ok 'paused' says PAUSED ctr task ls
ok 'resume' ctr task resume b
ok 'metrics' says memory.usage_in_bytes ctr task metrics b
ok 'ps' says PID ctr task ps b
ok 'kill' ctr task kill -s KILL b
ok 'it ends' eventually 10 gone b
ok 'rm' ctr task rm b
ok 'a program that is not there' says 'executable file not found' ctr run --rm --runc-binary "$OCI" "$IMG" c nothing-here
ok 'limits' says hello ctr run --rm --runc-binary "$OCI" --memory-limit 20000000 --cpus 0.5 "$IMG" d echo hello
ok 'a terminal' says /dev/ script -qec "/usr/bin/ctr -a '$WORK/c/sock' -n test run --rm -t --runc-binary '$OCI' '$IMG' e tty" /dev/null
