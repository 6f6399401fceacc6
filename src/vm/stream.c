/*
 * The host's side of a serial port or console.
 *
 * Invariants:
 *  1. The ring is filled by any thread and emptied by the main loop only, both under the lock; what is being written
 *     out is copied from it first, and taken off it afterwards.
 *  2. A call to flush() is queued in the loop, or `out` is watched for room, whenever the ring is not empty.
 *  3. Descriptors of ours are non-blocking where the kernel lets us have our own open file description: setting
 *     O_NONBLOCK on the one we share with the shell would change the shell's.
 */
#include "vm/stream.h"

#include "vm/stream_client.h"
#include "vm/stream_log.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define CHUNK 4096 /* PIPE_BUF: a pipe that polls as writable takes this much at once */
#define CLOSE_MS 200
#define CTRL_A 1

struct stream {
    struct chardev dev;
    struct loop *loop;
    struct loop_fd in, out, listener;
    struct stream_log log; /* fd -1: output goes to `out`, if anywhere */
    struct stream_clients clients;
    enum vm_serial_kind kind;
    bool in_polls, out_polls; /* epoll takes the descriptor; files and /dev/null it does not */
    struct stream_keys keys;
    bool escaped;  /* Ctrl-A was typed */
    u8 input[256]; /* read, but not taken by the front yet */
    size_t input_len;
    bool input_ended;

    pthread_mutex_t lock; /* protects all below */
    u8 *ring;
    size_t head, used; /* first waiting byte, how many wait */
    bool flushing;     /* see invariant 2 */
    bool starved;      /* the front was refused bytes */
    bool deaf;         /* nobody to write to: drop output */
};

static void flush(void *opaque);
static void feed(void *opaque);

static size_t stream_write(struct chardev *c, const u8 *buf, size_t len)
{
    struct stream *s = CONTAINER_OF(c, struct stream, dev);
    bool wake = false;
    size_t n = len;

    pthread_mutex_lock(&s->lock);
    if (!s->deaf) {
        n = MIN(len, STREAM_RING - s->used);
        for (size_t i = 0; i < n; i++)
            s->ring[(s->head + s->used + i) % STREAM_RING] = buf[i];
        s->used += n;
        s->starved |= n < len;
        wake = !s->flushing;
        s->flushing = true;
    }
    pthread_mutex_unlock(&s->lock);
    if (wake && loop_call(s->loop, flush, s)) {
        pthread_mutex_lock(&s->lock);
        s->flushing = false; /* out of memory: the next write tries again */
        pthread_mutex_unlock(&s->lock);
    }
    return n;
}

/* Throws away what waits; from now on all of it, while nobody is there to read it. */
static void drop_output(struct stream *s)
{
    pthread_mutex_lock(&s->lock);
    s->used = 0;
    s->deaf = s->out.fd < 0 && s->log.fd < 0 && !s->clients.first;
    s->flushing = false;
    pthread_mutex_unlock(&s->lock);
}

/* Up to CHUNK bytes from the front of the ring, left there. */
static size_t peek(struct stream *s, u8 *buf)
{
    pthread_mutex_lock(&s->lock);
    size_t n = MIN(s->used, (size_t)CHUNK);
    for (size_t i = 0; i < n; i++)
        buf[i] = s->ring[(s->head + i) % STREAM_RING];
    s->flushing = n > 0;
    pthread_mutex_unlock(&s->lock);
    return n;
}

static void take(struct stream *s, size_t n)
{
    pthread_mutex_lock(&s->lock);
    s->head = (s->head + n) % STREAM_RING;
    s->used -= n;
    bool tell = s->starved;
    s->starved = false;
    pthread_mutex_unlock(&s->lock);
    if (tell && s->dev.front.writable)
        s->dev.front.writable(s->dev.front.opaque);
}

static void close_watched(struct stream *s, struct loop_fd *f)
{
    if (f->added)
        loop_remove(s->loop, f);
    if (f->fd >= 0)
        close(f->fd);
    f->fd = -1;
}

