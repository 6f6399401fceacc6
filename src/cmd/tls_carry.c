/* See tls_carry.h. Invariant: what comes over the line is taken off it even while it takes nothing, or both sides might wait for
 * each other. Whoever has a plain end always reads. */
#include "cmd/tls_carry.h"

#include "cmd/carrier.h"
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHUNK 65536
#define LINGER_MS 2000
#define LINGER_READS 256

struct tls_line {
    SSL *ssl;
    int line, plain;
    bool deaf; /* who reads at the plain end has hung up: what comes for him is thrown away */
    int why;   /* the line broke */
};

/* After a call of OpenSSL's that returned rc: it only waits for the line. */
static bool may_go_on(struct tls_line *c, int rc)
{
    int code = errno, want = openssl.SSL_get_error(c->ssl, rc);

    if (want == SSL_ERROR_WANT_READ || want == SSL_ERROR_WANT_WRITE)
        return true;
    c->why = c->why ?: code;
    return false;
}

/* Everything that can be read without waiting; false: nothing more will come. */
static bool carry_in(struct tls_line *c)
{
    static u8 buf[CHUNK];
    int n;

    while (errno = 0, (n = openssl.SSL_read(c->ssl, buf, sizeof(buf))) > 0)
        c->deaf = c->deaf || !carrier_write(c->plain, buf, (size_t)n);
    return may_go_on(c, n);
}

/* Some of what the plain end has written; false: that was all, or it cannot be sent. */
static bool carry_out(struct tls_line *c)
{
    static u8 buf[CHUNK];
    ssize_t len = read(c->plain, buf, sizeof(buf)), at = 0;

    if (len < 0 && errno == EINTR)
        return true;
    while (at < len) {
        struct pollfd p = {.fd = c->line, .events = POLLIN | POLLOUT};

        errno = 0;
        int n = openssl.SSL_write(c->ssl, buf + at, (int)(len - at));
        if (n > 0) {
            at += n;
        } else if (!may_go_on(c, n)) {
            carry_in(c); /* what had come before it broke */
            return false;
        } else if (poll(&p, 1, -1) > 0 && p.revents & ~POLLOUT && !carry_in(c)) {
            return false;
        }
    }
    return len > 0;
}

/* RFC 1122, 4.2.2.13: closing while something is unread takes back what has not been delivered. So it waits for the other
 * side to hang up as well, but neither long nor for everything that it may send. */
static void linger(const struct tls_line *c)
{
    struct pollfd p = {.fd = c->line, .events = POLLIN};
    static u8 buf[CHUNK];

    shutdown(c->line, SHUT_WR);
    for (int i = 0; i < LINGER_READS && poll(&p, 1, LINGER_MS) > 0; i++)
        if (read(c->line, buf, sizeof(buf)) <= 0)
            break;
}

int tls_carry(SSL *ssl, int plain)
{
    struct tls_line c = {.ssl = ssl, .line = openssl.SSL_get_fd(ssl), .plain = plain};
    struct pollfd p[] = {{.fd = c.line, .events = POLLIN}, {.fd = plain, .events = POLLIN}};
    bool open = true;

    while (open && (poll(p, 2, -1) > 0 || errno == EINTR)) {
        if (p[0].revents)
            open = carry_in(&c);
        if (open && p[1].revents)
            open = carry_out(&c);
    }
    openssl.SSL_shutdown(ssl);
    linger(&c);
    return c.why ?: EPIPE;
}
