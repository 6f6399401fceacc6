/*
 * Carrying bytes. Invariant: whatever was read is written before the end is passed on, in each direction by
 * itself.
 */
#include "cmd/pump.h"

#include "cmd/carrier.h"
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHUNK (256 * KiB)

/* One direction's next bytes; false: it has ended. */
static bool carry(int from, int to)
{
    static u8 buf[CHUNK];
    ssize_t n = read(from, buf, sizeof(buf));

    if (n < 0 && errno == EINTR)
        return true;
    return n > 0 && carrier_write(to, buf, (size_t)n);
}

struct pump {
    int in, out;
};

static void pump(void *opaque, int line)
{
    const struct pump *from = opaque;
    struct pollfd p[] = {{.fd = from->in, .events = POLLIN}, {.fd = line, .events = POLLIN}};

    while (poll(p, 2, -1) > 0 || errno == EINTR) {
        if (p[1].revents && !carry(line, from->out))
            break;
        /* Whoever has the other end may still have something to say. */
        if (p[0].revents && !carry(from->in, line)) {
            shutdown(line, SHUT_WR);
            p[0].fd = -1;
        }
    }
}

int pump_start(int in, int out, int *ret_fd, struct err *err)
{
    struct pump p = {in, out};

    return carrier_start(pump, &p, in, out, ret_fd, err);
}