/* The reader has gone, or the disk is full: the guest goes on without it. */
static void give_up_output(struct stream *s)
{
    close_watched(s, &s->out);
    s->out_polls = false;
    if (s->log.fd >= 0)
        close(s->log.fd);
    s->log.fd = -1;
}

/* Writes one chunk: 1 = go on, 0 = nothing waits, -EAGAIN: `out` takes no more now. */
static int write_chunk(struct stream *s)
{
    u8 buf[CHUNK];
    size_t len = peek(s, buf);
    ssize_t n = (ssize_t)len;

    if (!len)
        return 0;
    if (s->log.fd >= 0 && stream_log_write(&s->log, buf, len))
        give_up_output(s);
    if (s->out.fd >= 0)
        n = write(s->out.fd, buf, len);
    if (n < 0 && errno == EINTR)
        return 1;
    if (n < 0 && errno == EAGAIN)
        return -EAGAIN;
    if (n < 0) {
        give_up_output(s);
        n = (ssize_t)len;
    }
    stream_clients_put(&s->clients, buf, (size_t)n);
    take(s, (size_t)n);
    return 1;
}

/* Main loop: writes out as much as the other side takes, then waits for room. */
static void flush(void *opaque)
{
    struct stream *s = opaque;
    int rc;

    while ((rc = write_chunk(s)) > 0)
        ;
    if (s->out.fd < 0 && s->log.fd < 0 && !s->clients.first)
        drop_output(s);
    if (rc == -EAGAIN && !s->out_polls) { /* epoll does not take it, so we cannot wait for it */
        give_up_output(s);
        drop_output(s);
    }
    if (s->out_polls)
        loop_modify(s->loop, &s->out, rc == -EAGAIN ? EPOLLOUT : 0);
}

static void output_ready(void *opaque, u32 events)
{
    struct stream *s = opaque;

    if ((events & (EPOLLERR | EPOLLHUP)) && !(events & EPOLLOUT)) {
        give_up_output(s); /* it would be reported for ever */
        drop_output(s);
        return;
    }
    flush(s);
}

/* Takes Ctrl-A and the key after it out of what was typed. */
static size_t filter_keys(struct stream *s, u8 *buf, size_t len)
{
    size_t kept = 0;

    for (size_t i = 0; i < len; i++) {
        if (!s->escaped && buf[i] == CTRL_A) {
            s->escaped = true;
        } else if (s->escaped && buf[i] != CTRL_A) {
            s->escaped = false;
            char key = (char)(buf[i] >= 'A' && buf[i] <= 'Z' ? buf[i] - 'A' + 'a' : buf[i]);
            s->keys.key(s->keys.opaque, key);
        } else {
            s->escaped = false;
            buf[kept++] = buf[i];
        }
    }
    return kept;
}

static void disconnect(struct stream *s);

/* 1: something was read or there is something to give; 0: nothing now or never. */
static int read_input(struct stream *s)
{
    if (s->input_len)
        return 1;
    if (s->in.fd < 0 || s->input_ended)
        return 0;
    ssize_t n = read(s->in.fd, s->input, sizeof(s->input));
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0) {
        disconnect(s);
        return 0;
    }
    s->input_len = s->keys.key ? filter_keys(s, s->input, (size_t)n) : (size_t)n;
    return 1;
}

/* Gives the front what was read; true: it is full. */
static bool push_input(struct stream *s)
{
    if (!s->dev.front.receive)
        return true;
    if (!s->input_len)
        return false;
    size_t n = s->dev.front.receive(s->dev.front.opaque, s->input, s->input_len);
    s->input_len -= n;
    memmove(s->input, s->input + n, s->input_len);
    return s->input_len != 0;
}

/* Main loop: gives the front what was read, reads on as long as it takes all. */
static void feed(void *opaque)
{
    struct stream *s = opaque;
    bool full = push_input(s);

    /* One round for a descriptor that epoll watches: it comes back by itself and others get their turn. */
    while (!full && read_input(s)) {
        full = push_input(s);
        if (s->in_polls)
            break;
    }
    if (!full)
        stream_clients_resume(&s->clients);
    if (!s->in_polls || full == !s->in.added)
        return;
    /* Taken out of the loop while the front is full: a hang-up would be reported for ever. */
    if (full)
        loop_remove(s->loop, &s->in);
    else if (loop_add(s->loop, &s->in, NULL))
        disconnect(s);
}

