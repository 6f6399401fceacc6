/* Making a container: what `create`, `run` and `restore` share. */
#ifndef CONTAINER_CREATE_H
#define CONTAINER_CREATE_H

#include "container/init.h"
#include "container/runtime.h"

struct create_opts {
    const char *id, *bundle, *pid_file, *console_socket, *pidfd_socket, *preserve_fds_text;
    bool no_pivot, no_new_keyring, no_subreaper, detach, keep;
    bool run; /* the program starts at once */
};

struct creation {
    struct runtime *rt;
    const struct create_opts *opts;
    struct spec spec;
    struct state state;
    struct init init;
    struct seccomp_prog seccomp;
    int netns;  /* of init, while network devices of ours are in it; -1 */
    int sync;   /* the runtime's end */
    int pid;    /* of init, or of the stage before it; -1 */
    int master; /* for `run` with a terminal and no console socket: where the master arrives; -1 */
    bool made_cgroups;
    bool spawned; /* there was an init, so hooks may have been called, and poststop hooks are due */
    bool in_v2;   /* init was cloned into its v2 group */
};

/* Reads the bundle and makes the state directory; nothing else exists yet. */
int create_load(struct creation *c, struct runtime *rt, const struct create_opts *opts,
                struct err *err);
/* Everything up to READY. On failure all is undone. */
int create_container(struct creation *c, struct err *err);
/* `restore`: cgroups and records for a process that CRIU is about to make. */
int create_prepare_restore(struct creation *c, struct err *err);
/* Writes c->pid into the record, the pid file and the pidfd socket. */
int create_record(struct creation *c, struct err *err);
/* Makes the engine's paths absolute: the bundle becomes the working directory. */
void create_absolute(struct runtime *rt, struct create_opts *o);
/* Lets init go on: to wait for `start`, or (run) to its program; then waits until that has begun. */
int create_release(struct creation *c, struct err *err);
/* Removes every trace: process, cgroups, state. Safe at any point. */
void create_undo(struct creation *c);
/* Frees what the structure holds; the container stays. */
void create_fini(struct creation *c);

/* The options that `create` and `run` have in common are put in front of opts; returns how many. */
size_t create_options(struct create_opts *o, struct option *opts, bool run);

/* start.c: tells the init of a created container to go on, and hears whether its program began. */
int start_container(struct state *st, const struct spec *s, struct err *err);
/* start.c: answers the messages of a process that starts: seccomp listener, failure, end of file. */
int start_listen(int sock, const struct seccomp_prog *prog, json_t *state, int pid,
                 struct err *err);
/* delete.c: cgroups, resctrl group, state directory, poststop hooks. The process is gone already. */
int delete_leftovers(struct state *st, struct err *err);
/* delete.c: kills the container's init and waits until it is gone. No error when it is gone already. */
int delete_kill_init(struct state *st, struct err *err);
/* foreground.c: stays with the container's process, passing signals and terminal; its exit status. */
int foreground_wait(int pid, int master_socket, bool subreaper, struct err *err);
/* engine.c: writes a pid atomically into a file anywhere. */
int create_write_pid(const char *path, int pid, struct err *err);
/* engine.c: sends a pidfd of the process to a socket. */
int create_send_pidfd(const char *path, int pid, struct err *err);
/* engine.c: connects to the unix socket at a path of any length. A descriptor or -errno. */
int create_connect(const char *path, struct err *err);

#endif
