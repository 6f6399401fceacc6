/* CRIU's command line: finding one that works, describing a container to it, running it. */
#ifndef CONTAINER_CRIU_H
#define CONTAINER_CRIU_H

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

/* A path to criu of version 3.17 or newer, or a message that says what is missing. */
int criu_find(const struct runtime *rt, const char **ret, struct err *err);
/* Puts the shared options and both directories (made if missing) behind what `args` has. */
int criu_add_options(struct runtime *rt, const struct criu_opts *o, struct strv *args,
                     struct err *err);
/* Names every mount that CRIU must take as given; `restore` also says where it comes from. */
void criu_add_mounts(struct runtime *rt, const struct state *st, const struct spec *s, bool restore,
                     struct strv *args);
/* Runs it; on failure the message holds the first error of its log. */
int criu_run(const struct strv *args, const char *work_path, const char *log, struct err *err);

#endif
