/*
 * The receiver's front: connections that have not said yet what they are.
 *
 *   accepted --(TLS, in a process of its own)--> greeting --HELLO--> waits for its JOINs --> a process of its own
 *                                                  |  \--JOIN--> waits for its HELLO
 *                                                  \--QUERY--> answered, closed
 *
 * Invariants:
 *  1. Nothing here waits for one connection: all are polled, and each has GREETING_MS for all it has to say.
 *  2. At most PENDING_MAX are held, and each holds at most one greeting in memory. Who says nothing makes room for others.
 */
#include "cmd/receive.h"

#include "cmd/status.h"
#include "cmd/target.h"
#include "x86/cpuid.h"
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PENDING_MAX 64
#define GREETING_MS 15000

struct pending {
    int fd; /* -1: free */
    s64 until_ms;
    u8 *bytes; /* head and body as far as they have come */
    size_t len, want;
    bool greeted;
    struct migrate_head head;
    u8 token[MIGRATE_TOKEN_BYTES];
    u32 index; /* of JOIN; HELLO is 0 */
};

struct front {
    const struct receive_options *options;
    int listener; /* -1: none */
    struct pending pending[PENDING_MAX];
    unsigned served; /* machines, reconnects and queries */
};

static s64 now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void drop(struct pending *p)
{
    if (p->fd >= 0)
        close(p->fd);
    free(p->bytes);
    *p = (struct pending){.fd = -1};
}

/* Room for one more: of those that have not said what they are, who began first has had the most time for it. */
static void make_room(struct front *f)
{
    struct pending *oldest = NULL;

    for (unsigned i = 0; i < PENDING_MAX; i++) {
        struct pending *p = &f->pending[i];

        if (p->fd < 0)
            return;
        if (!p->greeted && (!oldest || p->until_ms < oldest->until_ms))
            oldest = p;
    }
    if (oldest)
        drop(oldest);
}

static void take(struct front *f, int fd)
{
    make_room(f);
    for (unsigned i = 0; i < PENDING_MAX; i++) {
        struct pending *p = &f->pending[i];

        if (p->fd >= 0)
            continue;
        *p = (struct pending){
            .fd = fd,
            .until_ms = now_ms() + GREETING_MS,
            .want = MIGRATE_HEAD_BYTES,
            .bytes = malloc(MIGRATE_HEAD_BYTES + MIGRATE_HELLO_BYTES + MIGRATE_CONFIG_MAX)};
        if (!p->bytes)
            drop(p);
        return;
    }
    close(fd);
}

static void accept_one(struct front *f)
{
    struct err err = ERR_INIT;
    int fd = accept4(f->listener, NULL, NULL, SOCK_CLOEXEC);

    if (fd < 0)
        return;
    host_tsc_watch(); /* long enough before a machine's description is checked */
    target_tune(fd);
    if (tls_wanted(&f->options->tls)) {
        int raw = fd;

        /* The handshake waits, so it is done by who carries the bytes later. */
        if (tls_serve(&f->options->tls, raw, &fd, &err)) {
            fprintf(stderr, "trapeze receive: %s\n", err.msg);
            fd = -1;
        }
        close(raw);
    }
    if (fd >= 0)
        take(f, fd);
}

/* The greeting's head has come: is it one, and how much follows? */
static int read_head(struct pending *p, struct err *err)
{
    int rc = migrate_head_get(p->bytes, MIGRATE_TO_DESTINATION, 0, &p->head, err);

    if (rc)
        return rc;
    if (p->head.type != MIGRATE_HELLO && p->head.type != MIGRATE_JOIN &&
        p->head.type != MIGRATE_QUERY)
        return err_set(err, EPROTO, "message %s is no greeting", migrate_type_name(p->head.type));
    p->want += p->head.len;
    return 0;
}

static int read_greeting(struct pending *p, struct err *err)
{
    const u8 *body = p->bytes + MIGRATE_HEAD_BYTES;
    struct migrate_hello hello;
    const u8 *config;

    if (p->head.type == MIGRATE_HELLO) {
        int rc = migrate_hello_get(body, p->head.len, &hello, &config, err);

        if (rc)
            return rc;
        memcpy(p->token, hello.token, sizeof(p->token));
    } else {
        memcpy(p->token, body, sizeof(p->token));
    }
    if (p->head.type == MIGRATE_JOIN)
        p->index = (u32)migrate_get(body + MIGRATE_TOKEN_BYTES, 4);
    if (p->head.type == MIGRATE_JOIN && (!p->index || p->index >= MIGRATE_CONNECTIONS))
        return err_set(err, EPROTO, "JOIN as connection %u", p->index);
    p->greeted = true;
    return 0;
}

/* Reads what has come; never more than the greeting, so the next reader finds what is behind it. */
static void read_some(struct pending *p)
{
    struct err err = ERR_INIT;
    ssize_t n = read(p->fd, p->bytes + p->len, p->want - p->len);
    int rc = 0;

    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0) {
        drop(p);
        return;
    }
    p->len += (size_t)n;
    if (p->len == MIGRATE_HEAD_BYTES)
        rc = read_head(p, &err);
    if (!rc && p->len == p->want && p->len > MIGRATE_HEAD_BYTES)
        rc = read_greeting(p, &err);
    if (!rc)
        return;
    fprintf(stderr, "trapeze receive: %s\n", err.msg);
    receive_say(p->fd, MIGRATE_FIT, err.msg, (u32)strlen(err.msg));
    drop(p);
}

