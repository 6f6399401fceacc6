/*
 * A disk image in memory, for tests of formats. It can record every change, so that a test can see what a power failure
 * would have left, and fail the n-th change.
 */
#ifndef UNIT_BLOCK_MEMORY_H
#define UNIT_BLOCK_MEMORY_H

#include "block/file.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MEMORY_FILE_MAX (64 * MiB)

enum memory_op { MEMORY_WRITE, MEMORY_ZERO, MEMORY_TRUNCATE, MEMORY_SYNC };

struct memory_event {
    enum memory_op op;
    u64 offset, len;
    u8 *data;
    unsigned when; /* among the events of all files with the same clock */
};

struct memory_file {
    struct block_file file;
    u8 *bytes;
    u64 room;
    bool record;
    unsigned *clock; /* NULL: none */
    struct memory_event *events;
    unsigned nevents, events_room;
    unsigned fail_at; /* this change fails, counted from 1; 0: none */
    bool full;        /* and so do all behind it, but syncs: there is no room */
    unsigned changes;
    int fail_with;
    u64 hole; /* for a test's own `next` */
};

static inline struct memory_file *memory_of(struct block_file *f)
{
    return CONTAINER_OF(f, struct memory_file, file);
}

static inline bool memory_reserve(struct memory_file *m, u64 size)
{
    u64 room = MAX(size + size / 2, 4 * KiB);
    u8 *grown;

    if (size <= m->room)
        return true;
    grown = size > MEMORY_FILE_MAX ? NULL : realloc(m->bytes, room);
    if (!grown)
        return false;
    memset(grown + m->room, 0, room - m->room);
    m->bytes = grown;
    m->room = room;
    return true;
}

static inline int memory_note(struct memory_file *m, enum memory_op op, u64 offset, u64 len,
                              const void *data)
{
    struct memory_event *e;

    if (m->fail_at && ++m->changes >= m->fail_at &&
        (m->full ? op != MEMORY_SYNC : m->changes == m->fail_at))
        return -m->fail_with;
    if (!m->record)
        return 0;
    if (m->nevents == m->events_room) {
        m->events_room = m->events_room ? m->events_room * 2 : 256;
        m->events = realloc(m->events, m->events_room * sizeof(*e));
    }
    e = &m->events[m->nevents++];
    *e = (struct memory_event){
        .op = op, .offset = offset, .len = len, .when = m->clock ? (*m->clock)++ : 0};
    if (data) {
        e->data = malloc(len);
        memcpy(e->data, data, len);
    }
    return 0;
}

static inline int memory_read(struct block_file *f, void *buf, size_t len, u64 offset)
{
    memcpy(buf, memory_of(f)->bytes + offset, len);
    return 0;
}

static inline int memory_write(struct block_file *f, const void *buf, size_t len, u64 offset)
{
    struct memory_file *m = memory_of(f);
    int rc =
        memory_reserve(m, offset + len) ? memory_note(m, MEMORY_WRITE, offset, len, buf) : -ENOSPC;

    if (!rc && len)
        memcpy(m->bytes + offset, buf, len);
    return rc;
}

static inline int memory_zero(struct block_file *f, u64 offset, u64 len, bool hole)
{
    int rc = memory_note(memory_of(f), MEMORY_ZERO, offset, len, NULL);

    if (!rc)
        memset(memory_of(f)->bytes + offset, 0, len);
    return rc;
}

static inline int memory_sync(struct block_file *f)
{
    return memory_note(memory_of(f), MEMORY_SYNC, 0, 0, NULL);
}

static inline int memory_truncate(struct block_file *f, u64 size)
{
    struct memory_file *m = memory_of(f);
    int rc = memory_reserve(m, size) ? memory_note(m, MEMORY_TRUNCATE, size, 0, NULL) : -ENOSPC;

    if (!rc && size < f->size)
        memset(m->bytes + size, 0, f->size - size);
    return rc;
}

static inline int memory_next(struct block_file *f, u64 offset, bool *ret_data, u64 *ret_end)
{
    *ret_data = true;
    *ret_end = f->size;
    return 0;
}

static inline void memory_close(struct block_file *f)
{
    struct memory_file *m = memory_of(f);

    for (unsigned i = 0; i < m->nevents; i++)
        free(m->events[i].data);
    free(m->events);
    free(m->bytes);
    free(f->name);
    free(m);
}

static const struct block_file_ops memory_ops = {
    .read = memory_read,
    .write = memory_write,
    .zero = memory_zero,
    .sync = memory_sync,
    .truncate = memory_truncate,
    .next = memory_next,
    .close = memory_close,
};

/* NULL when there is no memory. Closed like any other. */
static inline struct memory_file *memory_file_new(const void *bytes, u64 size)
{
    struct memory_file *m = calloc(1, sizeof(*m));

    if (!m)
        return NULL;
    m->file.fd = -1;
    if (block_file_init(&m->file, &memory_ops, "memory") || !memory_reserve(m, size)) {
        memory_close(&m->file);
        return NULL;
    }
    if (size)
        memcpy(m->bytes, bytes, size);
    m->file.size = size;
    return m;
}

#endif
