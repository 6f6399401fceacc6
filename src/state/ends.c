/* The two ends a snapshot stream can have: memory, and a descriptor. */
#include "state/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int grow_to(struct state_buf *b, size_t len)
{
    size_t capacity = MAX(b->capacity, (size_t)4096);
    u8 *data;

    while (capacity < len) {
        if (MUL_OVERFLOWS(capacity, 2, &capacity))
            return -ENOMEM;
    }
    if (capacity == b->capacity)
        return 0;
    data = realloc(b->data, capacity);
    if (!data)
        return -ENOMEM;
    b->data = data;
    b->capacity = capacity;
    return 0;
}

static int buf_write(void *opaque, const void *buf, size_t len)
{
    struct state_buf *b = opaque;
    size_t sum;

    if (ADD_OVERFLOWS(b->len, len, &sum) || grow_to(b, sum))
        return -ENOMEM;
    memcpy(b->data + b->len, buf, len);
    b->len = sum;
    return 0;
}

static int buf_read(void *opaque, void *buf, size_t len)
{
    struct state_buf *b = opaque;

    if (!range_fits(b->at, len, b->len))
        return -ENODATA;
    memcpy(buf, b->data + b->at, len);
    b->at += len;
    return 0;
}

void state_buf_fini(struct state_buf *b)
{
    if (!b)
        return;
    free(b->data);
    *b = (struct state_buf){0};
}

struct state_sink state_buf_sink(struct state_buf *b)
{
    return (struct state_sink){.write = buf_write, .opaque = b};
}

struct state_source state_buf_source(struct state_buf *b)
{
    return (struct state_source){.read = buf_read, .opaque = b};
}

static int fd_write(void *opaque, const void *buf, size_t len)
{
    const int *fd = opaque;

    while (len) {
        ssize_t n = write(*fd, buf, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        buf = (const u8 *)buf + n;
        len -= (size_t)n;
    }
    return 0;
}

static int fd_read(void *opaque, void *buf, size_t len)
{
    const int *fd = opaque;

    while (len) {
        ssize_t n = read(*fd, buf, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n ? -errno : -ENODATA;
        buf = (u8 *)buf + n;
        len -= (size_t)n;
    }
    return 0;
}

struct state_sink state_fd_sink(int *fd)
{
    return (struct state_sink){.write = fd_write, .opaque = fd};
}

struct state_source state_fd_source(int *fd)
{
    return (struct state_source){.read = fd_read, .opaque = fd};
}
