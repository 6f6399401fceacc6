/*
 * The writer of a snapshot's memory file. See writer.h.
 *
 * Long runs go to the disk past the page cache (O_DIRECT): no processor copies them, no memory is taken from the host for
 * pages that nobody may ever read again, and there is nothing left to sync. Getting fresh memory for the page cache is the
 * slowest part of writing a snapshot on a host that is a guest itself (10 us a page, when its own host took it back). Short
 * runs would each wait for the disk; the page cache collects them. File systems that know no O_DIRECT get everything so.
 *
 * A lent page may be written to by the guest while the disk reads it. What arrives is then a mixture, which the next round
 * overwrites, because the dirty log has that page. That is also why it does not matter that file systems with checksums
 * compute theirs of such a mixture: the block is written again.
 *
 * Invariants, under the lock: 1. runs are written in the order of `run`, one at a time, so the same page can be given
 * twice; 2. a run stays in `run` until it is written: the queue is empty if and only if everything is; 3. copied runs own
 * their part of the ring buffer, which is given back in order.
 */
#include "vm/snapshot/writer.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE_BYTES 4096ull
#define RUNS 4096
#define RING_PAGES 2048ull
#define DIRECT_PAGES 16 /* in shorter runs, waiting for the disk costs more than copying */
#define RUN_MAX 2048ull
#define SYNC_BYTES (8 * MiB) /* of the page cache, then the disk is to begin with it */

struct run {
    u64 page, count;
    const u8 *bytes;
    bool copied;
};

struct snapwriter {
    int fd;
    bool direct, no_direct; /* how fd is now; it cannot be */
    const atomic_bool *cancelled;
    u64 cached; /* bytes given to the page cache since it was told to begin */
    pthread_t thread;
    u8 *ring;             /* NULL: not yet */
    pthread_mutex_t lock; /* protects all below */
    pthread_cond_t changed;
    struct run run[RUNS];
    unsigned first, count;
    u64 head, used; /* of the ring, in pages */
    int rc;
    bool quit;
};

/* --- writing (the writer's thread) --- */

static void set_direct(struct snapwriter *w, bool direct)
{
    if (w->no_direct || w->direct == direct)
        return;
    if (fcntl(w->fd, F_SETFL, direct ? O_DIRECT : 0))
        w->no_direct = true;
    else
        w->direct = direct;
}

static ssize_t write_some(struct snapwriter *w, const u8 *from, u64 len, u64 at)
{
    ssize_t n = pwrite(w->fd, from, len, (off_t)at);

    if (n >= 0 || errno != EINVAL || !w->direct)
        return n;
    set_direct(w, false); /* the file system takes no such memory, length or place */
    w->no_direct = true;
    return pwrite(w->fd, from, len, (off_t)at);
}

