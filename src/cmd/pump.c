/*
 * Carrying bytes. Invariant: whatever was read is written before the end is passed on, in each direction by
 * itself. One process each, so it needs no thread of the VMM and outlives the verb that made it.
 */
#include "cmd/pump.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHUNK (256 * KiB)

static bool write_all(int fd, const u8 *buf, size_t len)
{
    while (len) {
        ssize_t n = write(fd, buf, len);

        if (n < 0 && errno != EINTR)
            return false;
        if (n > 0) {
            buf += n;
            len -= (size_t)n;
        }
    }
    return true;
}

/* One direction's next bytes; false: it has ended. */
static bool carry(int from, int to)
{
    static u8 buf[CHUNK];
    ssize_t n = read(from, buf, sizeof(buf));

    if (n < 0 && errno == EINTR)
        return true;
    return n > 0 && write_all(to, buf, (size_t)n);
}

static void pump(int in, int out, int line)
{
    struct pollfd p[] = {{.fd = in, .events = POLLIN}, {.fd = line, .events = POLLIN}};

    while (poll(p, 2, -1) > 0 || errno == EINTR) {
        if (p[0].revents && !carry(in, line))
            break;
        if (p[1].revents && !carry(line, out))
            break;
    }
}

int pump_start(int in, int out, int *ret_fd, struct err *err)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
        return err_sys(err, errno, "socketpair");
    pid_t child = fork();
    if (!child) {
        signal(SIGPIPE, SIG_IGN);
        signal(SIGINT, SIG_IGN);
        close(pair[0]);
        pump(in, out, pair[1]);
        _exit(0);
    }
    close(pair[1]);
    if (child < 0) {
        close(pair[0]);
        return err_sys(err, errno, "fork");
    }
    *ret_fd = pair[0];
    return 0;
}
