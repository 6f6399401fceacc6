/* The lock file of a guest. Any thread. */
#include "host/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define TEXT_MAX 1024
#define AWAY "away "
#define HERE "here "
#define PID_TRIES 100 /* of 10 ms: between taking the lock and writing the pid */

static struct flock whole_file(void)
{
    return (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET};
}

int lock_hold(const char *path, struct err *err)
{
    struct flock lock = whole_file();
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0)
        return err_sys(err, errno, "lock '%s'", path);
    if (fcntl(fd, F_OFD_SETLK, &lock)) {
        int code = errno == EAGAIN ? EBUSY : errno;

        close(fd);
        return err_sys(err, code, "lock '%s'", path);
    }
    return fd;
}

int lock_take(const char *path, struct err *err)
{
    int fd = lock_hold(path, err);
    char text[32];

    if (fd < 0)
        return fd;
    int len = snprintf(text, sizeof(text), "pid %d\n", (int)getpid());
    if (ftruncate(fd, 0) || pwrite(fd, text, (size_t)len, 0) != len) {
        int code = errno;

        close(fd);
        return err_sys(err, code, "lock '%s'", path);
    }
    return fd;
}

/* All but its end is one line. */
static void make_line(char *text, int len)
{
    for (int i = 0; i + 1 < len; i++)
        if (text[i] == '\n')
            text[i] = ' ';
}

int lock_write_away(int fd, const char *place, struct err *err)
{
    char text[TEXT_MAX] = "", line[LOCK_PLACE + 16];
    int len = snprintf(line, sizeof(line), "%s%-*.*s\n", place ? AWAY : HERE, LOCK_PLACE - 1,
                       LOCK_PLACE - 1, place ? place : "");
    const char *first = pread(fd, text, TEXT_MAX - 1, 0) > 0 ? strchr(text, '\n') : NULL;

    make_line(line, len);
    if (!first)
        return err_set(err, EIO, "the guest's lock file is empty");
    if (pwrite(fd, line, (size_t)len, first + 1 - text) != len)
        return err_sys(err, errno, "the guest's lock file");
    return 0;
}

void lock_write_end(int fd, const struct lock_end *end)
{
    char text[TEXT_MAX];
    int len = snprintf(text, sizeof(text), "end %d %lld %s\n", end->status, (long long)end->when_s,
                       end->reason);

    make_line(text, len);
    if (fd >= 0 && pwrite(fd, text, (size_t)len, lseek(fd, 0, SEEK_END)) != len) {
        /* The disk is full: it will look as if the process had been killed. */
    }
}

bool lock_is_held(const char *path)
{
    struct flock lock = whole_file();
    auto_close int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0)
        return errno != ENOENT && errno != ENOTDIR;
    return fcntl(fd, F_OFD_GETLK, &lock) || lock.l_type != F_UNLCK;
}

/* The file's text; false when it cannot be read. */
static bool read_text(const char *path, char text[TEXT_MAX])
{
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = fd < 0 ? -1 : pread(fd, text, TEXT_MAX - 1, 0);

    text[MAX(n, 0)] = 0;
    return n >= 0;
}

/* The second line of a lock file. */
static void read_away(const char *text, struct lock_end *ret_end)
{
    const char *line = strstr(text, "\n" AWAY);
    int len = 0;

    if (!line)
        return;
    line += strlen("\n" AWAY);
    for (int i = 0; line[i] && line[i] != '\n' && i + 1 < LOCK_PLACE; i++)
        len = line[i] == ' ' ? len : i + 1;
    ret_end->away = true;
    snprintf(ret_end->place, sizeof(ret_end->place), "%.*s", len, line);
}

void lock_read_end(const char *path, struct lock_end *ret_end)
{
    char text[TEXT_MAX];
    long long when = 0;
    int status = 0, at = 0;

    *ret_end = (struct lock_end){0};
    if (!read_text(path, text))
        return;
    read_away(text, ret_end);
    char *line = strstr(text, "\nend "), *newline = line ? strchr(line + 1, '\n') : NULL;
    if (!newline)
        return;
    *newline = 0;
    if (sscanf(line, "\nend %d %lld %n", &status, &when, &at) < 2 || !at)
        return;
    ret_end->known = true;
    ret_end->status = status;
    ret_end->when_s = when;
    snprintf(ret_end->reason, sizeof(ret_end->reason), "%s", line + at);
}

/* The pidfd is opened first, then the file is looked at again: while the same process holds the lock, its number means
 * nobody else. */
int lock_holder(const char *path, int *ret_pid)
{
    char before[TEXT_MAX], after[TEXT_MAX];
    int pid;

    for (int i = 0; i < PID_TRIES && lock_is_held(path); i++) {
        struct timespec ten_ms = {.tv_nsec = 10 * 1000 * 1000};

        if (read_text(path, before) && sscanf(before, "pid %d\n", &pid) == 1) {
            int fd = (int)syscall(SYS_pidfd_open, pid, 0);

            if (fd >= 0 && lock_is_held(path) && read_text(path, after) &&
                !strncmp(before, after, strcspn(before, "\n") + 1)) {
                *ret_pid = pid;
                return fd;
            }
            if (fd >= 0)
                close(fd);
        }
        nanosleep(&ten_ms, NULL);
    }
    return -ESRCH;
}
