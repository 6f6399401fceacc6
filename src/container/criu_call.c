/*
 * The conversation with CRIU: a socket pair, `criu swrk FD` at its other end, a request, its answer. One service
 * per request; it dies with us. Its mount namespace is its own, so that what it mounts (control groups, of all
 * things, below the directory of images) goes away with it, even if it is killed.
 */
#include "container/criu.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "container/sync.h"

#define ANSWER_MAX 65536

/* Members of criu_req, criu_resp and the messages in them. */
enum {
    REQ_TYPE = 1,
    REQ_OPTS = 2,
    REQ_NOTIFY_SUCCESS = 3,
    REQ_FEATURES = 5,
    RESP_TYPE = 1,
    RESP_SUCCESS = 2,
    RESP_RESTORE = 4,
    RESP_ERRNO = 7,
    RESP_FEATURES = 8,
    RESP_ERROR_TEXT = 9,
    RESP_VERSION = 10,
};

struct answer {
    u8 data[ANSWER_MAX];
    size_t len;
    bool success;
    unsigned type;
    char error[256];
    struct proto_field restore, features, version;
};

static const char *service_path(const struct runtime *rt)
{
    return rt->criu && rt->criu[0] ? rt->criu : "criu";
}

/* r: what is dumped or restored; NULL for a question. */
static int spawn(const struct runtime *rt, const struct criu_request *r, int *ret_sock,
                 struct err *err)
{
    int pair[2], child;
    char number[16];

    if (sync_pair(pair, err) < 0)
        return -err->code;
    child = fork();
    if (child == 0) {
        int fd = dup(pair[1]); /* stays open in the service */

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (r && setns(r->mounts, CLONE_NEWNS) < 0)
            _exit(126);
        snprintf(number, sizeof(number), "%d", fd);
        execlp(service_path(rt), service_path(rt), "swrk", number, (char *)NULL);
        _exit(127);
    }
    close(pair[1]);
    if (child < 0) {
        close(pair[0]);
        return err_sys(err, errno, "fork for criu");
    }
    *ret_sock = pair[0];
    return child;
}

static void parse_answer(struct answer *a)
{
    const u8 *at = a->data;
    size_t left = a->len;
    struct proto_field f;

    a->success = false;
    while (proto_next(&at, &left, &f)) {
        if (f.field == RESP_TYPE)
            a->type = (unsigned)f.value;
        else if (f.field == RESP_SUCCESS)
            a->success = f.value;
        else if (f.field == RESP_ERRNO && f.value && !a->error[0])
            snprintf(a->error, sizeof(a->error), "%s", strerror(abs((int)f.value)));
        else if (f.field == RESP_ERROR_TEXT && f.data && f.len)
            snprintf(a->error, sizeof(a->error), "%.*s", (int)MIN(f.len, sizeof(a->error)), f.data);
        else if (f.field == RESP_RESTORE)
            a->restore = f;
        else if (f.field == RESP_FEATURES)
            a->features = f;
        else if (f.field == RESP_VERSION)
            a->version = f;
    }
}

/* A number inside an answer's submessage; `missing` when it is not there. */
static u64 number_in(struct proto_field sub, unsigned field, u64 missing)
{
    struct proto_field f;

    while (sub.data && proto_next(&sub.data, &sub.len, &f))
        if (f.field == field)
            missing = f.value;
    return missing;
}

static bool send_proto(int sock, const struct proto *p)
{
    return !p->failed && send(sock, p->data, p->len, MSG_NOSIGNAL) == (ssize_t)p->len;
}

/* What the service asks on its way (scripts of others) is answered with "go on". */
static bool receive(int sock, struct answer *a)
{
    for (;;) {
        struct proto go = {0};
        ssize_t n;
        bool sent;

        do
            n = recv(sock, a->data, sizeof(a->data), 0);
        while (n < 0 && errno == EINTR);
        if (n <= 0)
            return false;
        a->len = (size_t)n;
        parse_answer(a);
        if (a->type != CRIU_NOTIFY)
            return true;
        proto_u64(&go, REQ_TYPE, CRIU_NOTIFY);
        proto_u64(&go, REQ_NOTIFY_SUCCESS, true);
        sent = send_proto(sock, &go);
        proto_fini(&go);
        if (!sent)
            return false;
    }
}

