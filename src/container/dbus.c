/*
 * A minimal D-Bus client: little endian, one call at a time, no signals. Everything is aligned relative to
 * the start of its message part, which is why body and header are built in buffers of their own.
 */
#include "container/dbus.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "container/file.h"

#define ANSWER_TIMEOUT_MS 10000

enum { TYPE_CALL = 1, TYPE_RETURN = 2, TYPE_ERROR = 3 };
enum { FIELD_PATH = 1, FIELD_INTERFACE = 2, FIELD_MEMBER = 3, FIELD_DEST = 6, FIELD_SIGNATURE = 8 };

static void put(struct dbus_body *b, const void *data, size_t len)
{
    if (len > sizeof(b->data) - b->len) {
        b->overflow = true;
        return;
    }
    memcpy(b->data + b->len, data, len);
    b->len += len;
}

void dbus_align(struct dbus_body *b, size_t to)
{
    static const u8 zeros[8];

    put(b, zeros, ALIGN_UP(b->len, to) - b->len);
}

void dbus_u32(struct dbus_body *b, u32 v)
{
    dbus_align(b, 4);
    put(b, &v, sizeof(v));
}

void dbus_u64(struct dbus_body *b, u64 v)
{
    dbus_align(b, 8);
    put(b, &v, sizeof(v));
}

void dbus_string(struct dbus_body *b, const char *s)
{
    dbus_u32(b, (u32)strlen(s));
    put(b, s, strlen(s) + 1);
}

void dbus_signature(struct dbus_body *b, const char *s)
{
    u8 len = (u8)strlen(s);

    put(b, &len, 1);
    put(b, s, (size_t)len + 1);
}

size_t dbus_array_begin(struct dbus_body *b, size_t align)
{
    size_t mark;

    dbus_u32(b, 0);
    mark = b->len;
    dbus_align(b, align);
    return mark;
}

void dbus_array_end(struct dbus_body *b, size_t mark, size_t align)
{
    /* The padding before the first element is not part of the length. */
    u32 len = (u32)(b->len - ALIGN_UP(mark, align));

    if (!b->overflow)
        memcpy(b->data + mark - 4, &len, sizeof(len));
}

static void put_field(struct dbus_body *b, u8 code, const char *type, const char *value)
{
    dbus_align(b, 8);
    put(b, &code, 1);
    dbus_signature(b, type);
    if (type[0] == 'g')
        dbus_signature(b, value);
    else
        dbus_string(b, value);
}

static int read_all(int fd, void *buf, size_t len)
{
    u8 *at = buf;

    while (len) {
        struct pollfd p = {fd, POLLIN, 0};
        int ready = poll(&p, 1, ANSWER_TIMEOUT_MS);
        ssize_t n = ready > 0 ? read(fd, at, len) : -1;

        if (ready == 0)
            return -ETIMEDOUT;
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EPIPE;
        at += n;
        len -= (size_t)n;
    }
    return 0;
}

static u32 get_u32(const u8 *p)
{
    u32 v;

    memcpy(&v, p, sizeof(v));
    return v;
}

/* Reads messages until the answer to our call comes; signals meant for others go by. */
static int read_answer(int bus, struct err *err)
{
    u8 head[16], rest[DBUS_MAX_BYTES];

    for (;;) {
        int rc = read_all(bus, head, sizeof(head));
        u64 body = get_u32(head + 4), fields = ALIGN_UP((u64)get_u32(head + 12), 8);

        if (rc < 0)
            return err_sys(err, -rc, "read the answer from D-Bus");
        if (head[0] != 'l' || body + fields > sizeof(rest) - 1)
            return err_set(err, EPROTO, "an answer from D-Bus that makes no sense");
        rc = read_all(bus, rest, body + fields);
        if (rc < 0)
            return err_sys(err, -rc, "read the answer from D-Bus");
        rest[body + fields] = '\0';
        if (head[1] == TYPE_RETURN)
            return 0;
        /* An error's body begins with a string, its text. */
        if (head[1] == TYPE_ERROR)
            return err_set(err, EIO, "%.300s",
                           body > 4 ? (const char *)rest + fields + 4 : "D-Bus error");
    }
}

