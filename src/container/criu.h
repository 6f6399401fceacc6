/*
 * CRIU's service (criu.org/RPC): `criu swrk` takes one request over a socket and answers it. checkpoint.c says
 * what to do, criu.c describes a container, criu_call.c talks.
 */
#ifndef CONTAINER_CRIU_H
#define CONTAINER_CRIU_H

#include "container/proto.h"
#include "container/runtime.h"

/* Options that `checkpoint` and `restore` share. */
struct criu_opts {
    const char *image_path, *work_path, *parent_path, *page_server, *cgroups_mode, *empty_ns,
        *status_fd;
    const char *lsm_profile, *lsm_mount_context;
    bool leave_running, tcp_established, ext_unix_sk, shell_job, lazy_pages, file_locks, pre_dump,
        auto_dedup;
    bool tcp_skip_in_flight, link_remap;
};

/* criu_req_type of rpc.proto. */
enum criu_type {
    CRIU_DUMP = 1,
    CRIU_RESTORE = 2,
    CRIU_NOTIFY = 6,
    CRIU_FEATURES = 9,
    CRIU_VERSION = 10,
    CRIU_PRE_DUMP = 13, /* one round, after which the service ends */
};

/* Members of criu_opts in rpc.proto. */
enum criu_field {
    CRIU_OPT_IMAGES_FD = 1,
    CRIU_OPT_PID = 2,
    CRIU_OPT_LEAVE_RUNNING = 3,
    CRIU_OPT_EXT_UNIX_SK = 4,
    CRIU_OPT_TCP_ESTABLISHED = 5,
    CRIU_OPT_SHELL_JOB = 7,
    CRIU_OPT_FILE_LOCKS = 8,
    CRIU_OPT_LOG_LEVEL = 9,
    CRIU_OPT_LOG_FILE = 10,
    CRIU_OPT_PAGE_SERVER = 11,
    CRIU_OPT_ROOT = 13,
    CRIU_OPT_PARENT = 14,
    CRIU_OPT_TRACK_MEM = 15,
    CRIU_OPT_AUTO_DEDUP = 16,
    CRIU_OPT_WORK_FD = 17,
    CRIU_OPT_LINK_REMAP = 18,
    CRIU_OPT_MANAGE_CGROUPS = 24,
    CRIU_OPT_CGROUP_ROOT = 25,
    CRIU_OPT_SIBLING = 26,
    CRIU_OPT_INHERIT_FD = 27,
    CRIU_OPT_CGROUPS_MODE = 34,
    CRIU_OPT_EXTERNAL = 37,
    CRIU_OPT_EMPTY_NS = 38,
    CRIU_OPT_FREEZE = 44,
    CRIU_OPT_SKIP_IN_FLIGHT = 46,
    CRIU_OPT_LAZY_PAGES = 48,
    CRIU_OPT_STATUS_FD = 49,
    CRIU_OPT_LSM_PROFILE = 53,
    CRIU_OPT_LSM_MOUNT_CONTEXT = 63,
};

struct criu_request {
    struct proto opts;
    int mounts;       /* the service's mount namespace, -1 */
    int images, work; /* directories, in that namespace, -1 */
    const char *work_path, *log;
};

/* That there is a CRIU of version 3.17 or newer that can do what the options ask for, or what is missing. */
int criu_check(const struct runtime *rt, const struct criu_opts *o, struct err *err);
/*
 * Makes the service's mount namespace, opens both directories there (made if missing), and begins the request
 * with the shared options. `root`, which may be NULL, becomes a mount point there.
 */
int criu_begin(struct criu_request *ret, const struct criu_opts *o, const char *log,
               const char *root, struct err *err);
void criu_end(struct criu_request *r);
/* Names every mount that CRIU must take as given; `restore` also says where it comes from. */
void criu_add_mounts(struct criu_request *r, struct runtime *rt, const struct state *st,
                     const struct spec *s, bool restore);
/*
 * criu_call.c: has the request served, in a mount namespace of its own. *ret_pid (may be NULL) gets the restored process. On failure the message
 * holds the first error of CRIU's log.
 */
int criu_call(const struct runtime *rt, enum criu_type type, const struct criu_request *r,
              int *ret_pid, struct err *err);
/* criu_call.c: the version as major * 10000 + minor * 100 + sublevel; 0: no such service. */
unsigned criu_version(const struct runtime *rt);
/* criu_call.c: whether the service and the kernel have dirty tracking, and lazy pages. */
bool criu_has_features(const struct runtime *rt, bool mem_track, bool lazy_pages);

#endif