/* A client typed. What was read before it goes first. */
static size_t client_typed(void *opaque, const u8 *buf, size_t len)
{
    struct stream *s = opaque;

    if (s->input_len || !s->dev.front.receive)
        return 0;
    return s->dev.front.receive(s->dev.front.opaque, buf, len);
}

static void client_left(void *opaque)
{
    struct stream *s = opaque;

    if (s->out.fd < 0 && s->log.fd < 0 && !s->clients.first)
        drop_output(s);
}

static void input_ready(void *opaque, u32 events)
{
    struct stream *s = opaque;

    /* A hang-up, and nothing left to read. */
    if (!(events & EPOLLIN))
        disconnect(s);
    else
        feed(s);
}

static void stream_accept_input(struct chardev *c)
{
    struct stream *s = CONTAINER_OF(c, struct stream, dev);

    loop_call(s->loop, feed, s);
}

/* Puts a descriptor into the loop; *ret_polls tells whether epoll takes it. */
static int watch(struct stream *s, struct loop_fd *f, u32 events, void (*ready)(void *, u32),
                 bool *ret_polls, struct err *err)
{
    f->events = events;
    f->ready = ready;
    f->opaque = s;
    *ret_polls = false;
    int rc = loop_add(s->loop, f, err);
    if (rc == -EPERM) /* epoll_ctl(2): this kind of file is always ready */
        return 0;
    *ret_polls = rc == 0;
    return rc;
}

static int start_io(struct stream *s, struct err *err)
{
    int rc = 0;

    if (s->in.fd >= 0)
        rc = watch(s, &s->in, EPOLLIN, input_ready, &s->in_polls, err);
    if (!rc && s->in.fd >= 0 && !s->in_polls)
        rc = loop_call(s->loop, feed, s);
    if (!rc && s->out.fd >= 0)
        rc = watch(s, &s->out, 0, output_ready, &s->out_polls, err);
    pthread_mutex_lock(&s->lock);
    s->deaf = s->out.fd < 0 && s->log.fd < 0;
    pthread_mutex_unlock(&s->lock);
    return rc;
}

/* The other side has ended: for good, or until the next one connects. */
static void disconnect(struct stream *s)
{
    s->input_ended = s->listener.fd < 0;
    close_watched(s, &s->in);
    s->in_polls = false;
    if (s->listener.fd < 0)
        return; /* output of a stream whose input ended goes on */
    close_watched(s, &s->out);
    s->out_polls = false;
    s->input_len = 0;
    drop_output(s);
}

static void connection_ready(void *opaque, u32 events)
{
    struct stream *s = opaque;
    int fd = accept4(s->listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd < 0)
        return;
    if (s->in.fd >= 0) {
        close(fd); /* one at a time */
        return;
    }
    s->in.fd = fd;
    s->out.fd = fcntl(fd, F_DUPFD_CLOEXEC, 0); /* epoll watches each direction by itself */
    if (s->out.fd < 0 || start_io(s, NULL))
        disconnect(s);
}

/* A socket that nobody listens at is left over from a machine that was killed. */
static bool is_stale(const struct sockaddr_un *address)
{
    auto_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    return fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof(*address)) &&
           errno == ECONNREFUSED;
}

static int open_unix(struct stream *s, const char *path, struct err *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    bool polls;

    if (strlen(path) >= sizeof(address.sun_path))
        return err_set(err, ENAMETOOLONG, "socket '%s': the path is too long, at most %zu bytes",
                       path, sizeof(address.sun_path) - 1);
    memcpy(address.sun_path, path, strlen(path) + 1);
    s->listener.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s->listener.fd < 0)
        return err_sys(err, errno, "socket '%s'", path);
    int rc = bind(s->listener.fd, (struct sockaddr *)&address, sizeof(address));
    if (rc && errno == EADDRINUSE && is_stale(&address) && !unlink(path))
        rc = bind(s->listener.fd, (struct sockaddr *)&address, sizeof(address));
    if (rc || listen(s->listener.fd, 1))
        return err_sys(err, errno, "socket '%s'", path);
    s->deaf = true;
    return watch(s, &s->listener, EPOLLIN, connection_ready, &polls, err);
}

