/* See carrier.h. */
#include "cmd/carrier.h"

#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

/* All but the standard ones and those. */
static void close_others(const int *kept, unsigned n)
{
    unsigned first = STDERR_FILENO + 1, next;

    do {
        next = ~0u;
        for (unsigned i = 0; i < n; i++)
            if ((unsigned)kept[i] >= first)
                next = MIN(next, (unsigned)kept[i]);
        if (next > first)
            close_range(first, next - 1, 0);
        first = next + 1;
    } while (next != ~0u);
}

int carrier_start(void (*fn)(void *opaque, int plain), void *opaque, int in, int out, int *ret_fd,
                  struct err *err)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
        return err_sys(err, errno, "socketpair");
    pid_t child = fork();
    if (!child) {
        int kept[] = {in, out, pair[1]};

        close_others(kept, ARRAY_LEN(kept));
        signal(SIGPIPE, SIG_IGN);
        signal(SIGINT, SIG_IGN);
        fn(opaque, pair[1]);
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

bool carrier_write(int fd, const u8 *buf, size_t len)
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
