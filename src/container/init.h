/*
 * From a cloned process to the container's program. `struct init` is filled by the runtime before it clones
 * and is then the child's whole knowledge; the two only share the socket afterwards.
 */
#ifndef CONTAINER_INIT_H
#define CONTAINER_INIT_H

#include "container/mount.h"
#include "container/seccomp.h"
#include "container/state.h"

struct mount_plan {
    struct mount_opts opts;
    int tree; /* a clone made by the runtime; -1: made by the child */
};

struct init {
    struct state *state;
    const struct spec *spec;
    const struct spec_process *process; /* spec's own, or exec's */
    struct seccomp_prog *seccomp;
    struct mount_plan *plans;  /* one per mount of spec */
    int root_tree;             /* clone of the root file system */
    int ns_fds[NS_KINDS];      /* namespaces to join, -1 */
    int procfd;                /* the host's /proc */
    int sync;                  /* the child's end */
    int listen;                /* start.sock, -1 for `run` */
    int console;               /* socket that gets the terminal's master, -1 */
    int notify_dir;            /* clone of the sd_notify directory, -1 */
    int root;                  /* the container's root once it is mounted */
    struct cgroup_doors doors; /* to the control groups */
    char program[4096];        /* the file to execute, found before the filter is loaded */
    u32 preserve_fds;
    bool no_pivot, no_new_keyring, cgroups_told, cgroups_done, memory_late, privileged;
};

/* The whole life of a container's init; never returns. */
void init_main(struct init *in) __attribute__((noreturn));

/* rootfs.c: mounts everything below in->root, which becomes the mounted root file system. */
int rootfs_build(struct init *in, struct err *err);
/*
 * Without a mount namespace of its own: the runtime mounts the container's root onto its own place in ours. The id of
 * that mount tells it again when it is taken away, with all below it.
 */
int rootfs_attach_here(struct init *in, u64 *ret_mount_id, struct err *err);
void rootfs_detach_here(const char *rootfs, u64 mount_id);
/* Makes it "/" and lets go of the host's. */
int rootfs_enter(struct init *in, struct err *err);
/* seal.c: masked and read-only paths, and the root itself if the configuration says so. */
int seal_paths(struct init *in, struct err *err);
/* device.c: nodes and links in /dev. */
int device_make_all(struct init *in, struct err *err);
/* cgroup_mount.c: what stands for a mount of type cgroup. */
int cgroup_mount(struct init *in, const struct spec_mount *m, const struct mount_plan *plan,
                 int target, struct err *err);
/* Waits for the runtime to have made our cgroups and enters them, once; the memory group may come later. */
int init_wait_cgroups(struct init *in, struct err *err);
/* Asks the runtime and waits for GO. News about the cgroups may come first and is remembered. */
int init_ask(struct init *in, int question, struct err *err);

#endif
