/*
 * The dirty log, see dirty.h.
 *
 * Writers set bits in gmem.dirty; dirty_flip() moves them into the bitmap of every log. A vCPU notes a page once and
 * then writes it at full speed, so moving its bit must take the speed away again: that is the accelerator's part, which
 * calls dirty_flip() while no vCPU can write.
 *
 * Invariants:
 *  1. A page that was written since log L was collected last is noted in gmem.dirty, in L's bits, or will be by a device
 *     that has not yet called gmem_wrote().
 *  2. Between two calls of dirty_flip(), a vCPU writes only pages that are noted (after each has been through the
 *     accelerator's dirty_sync).
 *
 * Any thread but a vCPU's. gmem.dirty_lock is held throughout, also while vCPUs are waited for.
 */
#include "mem/dirty.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void dirty_flip(struct gmem *m)
{
    for (u64 i = 0; i < dirty_words(m); i++) {
        u64 word;

        if (!__atomic_load_n(&m->dirty[i], __ATOMIC_RELAXED))
            continue;
        word = __atomic_exchange_n(&m->dirty[i], 0, __ATOMIC_SEQ_CST);
        for (struct dirty_log *log = m->logs; log; log = log->next)
            log->bits[i] |= word;
    }
}

static int sync(struct gmem *m, bool on, struct err *err)
{
    if (m->accel && m->accel->dirty_sync)
        return m->accel->dirty_sync(m->accel_opaque, on, err);
    dirty_flip(m);
    return 0;
}

static int start_locked(struct gmem *m, struct dirty_log *log, struct err *err)
{
    bool first = !m->logs;
    int rc;

    if (!m->dirty)
        m->dirty = calloc(dirty_words(m), sizeof(u64));
    log->bits = calloc(dirty_words(m), sizeof(u64));
    if (!m->dirty || !log->bits)
        rc = err_set(err, ENOMEM, "no memory for a log of dirty pages");
    else {
        __atomic_store_n(&m->dirty_on, true, __ATOMIC_SEQ_CST);
        rc = sync(m, true, err);
    }
    if (rc) {
        if (first)
            __atomic_store_n(&m->dirty_on, false, __ATOMIC_SEQ_CST);
        free(log->bits);
        log->bits = NULL;
        return rc;
    }
    log->on = true;
    log->next = m->logs;
    m->logs = log;
    return 0;
}

int dirty_start(struct gmem *m, struct dirty_log *log, struct err *err)
{
    int rc;

    pthread_mutex_lock(&m->dirty_lock);
    rc = start_locked(m, log, err);
    pthread_mutex_unlock(&m->dirty_lock);
    return rc;
}

int dirty_collect(struct gmem *m, struct dirty_log *log, u64 *ret_bits, u64 *ret_count,
                  struct err *err)
{
    u64 count = 0;
    int rc;

    pthread_mutex_lock(&m->dirty_lock);
    rc = log->on ? sync(m, true, err) : err_set(err, EINVAL, "no log of dirty pages was started");
    if (!rc) {
        for (u64 i = 0; i < dirty_words(m); i++)
            count += (u64)__builtin_popcountll(log->bits[i]);
        memcpy(ret_bits, log->bits, dirty_words(m) * sizeof(u64));
        memset(log->bits, 0, dirty_words(m) * sizeof(u64));
        *ret_count = count;
    }
    pthread_mutex_unlock(&m->dirty_lock);
    return rc;
}

void dirty_stop(struct gmem *m, struct dirty_log *log)
{
    struct dirty_log **at;

    if (!log || !log->on)
        return;
    pthread_mutex_lock(&m->dirty_lock);
    for (at = &m->logs; *at && *at != log; at = &(*at)->next)
        ;
    if (*at)
        *at = log->next;
    if (!m->logs) {
        struct err ignored = ERR_INIT;

        __atomic_store_n(&m->dirty_on, false, __ATOMIC_SEQ_CST);
        /* If it fails, writes stay slower than they need be. */
        sync(m, false, &ignored);
    }
    pthread_mutex_unlock(&m->dirty_lock);
    free(log->bits);
    *log = (struct dirty_log){0};
}
