/*
 * A container's configuration: what config.json says, checked and typed (OCI runtime-spec 1.3). Strings and
 * objects stay owned by the JSON document; arrays live in the pool. Unknown members are ignored, as the
 * specification demands of a 1.x reader.
 */
#ifndef CONTAINER_SPEC_H
#define CONTAINER_SPEC_H

#include "container/json.h"

#define SPEC_VERSION "1.3.0"

/* In the order in which they are joined: user first, then what it owns. */
enum ns_kind { NS_USER, NS_TIME, NS_CGROUP, NS_IPC, NS_UTS, NS_NET, NS_PID, NS_MOUNT, NS_KINDS };

struct ns_type {
    const char *name;      /* in config.json */
    const char *proc_name; /* below /proc/PID/ns */
    u64 flag;              /* CLONE_NEW... */
};

extern const struct ns_type ns_types[NS_KINDS];

/* Capability sets, each a bit mask by capability number. */
enum cap_set {
    CAPS_BOUNDING,
    CAPS_EFFECTIVE,
    CAPS_PERMITTED,
    CAPS_INHERITABLE,
    CAPS_AMBIENT,
    CAP_SETS
};

struct spec_ns {
    bool present;
    const char *path; /* join this one; NULL: a new one */
};

struct spec_idmap {
    u32 container, host, size;
};

struct spec_idmaps {
    struct spec_idmap *v;
    size_t n;
};

struct spec_rlimit {
    int resource;
    const char *name;
    u64 soft, hard;
};

struct spec_hook {
    const char *path;
    struct strv args, env;
    int timeout_s; /* 0: none */
};

struct spec_hooks {
    struct spec_hook *v;
    size_t n;
};

enum hook_kind {
    HOOK_PRESTART,
    HOOK_CREATE_RUNTIME,
    HOOK_CREATE_CONTAINER,
    HOOK_START_CONTAINER,
    HOOK_POSTSTART,
    HOOK_POSTSTOP,
    HOOK_KINDS
};

extern const char *const hook_names[HOOK_KINDS];

struct spec_scheduler {
    bool present;
    u32 policy;
    const char *policy_name;
    s32 nice;
    u32 priority;
    u64 flags, runtime, deadline, period;
};

struct spec_process {
    bool terminal, no_new_privs, has_caps, has_oom, has_umask, has_ioprio;
    u32 rows, cols;
    u32 uid, gid, umask;
    u32 *gids;
    size_t gid_count;
    struct strv args, env;
    const char *cwd;
    u64 caps[CAP_SETS];
    struct spec_rlimit *rlimits;
    size_t rlimit_count;
    const char *apparmor, *selinux;
    s32 oom_score;
    int ioprio; /* as ioprio_set takes it */
    struct spec_scheduler scheduler;
    const char *cpus_initial, *cpus_final; /* execCPUAffinity; NULL: leave */
};

struct spec_mount {
    const char *dest, *type, *source;
    struct strv options;
    struct spec_idmaps uid_maps, gid_maps;
};

struct spec_device {
    const char *path;
    char type; /* c b p */
    u32 major, minor, mode, uid, gid;
};

struct spec_pair {
    const char *key, *value;
};

struct spec_netdev {
    const char *host_name, *name;
    /* netdev.c's: the name in the container, NULL before it is there; and what it was on the host */
    const char *moved_as;
    bool was_up;
};

struct spec_mempolicy {
    bool present;
    int mode; /* MPOL_* with its flags */
    const char *mode_name;
    const char *nodes;
};

struct spec {
    struct pool *pool;
    json_t *doc; /* owned */
    const char *version;
    const char *root_path;
    bool root_readonly;
    const char *hostname, *domainname;
    bool has_process;
    struct spec_process process;
    struct spec_mount *mounts;
    size_t mount_count;
    struct spec_hooks hooks[HOOK_KINDS];
    json_t *annotations;

    struct spec_ns ns[NS_KINDS];
    struct spec_idmaps uid_maps, gid_maps;
    s64 time_offset_s[2]; /* monotonic, boottime */
    u32 time_offset_ns[2];
    bool has_time_offsets;
    struct spec_device *devices;
    size_t device_count;
    struct spec_netdev *netdevs;
    size_t netdev_count;
    struct spec_pair *sysctl;
    size_t sysctl_count;
    const char *cgroups_path;
    json_t *resources, *seccomp, *intel_rdt;
    const char *rootfs_propagation, *mount_label;
    struct strv masked, readonly;
    bool has_personality;
    unsigned long personality;
    struct spec_mempolicy mempolicy;
};

/* Reads and checks. `s` must be zeroed and gets doc's reference even when the call fails. */
int spec_parse(struct spec *s, struct pool *pool, json_t *doc, struct err *err);
/* Fills *proc from a process object (of config.json, or of exec's --process). */
int spec_parse_process(struct pool *pool, json_t *obj, struct spec_process *proc, struct err *err);
void spec_fini(struct spec *s);

/* Parts of spec_parse, each in its own file. */
int spec_parse_linux(struct spec *s, json_t *linux_obj, struct err *err);
int spec_parse_idmaps(struct pool *p, json_t *obj, const char *key, struct spec_idmaps *ret,
                      struct err *err);
int spec_parse_scheduler(json_t *obj, struct spec_scheduler *ret, struct err *err);
int spec_parse_ioprio(json_t *obj, int *ret, struct err *err);
int spec_parse_mempolicy(json_t *obj, struct spec_mempolicy *ret, struct err *err);
int spec_parse_personality(json_t *obj, unsigned long *ret, struct err *err);
/* What only makes sense together: namespaces against sysctl, maps, mounts, offsets. */
int spec_check(const struct spec *s, struct err *err);

static inline bool spec_has_ns(const struct spec *s, enum ns_kind k)
{
    return s->ns[k].present;
}

static inline bool spec_new_ns(const struct spec *s, enum ns_kind k)
{
    return s->ns[k].present && !s->ns[k].path;
}

#endif
