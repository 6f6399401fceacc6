/*
 * `trapeze logs`: what a guest's console said. Following reads the file again and again: the log is cut at its front by a
 * fixed length (vm/stream_log.h), so it is known how far our place has moved.
 */
#include "cmd/guests.h"

#include "vm/stream_log.h"
#include "vm/value.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOOK_MS 100 /* a following reader looks ten times a second */

enum { LOGS_FOLLOW = GUEST_OWN, LOGS_MESSAGES, LOGS_TAIL };

struct reading {
    bool follow, messages, tailed;
    u64 tail; /* lines */
};

/* Where the last `lines` lines begin. A last line without its newline counts. */
static off_t find_tail(int fd, off_t size, u64 lines)
{
    char buf[4096];
    u64 seen = 0;

    if (!lines)
        return size;
    for (off_t end = size; end > 0;) {
        off_t begin = MAX(end - (off_t)sizeof(buf), 0);
        ssize_t n = pread(fd, buf, (size_t)(end - begin), begin);

        for (ssize_t i = n - 1; i >= 0; i--)
            if (buf[i] == '\n' && begin + i + 1 < size && ++seen == lines)
                return begin + i + 1;
        if (n <= 0)
            break;
        end = begin;
    }
    return 0;
}

/* Copies from *at to the end; 0, or -errno of writing. */
static int copy(int fd, off_t *at)
{
    char buf[16 * 1024];

    for (ssize_t n; (n = pread(fd, buf, sizeof(buf), *at)) > 0; *at += n)
        if (fwrite(buf, 1, (size_t)n, stdout) != (size_t)n)
            return -EIO;
    return fflush(stdout) ? -EIO : 0;
}

/* A moment; true when nobody reads what we write any more: without this, `logs -f | grep -m 1` would wait for a guest that
 * says nothing. */
static bool reader_leaves(void)
{
    struct pollfd out = {.fd = STDOUT_FILENO}; /* POLLERR comes unasked */

    return poll(&out, 1, LOOK_MS) > 0;
}

/* Until the guest has ended, and all is shown. */
static int follow(int fd, off_t at, const struct host *h, const char *id)
{
    int rc = 0;

    for (bool lives = true; lives && !rc;) {
        struct stat st;

        lives = guest_lives(h, id);
        if (!fstat(fd, &st) && st.st_size < at)
            at = MAX(at - (off_t)LOG_SHIFT, 0);
        rc = copy(fd, &at);
        if (lives && !rc && reader_leaves())
            break;
    }
    return rc;
}

static int show(void *opaque, struct host *h, struct record *record, struct err *err)
{
    const struct reading *r = opaque;
    auto_free char *path =
        place_guest(&h->place, record->id, r->messages ? "messages.log" : "console.log");
    auto_close int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
    struct stat st;

    if (fd < 0 && errno == ENOENT)
        return err_set(
            err, ENOENT,
            r->messages ? "it is no guest in the background: its messages go to its standard error"
                        : "its console has no log; 'run --serial log' makes one, and run -d does "
                          "by itself");
    if (fd < 0 || fstat(fd, &st))
        return err_sys(err, errno, "cannot read '%s'", path ? path : "");
    off_t at = r->tailed ? find_tail(fd, st.st_size, r->tail) : 0;
    int rc = copy(fd, &at);
    if (!rc && r->follow)
        rc = follow(fd, at, h, record->id);
    return rc ? err_set(err, EIO, "cannot write to standard output") : 0;
}

static int read_own(void *opaque, int index, const char *value, struct err *err)
{
    struct reading *r = opaque;

    r->follow |= index == LOGS_FOLLOW;
    r->messages |= index == LOGS_MESSAGES;
    if (index != LOGS_TAIL)
        return 0;
    r->tailed = true;
    return value_number(value, 0, UINT32_MAX, &r->tail, err) ? err_wrap(err, "--tail") : 0;
}

static int run(const struct verb *self, char **argv)
{
    struct reading r = {0};
    struct guest_args args = {.min = 1, .max = 1, .own = read_own, .opaque = &r};

    return guest_verb(self, argv, &args, show);
}

static const struct args_spec *options(void)
{
    static const struct args_spec all[] = {
        GUEST_OPTIONS,
        [LOGS_FOLLOW] = {"follow", 'f', NULL, "go on until the guest has ended"},
        [LOGS_MESSAGES] = {"messages", 0, NULL,
                           "what the guest's process says, instead of its console"},
        [LOGS_TAIL] = {"tail", 'n', "N", "begin with the last N lines"},
        {NULL, 0, NULL, NULL},
    };

    return all;
}

const struct verb verb_logs = {
    .name = "logs",
    .operands = "GUEST",
    .summary = "Show what a guest's console said",
    .options = options,
    .notes = "The log keeps the last 2 to 4 MiB.\n",
    .run = run,
};