static void answer(struct front *f, struct pending *p)
{
    u8 said = receive_answer(f->options, p->token);

    receive_say(p->fd, MIGRATE_ANSWER, &said, 1);
    drop(p);
    f->served++;
}

/* All connections of a HELLO, by their index; false: some are still to come. */
static bool gather(struct front *f, const struct pending *hello, unsigned n, int *fds)
{
    for (unsigned index = 1; index < n; index++) {
        fds[index] = -1;
        for (unsigned i = 0; i < PENDING_MAX; i++) {
            const struct pending *p = &f->pending[i];

            if (p->fd >= 0 && p->greeted && p->head.type == MIGRATE_JOIN && p->index == index &&
                !memcmp(p->token, hello->token, sizeof(p->token)))
                fds[index] = p->fd;
        }
        if (fds[index] < 0)
            return false;
    }
    fds[0] = hello->fd;
    return true;
}

static void forget_all(struct front *f, const u8 *token)
{
    u8 copy[MIGRATE_TOKEN_BYTES];

    memcpy(copy, token, sizeof(copy));
    for (unsigned i = 0; i < PENDING_MAX; i++)
        if (f->pending[i].fd >= 0 && f->pending[i].greeted &&
            !memcmp(f->pending[i].token, copy, sizeof(copy)))
            drop(&f->pending[i]);
}

static void close_others(struct front *f, const int *fds, unsigned n)
{
    for (unsigned i = 0; i < PENDING_MAX; i++) {
        bool mine = false;

        for (unsigned k = 0; k < n; k++)
            mine |= f->pending[i].fd == fds[k];
        if (f->pending[i].fd >= 0 && !mine)
            close(f->pending[i].fd);
    }
    if (f->listener >= 0)
        close(f->listener);
}

/* In a process of its own: the machine may take its time. */
static int go_on(const struct receive_options *o, const struct migrate_hello *hello, const int *fds)
{
    struct err err = ERR_INIT;

    if (!receive_again(o, hello, fds, hello->connections, &err))
        return STATUS_OK;
    fprintf(stderr, "trapeze receive: %s\n", err.msg);
    receive_say(fds[0], MIGRATE_FAILED, err.msg, (u32)strlen(err.msg));
    return STATUS_HOST;
}

/* The HELLO is complete with all its connections. */
static void serve(struct front *f, struct pending *p)
{
    struct migrate_hello hello;
    struct err err = ERR_INIT;
    int fds[MIGRATE_CONNECTIONS];
    const u8 *config;

    migrate_hello_get(p->bytes + MIGRATE_HEAD_BYTES, p->head.len, &hello, &config, &err);
    if (!gather(f, p, hello.connections, fds))
        return;
    f->served++;
    fflush(NULL);
    pid_t child = fork();
    if (!child) {
        close_others(f, fds, hello.connections);
        signal(SIGCHLD, SIG_DFL);
        _exit(hello.flags & MIGRATE_HELLO_RESUME
                  ? go_on(f->options, &hello, fds)
                  : receive_machine(f->options, &hello, config, fds, hello.connections));
    }
    if (child < 0)
        receive_say(p->fd, MIGRATE_FIT, "the receiver has no process left", 32);
    forget_all(f, hello.token);
}

static void handle(struct front *f, struct pending *p)
{
    if (!p->greeted)
        read_some(p);
    if (p->fd < 0 || !p->greeted)
        return;
    if (p->head.type == MIGRATE_QUERY)
        answer(f, p);
}

static void expire(struct front *f)
{
    s64 now = now_ms();

    for (unsigned i = 0; i < PENDING_MAX; i++) {
        struct pending *p = &f->pending[i];

        if (p->fd >= 0 && p->greeted && p->head.type == MIGRATE_HELLO)
            serve(f, p);
        if (p->fd >= 0 && now > p->until_ms)
            drop(p);
    }
}

static bool is_idle(const struct front *f)
{
    for (unsigned i = 0; i < PENDING_MAX; i++)
        if (f->pending[i].fd >= 0)
            return false;
    return true;
}

int receive_serve(const struct receive_options *o, int listener, int first, struct err *err)
{
    struct front f = {.options = o, .listener = listener};

    for (unsigned i = 0; i < PENDING_MAX; i++)
        f.pending[i].fd = -1;
    if (first >= 0)
        take(&f, first);
    while (listener >= 0 || !is_idle(&f)) {
        struct pollfd p[PENDING_MAX + 1] = {{.fd = listener, .events = POLLIN}};

        for (unsigned i = 0; i < PENDING_MAX; i++)
            p[1 + i] = (struct pollfd){f.pending[i].greeted ? -1 : f.pending[i].fd, POLLIN, 0};
        int n = poll(p, ARRAY_LEN(p), is_idle(&f) ? -1 : 500);
        if (n < 0 && errno != EINTR)
            return err_sys(err, errno, "poll");
        for (unsigned i = 0; i < PENDING_MAX && n > 0; i++)
            if (p[1 + i].revents)
                handle(&f, &f.pending[i]);
        if (n > 0 && p[0].revents)
            accept_one(&f);
        expire(&f);
        while (listener >= 0 && waitpid(-1, NULL, WNOHANG) > 0)
            ;
    }
    while (waitpid(-1, NULL, 0) > 0)
        ;
    return f.served ? 0 : err_set(err, EPROTO, "nobody said what to receive");
}
