/*
 * Starting the program of a created container. Its init listens at start.sock; it answers with its seccomp
 * listener if there is one, with an error, or, by the closing of the socket at execve, that the program runs.
 */
#include "container/create.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "container/hook.h"
#include "container/notify.h"
#include "container/report.h"
#include "container/sync.h"

int start_listen(int sock, const struct seccomp_prog *prog, json_t *state, int pid, struct err *err)
{
    for (;;) {
        struct sync_msg msg;
        int fd = -1, rc = sync_recv(sock, &msg, &fd);

        if (rc == -EPIPE || rc == -ECONNRESET)
            return 0;
        if (rc < 0)
            return err_sys(err, -rc, "wait for the container's program");
        if (msg.kind == SYNC_ERROR)
            return err_set(err, msg.value > 0 ? msg.value : EIO,
                           "unable to start container process: %s", msg.text);
        if (msg.kind == SYNC_NOTIFY && fd >= 0) {
            rc = seccomp_send_listener(prog, state, pid, fd, err);
            close(fd);
            if (rc < 0)
                return rc;
            rc = sync_send(sock, SYNC_GO, 0, NULL, -1);
            if (rc < 0 && rc != -EPIPE)
                return err_sys(err, -rc, "talk to the container's process");
        }
    }
}

static int connect_init(const struct state *st, struct err *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    snprintf(addr.sun_path, sizeof(addr.sun_path), "/proc/self/fd/%d/" STATE_SOCKET, st->dirfd);
    if (sock >= 0 && connect(sock, (struct sockaddr *)&addr, sizeof(addr)) == 0)
        return sock;
    err_sys(err, errno, "reach the init of container %s", st->id);
    if (sock >= 0)
        close(sock);
    return -err->code;
}

static int seccomp_words(const struct spec *s, struct seccomp_prog *ret, struct err *err)
{
    *ret = (struct seccomp_prog){0};
    return json_str(s->seccomp, "listenerPath", &ret->listener_path, err) < 0 ||
                   json_str(s->seccomp, "listenerMetadata", &ret->listener_metadata, err) < 0
               ? -err->code
               : 0;
}

int start_container(struct state *st, const struct spec *s, struct err *err)
{
    auto_close int sock = -1;
    struct seccomp_prog prog;
    int notify, rc;
    json_t *state;

    if (seccomp_words(s, &prog, err) < 0)
        return -err->code;
    sock = connect_init(st, err);
    if (sock < 0)
        return sock;
    notify = notify_open(st);
    if (sync_send(sock, SYNC_GO, 0, NULL, -1) < 0)
        return err_set(err, EPIPE, "the container's init has gone away");
    /* From here on it is started, or dead: in neither case may a second `start` try. */
    unlinkat(st->dirfd, STATE_SOCKET, 0);
    state = state_to_json(st, STATUS_CREATING);
    rc = start_listen(sock, &prog, state, st->pid, err);
    json_object_put(state);
    if (rc < 0)
        return rc;
    state = state_to_json(st, STATUS_RUNNING);
    rc = hook_run(s, HOOK_POSTSTART, state, err);
    json_object_put(state);
    if (rc < 0) {
        struct err late = ERR_INIT;

        /* The container stops, and stays for `delete` (runtime.md, lifecycle, step 9). */
        if (delete_kill_init(st, &late) < 0)
            report(REPORT_WARN, "%s", late.msg);
        return rc;
    }
    if (notify >= 0)
        notify_wait(notify, st);
    return 0;
}

int verb_start(struct runtime *rt, int argc, char **argv, struct err *err)
{
    struct state st;
    struct spec s = {0};
    int at = verb_parse(rt, NULL, 0, 1, 1, argc, argv, err), rc;
    enum status status;

    if (at < 0)
        return at;
    rc = state_open(&st, &rt->pool, rt->root, argv[at], true, err);
    status = rc == 0 ? state_status(&st) : STATUS_STOPPED;
    if (rc == 0 && status == STATUS_STOPPED)
        rc = err_set(err, EINVAL, "cannot start a container that has stopped");
    else if (rc == 0 && status != STATUS_CREATED)
        rc = err_set(err, EINVAL, "cannot start an already running container");
    if (rc == 0)
        rc = state_spec(&st, &s, err);
    if (rc == 0 && !s.has_process)
        rc = err_set(err, EINVAL, "process property must not be empty");
    if (rc == 0)
        rc = start_container(&st, &s, err);
    spec_fini(&s);
    state_close(&st);
    return rc;
}