/* A description of our own of a terminal or pipe that is open as fd, so that we can make it non-blocking. */
static int own_description(int fd, int flags)
{
    char path[32];
    struct stat st;

    if (fstat(fd, &st))
        return -1;
    if (S_ISCHR(st.st_mode) || S_ISFIFO(st.st_mode)) {
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        int own = open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (own >= 0)
            return own;
    }
    return fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

static int open_stdio(struct stream *s, struct err *err)
{
    s->in.fd = own_description(STDIN_FILENO, O_RDONLY); /* may be closed: no input */
    s->out.fd = own_description(STDOUT_FILENO, O_WRONLY);
    return start_io(s, err);
}

static int open_file(struct stream *s, const char *path, struct err *err)
{
    s->out.fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0644);
    if (s->out.fd < 0)
        return err_sys(err, errno, "cannot write '%s'", path);
    return start_io(s, err);
}

static int open_kind(struct stream *s, const struct vm_serial_config *config, struct err *err)
{
    switch (config->kind) {
    case VM_SERIAL_STDIO:
        return open_stdio(s, err);
    case VM_SERIAL_FILE:
        return open_file(s, config->path, err);
    case VM_SERIAL_UNIX:
        return open_unix(s, config->path, err);
    case VM_SERIAL_LOG:
        return stream_log_open(config->path, &s->log, err);
    case VM_SERIAL_NULL:
        s->deaf = true;
        return 0;
    }
    return 0;
}

int stream_open(const struct vm_serial_config *config, struct loop *loop,
                const struct stream_keys *keys, struct stream **ret_stream, struct err *err)
{
    struct stream *s = calloc(1, sizeof(*s));

    if (!s)
        return err_sys(err, ENOMEM, "serial port");
    s->dev.write = stream_write;
    s->dev.accept_input = stream_accept_input;
    s->loop = loop;
    s->kind = config->kind;
    s->in.fd = s->out.fd = s->listener.fd = s->log.fd = -1;
    s->clients = (struct stream_clients){
        .loop = loop, .typed = client_typed, .left = client_left, .opaque = s};
    if (keys && config->kind == VM_SERIAL_STDIO && isatty(STDIN_FILENO))
        s->keys = *keys;
    pthread_mutex_init(&s->lock, NULL);
    s->ring = malloc(STREAM_RING);
    int rc = s->ring ? open_kind(s, config, err) : err_sys(err, ENOMEM, "serial port");
    if (rc) {
        stream_close(s);
        return rc;
    }
    *ret_stream = s;
    return 0;
}

int stream_attach(struct stream *s, int fd, bool readonly)
{
    int rc = stream_clients_add(&s->clients, fd, readonly);

    pthread_mutex_lock(&s->lock);
    s->deaf &= rc != 0;
    pthread_mutex_unlock(&s->lock);
    return rc;
}

enum vm_serial_kind stream_kind(const struct stream *s)
{
    return s->kind;
}

void stream_close(struct stream *s)
{
    int rc = 1;

    if (!s)
        return;
    s->dev.front = (struct chardev_front){0};
    while (rc > 0) {
        struct pollfd p = {.fd = s->out.fd, .events = POLLOUT};

        rc = write_chunk(s);
        if (rc == -EAGAIN && poll(&p, 1, CLOSE_MS) > 0 && (p.revents & POLLOUT))
            rc = 1;
    }
    stream_clients_close(&s->clients);
    close_watched(s, &s->in);
    give_up_output(s);
    close_watched(s, &s->listener);
    pthread_mutex_destroy(&s->lock);
    free(s->ring);
    free(s);
}

struct chardev *stream_chardev(struct stream *s)
{
    return &s->dev;
}