/* True when an answer came. *ret_status: how the service ended. */
static bool ask(const struct runtime *rt, const struct criu_request *r, const struct proto *req,
                struct answer *a, int *ret_status, struct err *err)
{
    int sock = -1, child = spawn(rt, r, &sock, err);
    bool answered;

    if (child < 0)
        return false;
    answered = send_proto(sock, req) && receive(sock, a);
    close(sock);
    while (waitpid(child, ret_status, 0) < 0 && errno == EINTR)
        ;
    return answered;
}

unsigned criu_version(const struct runtime *rt)
{
    auto_free struct answer *a = calloc(1, sizeof(*a));
    struct err ignored = ERR_INIT;
    struct proto req = {0};
    unsigned version = 0;
    int status;

    proto_u64(&req, REQ_TYPE, CRIU_VERSION);
    if (a && ask(rt, NULL, &req, a, &status, &ignored) && a->success)
        version = (unsigned)(number_in(a->version, 1, 0) * 10000 +
                             number_in(a->version, 2, 0) * 100 + number_in(a->version, 4, 0));
    proto_fini(&req);
    return version;
}

bool criu_has_features(const struct runtime *rt, bool mem_track, bool lazy_pages)
{
    auto_free struct answer *a = calloc(1, sizeof(*a));
    struct err ignored = ERR_INIT;
    struct proto req = {0}, features = {0};
    int status;
    bool has;

    if (mem_track)
        proto_u64(&features, 1, true);
    if (lazy_pages)
        proto_u64(&features, 2, true);
    proto_u64(&req, REQ_TYPE, CRIU_FEATURES);
    proto_msg(&req, REQ_FEATURES, &features);
    has = a && ask(rt, NULL, &req, a, &status, &ignored) && a->success &&
          (!mem_track || number_in(a->features, 1, 0)) &&
          (!lazy_pages || number_in(a->features, 2, 0));
    proto_fini(&features);
    proto_fini(&req);
    return has;
}

/* "(00.012) Error (criu/x.c:1): text": the first such line says why, the later ones what followed. */
static void explain(const struct criu_request *r, struct err *err)
{
    char path[4096], line[512];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", r->work_path, r->log);
    f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f)) {
        if (strstr(line, "Error (criu/vdso.c")) {
            err_set(err, ENOTSUP,
                    "this CRIU is too old for this kernel: it cannot read the kernel's vdso. "
                    "Debian 12's 3.17 works up to Linux 6.2 or so; name a newer one with --criu. "
                    "Log file: %.150s",
                    path);
            break;
        }
        if (!strstr(line, "Error (") || strstr(line, "RLIMIT_NOFILE"))
            continue;
        line[strcspn(line, "\n")] = '\0';
        err_set(err, EIO, "criu failed: %.300s%s; log file: %.150s", strstr(line, "Error ("),
                strstr(line, "Can't lookup mount")
                    ? " (the program has a file of the host open, and CRIU takes only pipes, "
                      "terminals and files of the container's mounts)"
                    : "",
                path);
        break;
    }
    if (f)
        fclose(f);
}

int criu_call(const struct runtime *rt, enum criu_type type, const struct criu_request *r,
              int *ret_pid, struct err *err)
{
    auto_free struct answer *a = calloc(1, sizeof(*a));
    struct proto req = {0};
    int status = 0;
    bool answered;

    if (!a)
        return err_set(err, ENOMEM, "no memory for criu's answer");
    proto_u64(&req, REQ_TYPE, type);
    proto_msg(&req, REQ_OPTS, &r->opts);
    answered = ask(rt, r, &req, a, &status, err);
    proto_fini(&req);
    if (err->code)
        return -err->code;
    if (answered && a->success) {
        if (ret_pid)
            *ret_pid = (int)number_in(a->restore, 1, 0);
        return 0;
    }
    if (answered)
        err_set(err, EIO, "criu failed: %s; log file: %s/%s", a->error, r->work_path, r->log);
    else
        err_set(err, EIO, "criu ended without an answer (status %d); log file: %s/%s",
                WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), r->work_path,
                r->log);
    explain(r, err);
    return -err->code;
}