static void begin_syncing(struct snapwriter *w, u64 len)
{
    w->cached += len;
    if (w->cached < SYNC_BYTES)
        return;
    sync_file_range(w->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
    w->cached = 0;
}

static int write_run(struct snapwriter *w, const struct run *r)
{
    u64 at = r->page * PAGE_BYTES, len = r->count * PAGE_BYTES;
    const u8 *from = r->bytes;

    set_direct(w, r->count >= DIRECT_PAGES);
    while (len) {
        if (atomic_load(w->cancelled))
            return -ECANCELED;
        ssize_t n = write_some(w, from, len, at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -ENOSPC;
        from += n;
        at += (u64)n;
        len -= (u64)n;
    }
    if (!w->direct)
        begin_syncing(w, r->count * PAGE_BYTES);
    return 0;
}

static void *writer_thread(void *opaque)
{
    struct snapwriter *w = opaque;

    pthread_setname_np(pthread_self(), "snapshot-write");
    pthread_mutex_lock(&w->lock);
    while (!w->quit) {
        if (!w->count) {
            pthread_cond_wait(&w->changed, &w->lock);
            continue;
        }
        struct run r = w->run[w->first];
        int rc = w->rc;

        pthread_mutex_unlock(&w->lock);
        rc = rc ? rc : write_run(w, &r);
        pthread_mutex_lock(&w->lock);
        w->rc = rc;
        w->first = (w->first + 1) % RUNS;
        w->count--;
        w->used -= r.copied ? r.count : 0;
        pthread_cond_broadcast(&w->changed);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* --- giving --- */

/* Under the lock, which waiting lets go. */
static void add_run(struct snapwriter *w, const struct run *r)
{
    while (w->count == RUNS)
        pthread_cond_wait(&w->changed, &w->lock);
    w->run[(w->first + w->count++) % RUNS] = *r;
    pthread_cond_broadcast(&w->changed);
}

void snapwriter_lend(struct snapwriter *w, u64 page, u64 count, const u8 *bytes)
{
    pthread_mutex_lock(&w->lock);
    while (count) {
        u64 n = MIN(count, RUN_MAX);

        add_run(w, &(struct run){page, n, bytes, false});
        page += n;
        bytes += n * PAGE_BYTES;
        count -= n;
    }
    pthread_mutex_unlock(&w->lock);
}

/* The next piece of the ring, of at most *count pages in a row. */
static u8 *take_ring(struct snapwriter *w, u64 *count)
{
    u8 *at;

    pthread_mutex_lock(&w->lock);
    while (w->used == RING_PAGES)
        pthread_cond_wait(&w->changed, &w->lock);
    *count = MIN(*count, MIN(RING_PAGES - w->used, RING_PAGES - w->head));
    at = w->ring + w->head * PAGE_BYTES;
    w->head = (w->head + *count) % RING_PAGES;
    w->used += *count;
    pthread_mutex_unlock(&w->lock);
    return at;
}

void snapwriter_copy(struct snapwriter *w, u64 page, u64 count, const u8 *bytes)
{
    while (count) {
        u64 n = count;
        u8 *to = take_ring(w, &n);

        memcpy(to, bytes, n * PAGE_BYTES);
        pthread_mutex_lock(&w->lock);
        add_run(w, &(struct run){page, n, to, true});
        pthread_mutex_unlock(&w->lock);
        page += n;
        bytes += n * PAGE_BYTES;
        count -= n;
    }
}

u64 snapwriter_room(struct snapwriter *w)
{
    u64 room;

    pthread_mutex_lock(&w->lock);
    room = MIN(RING_PAGES - w->used, RUNS - w->count - 1ull);
    pthread_mutex_unlock(&w->lock);
    return room;
}

int snapwriter_make_room(struct snapwriter *w)
{
    void *ring;

    if (w->ring)
        return 0;
    ring = mmap(NULL, RING_PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (ring == MAP_FAILED)
        return -errno;
    w->ring = ring;
    return 0;
}

int snapwriter_drain(struct snapwriter *w)
{
    int rc;

    pthread_mutex_lock(&w->lock);
    while (w->count)
        pthread_cond_wait(&w->changed, &w->lock);
    set_direct(w, false); /* the thread has no run, so it looks at nothing of this */
    rc = w->rc;
    pthread_mutex_unlock(&w->lock);
    return rc;
}

/* --- life --- */

int snapwriter_new(int fd, const atomic_bool *cancelled, struct snapwriter **ret_w, struct err *err)
{
    struct snapwriter *w = calloc(1, sizeof(*w));

    if (!w)
        return err_set(err, ENOMEM, "no memory for a writer");
    w->fd = fd;
    w->cancelled = cancelled;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    int rc = pthread_create(&w->thread, NULL, writer_thread, w);
    if (rc) {
        free(w);
        return err_sys(err, rc, "thread that writes memory");
    }
    *ret_w = w;
    return 0;
}

void snapwriter_free(struct snapwriter *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->quit = true;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    if (w->ring)
        munmap(w->ring, RING_PAGES * PAGE_BYTES);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->changed);
    free(w);
}