int dbus_call(int bus, const struct dbus_method *m, const struct dbus_body *body, struct err *err)
{
    const u8 fixed[4] = {'l', TYPE_CALL, 0, 1};
    struct dbus_body head = {.len = 0};
    size_t mark;
    int rc;

    put(&head, fixed, sizeof(fixed));
    dbus_u32(&head, (u32)body->len);
    dbus_u32(&head, 1); /* a serial; only one call is ever under way */
    mark = dbus_array_begin(&head, 8);
    put_field(&head, FIELD_PATH, "o", m->path);
    put_field(&head, FIELD_INTERFACE, "s", m->interface);
    put_field(&head, FIELD_MEMBER, "s", m->member);
    put_field(&head, FIELD_DEST, "s", m->dest);
    if (m->signature)
        put_field(&head, FIELD_SIGNATURE, "g", m->signature);
    dbus_array_end(&head, mark, 8);
    dbus_align(&head, 8);
    if (head.overflow || body->overflow)
        return err_set(err, E2BIG, "%s: the D-Bus message is too large", m->member);
    rc = file_write_all(bus, head.data, head.len);
    if (rc == 0)
        rc = file_write_all(bus, body->data, body->len);
    if (rc < 0)
        return err_sys(err, -rc, "send %s to D-Bus", m->member);
    return read_answer(bus, err) < 0 ? err_wrap(err, "%s", m->member) : 0;
}

/* "AUTH EXTERNAL" with our uid in hexadecimal digits of its decimal digits. */
static int authenticate(int bus, struct err *err)
{
    char uid[16], line[128], hex[40] = "";
    int rc;

    snprintf(uid, sizeof(uid), "%u", geteuid());
    for (size_t i = 0; uid[i]; i++)
        snprintf(hex + 2 * i, sizeof(hex) - 2 * i, "%02x", (unsigned)uid[i]);
    snprintf(line, sizeof(line), "%cAUTH EXTERNAL %s\r\n", '\0', hex);
    rc = file_write_all(bus, line, strlen(line + 1) + 1);
    for (size_t i = 0; rc == 0; i++) {
        if (i == sizeof(line) - 1)
            return err_set(err, EPROTO, "D-Bus authentication: a line without end");
        rc = read_all(bus, line + i, 1);
        line[i + 1] = '\0';
        if (rc == 0 && line[i] == '\n')
            break;
    }
    if (rc < 0)
        return err_sys(err, -rc, "D-Bus authentication");
    if (strncmp(line, "OK ", 3) != 0)
        return err_set(err, EACCES, "D-Bus authentication was refused");
    rc = file_write_all(bus, "BEGIN\r\n", 7);
    return rc < 0 ? err_sys(err, -rc, "D-Bus authentication") : 0;
}

int dbus_connect(const char *address, struct err *err)
{
    static const struct dbus_method hello = {"org.freedesktop.DBus", "/org/freedesktop/DBus",
                                             "org.freedesktop.DBus", "Hello", NULL};
    static const struct dbus_body nothing;
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    const char *path = strncmp(address, "unix:path=", 10) == 0 ? address + 10 : NULL;
    size_t len = path ? strcspn(path, ",;") : 0;
    auto_close int bus = -1;
    int ret;

    if (!len || len >= sizeof(addr.sun_path))
        return err_set(err, EINVAL, "the D-Bus address %s is not supported", address);
    memcpy(addr.sun_path, path, len);
    bus = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bus < 0 || connect(bus, (struct sockaddr *)&addr, sizeof(addr)) < 0)
        return err_sys(err, errno, "connect to D-Bus at %s (is systemd running?)", addr.sun_path);
    if (authenticate(bus, err) < 0 || dbus_call(bus, &hello, &nothing, err) < 0)
        return -err->code;
    ret = bus;
    bus = -1;
    return ret;
}
