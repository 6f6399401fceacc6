/*
 * Disks: images opened, requests checked, what needs no waiting done at once.
 *
 * Invariants:
 * 1. A request lies within the size that the image had when it was opened. If the file has shrunk
 * since, reads past its end fail with -EIO; writes never make it longer than that size.
 * 2. A flush is answered only after everything written before it is on the disk; one failed flush
 * fails all later ones, because the kernel reports a lost page once and then calls it clean.
 *
 * Threads: block_try() and block_submit() from any; block_execute() from engines' threads.
 */
#include "block/disk.h"

#include "block/qcow2.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* A vCPU waits through at most this much copying, and when the page cache throttled it longer than
 * this once, its writes go to the engine for a while. */
#define INLINE_BYTES_MAX (512 * KiB)
#define INLINE_SLOW_NS 2000000ll
#define INLINE_PAUSE_NS 100000000ll
#define INLINE_WATCHED 256
#define ZEROS_BYTES (64 * KiB)

static s64 now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * NS_PER_S + t.tv_nsec;
}

/* --- opening --- */

struct block *block_new(const char *path, const struct block_options *o, struct block_engine *e)
{
    struct block *b = calloc(1, sizeof(*b));

    if (!b)
        return NULL;
    b->fd = -1;
    b->readonly = o->readonly;
    b->can_discard = !o->readonly;
    b->trust = o->trust;
    b->engine = e;
    pthread_mutex_init(&b->lock, NULL);
    pthread_mutex_init(&b->dirty_lock, NULL);
    pthread_cond_init(&b->idle, NULL);
    b->path = strdup(path);
    if (b->path)
        return b;
    block_close(b);
    return NULL;
}

/* A raw disk that looks like a qcow2 image may be one that somebody forgot to name so. Its guest could also have made
 * it look so, and is then refused what it wanted. */
static int refuse_qcow2(struct block_file *f, struct err *err)
{
    u8 start[4] = {0};

    if (block_file_read(f, start, sizeof(start), 0) || !qcow2_begins(start))
        return 0;
    return err_set(err, EINVAL,
                   "%s: starts like a qcow2 image; say format=qcow2, or format=raw if it is none",
                   f->name);
}

int block_adopt(struct block *b, struct err *err)
{
    struct block_image *i = b->image;

    b->direct = !strcmp(i->fmt->ops->name, "raw");
    b->fd = b->direct ? i->file->fd : -1;
    /* Of a raw file that ends within a sector, that sector is not the guest's: writing it would make the file longer. */
    b->size = ALIGN_DOWN(b->direct ? (u64)i->file->size : block_image_size(i), 512);
    return b->size ? 0 : err_set(err, EINVAL, "%s: smaller than one sector (512 bytes)", b->path);
}

int block_open(const char *path, const struct block_options *o, struct block_engine *e,
               struct block **ret_disk, struct err *err)
{
    struct block_image_options io = {.format = o->format ? o->format : "raw",
                                     .readonly = o->readonly,
                                     .trust = o->trust,
                                     .given_up = o->given_up};
    struct block *b = block_new(path, o, e);
    int rc = b ? 0 : err_set(err, ENOMEM, "%s: no memory", path);

    if (!rc)
        rc = block_image_open(path, &io, &b->image, err);
    if (!rc)
        rc = block_adopt(b, err);
    if (!rc && !o->format)
        rc = refuse_qcow2(b->image->file, err);
    if (rc) {
        block_close(b);
        return rc;
    }
    b->given_up = o->given_up;
    *ret_disk = b;
    return 0;
}

void block_close(struct block *b)
{
    if (!b)
        return;
    block_drain(b);
    block_image_close(b->image); /* lets go of the locks as well */
    pthread_mutex_destroy(&b->lock);
    pthread_mutex_destroy(&b->dirty_lock);
    pthread_cond_destroy(&b->idle);
    free(b->path);
    free(b);
}

u64 block_size(const struct block *b)
{
    return b->size;
}

bool block_readonly(const struct block *b)
{
    return b->readonly;
}

bool block_can_discard(const struct block *b)
{
    return b->can_discard;
}

/* --- doing --- */

void block_advance(struct block_req *r, size_t n)
{
    r->moved += n;
    while (n && r->niov) {
        size_t part = MIN(n, r->iov->iov_len);

        r->iov->iov_base = (u8 *)r->iov->iov_base + part;
        r->iov->iov_len -= part;
        n -= part;
        if (!r->iov->iov_len) {
            r->iov++;
            r->niov--;
        }
    }
}

static int move_all(struct block_req *r)
{
    while (r->moved < r->len) {
        off_t at = (off_t)(r->host + r->moved);
        ssize_t n = r->op == BLOCK_READ ? preadv(r->fd, r->iov, (int)r->niov, at)
                                        : pwritev(r->fd, r->iov, (int)r->niov, at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return -EIO; /* invariant 1 */
        block_advance(r, (size_t)n);
    }
    return 0;
}

static int write_zeros(struct block_req *r)
{
    static const u8 zeros[ZEROS_BYTES];

    while (r->moved < r->len) {
        ssize_t n =
            pwrite(r->fd, zeros, MIN(r->len - r->moved, ZEROS_BYTES), (off_t)(r->host + r->moved));

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n ? -errno : -EIO;
        r->moved += (u64)n;
    }
    return 0;
}

int block_fallocate_mode(const struct block_req *r)
{
    bool hole = r->op == BLOCK_DISCARD || r->unmap;

    return FALLOC_FL_KEEP_SIZE | (hole ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE);
}

static int zero_range(struct block_req *r)
{
    if (fallocate(r->fd, block_fallocate_mode(r), (off_t)r->host, (off_t)r->len) == 0)
        return 0;
    if (errno != EOPNOTSUPP)
        return -errno;
    return r->op == BLOCK_DISCARD
               ? 0
               : write_zeros(r); /* a discard is advice; this host cannot take it */
}

u64 block_flush_begin(struct block *b)
{
    return atomic_load(&b->written);
}

int block_flush_end(struct block *b, u64 begun, int result)
{
    if (result)
        atomic_store(&b->flush_failed, true);
    else if (!atomic_load(&b->flush_failed))
        atomic_store(&b->flushed, begun);
    return atomic_load(&b->flush_failed) ? -EIO : 0;
}

static int flush(struct block *b)
{
    u64 begun = block_flush_begin(b);

    return block_flush_end(b, begun, fdatasync(b->fd) ? -errno : 0);
}

int block_execute(struct block_req *r)
{
    if (!r->disk->direct && !r->mapped)
        return formatted_execute(r);
    switch (r->op) {
    case BLOCK_READ:
    case BLOCK_WRITE:
        return move_all(r);
    case BLOCK_FLUSH:
        return flush(r->disk);
    case BLOCK_DISCARD:
    case BLOCK_ZERO:
        return zero_range(r);
    }
    return -EINVAL;
}

/* --- requests --- */

int block_request_check(const struct block *b, const struct block_req *r)
{
    if (b->given_up)
        return -EBUSY;
    if (r->op == BLOCK_FLUSH)
        return 0;
    if (!range_fits(r->offset, r->len, b->size))
        return -EINVAL;
    return r->op != BLOCK_READ && b->readonly ? -EROFS : 0;
}

void block_changed(const struct block_req *r)
{
    if (r->op == BLOCK_READ || r->op == BLOCK_FLUSH)
        return;
    atomic_fetch_add(&r->disk->written, 1);
    block_dirty_note(r->disk, r->offset, r->len);
}

static int try_read(struct block *b, struct block_req *r)
{
    ssize_t n;

    if (atomic_load(&b->no_nowait))
        return -EAGAIN;
    n = preadv2(r->fd, r->iov, (int)r->niov, (off_t)r->host, RWF_NOWAIT);
    if (n == (ssize_t)r->len)
        return 0;
    if (n < 0 && errno == EOPNOTSUPP)
        atomic_store(&b->no_nowait, true);
    return -EAGAIN; /* errors and short reads too: the engine tries again and reports */
}

static u64 times_waited(void)
{
    struct rusage u;

    return getrusage(RUSAGE_THREAD, &u) ? 0 : (u64)u.ru_nvcsw;
}

/* Buffered writes know no NOWAIT on common file systems. They nearly always just copy; when one did
 * wait, the next ones go to the engine for a while. One that only took long may have lost the
 * processor to somebody else, so it makes us look at the next ones more closely: did they sleep? */
static int try_write(struct block *b, struct block_req *r)
{
    s64 start = now_ns(), end;
    bool watched = atomic_load(&b->watched) > 0;
    u64 waited = watched ? times_waited() : 0;
    ssize_t n;

    if (start < atomic_load(&b->slow_until_ns))
        return -EAGAIN;
    n = pwritev(r->fd, r->iov, (int)r->niov, (off_t)r->host);
    end = now_ns();
    if (watched)
        atomic_fetch_sub(&b->watched, 1);
    if (end - start > INLINE_SLOW_NS) {
        if (watched && times_waited() != waited)
            atomic_store(&b->slow_until_ns, end + INLINE_PAUSE_NS);
        atomic_store(&b->watched, INLINE_WATCHED);
    }
    if (n != (ssize_t)r->len)
        return -EAGAIN;
    r->disk = b;
    block_changed(r);
    return 0;
}

/* Where the bytes are. False: a format has work to do first. */
static bool find_place(struct block *b, struct block_req *r)
{
    if (!b->direct)
        return formatted_enter(b, r);
    r->mapped = false;
    r->fd = b->fd;
    r->host = r->offset;
    return true;
}

static void leave_place(struct block *b, struct block_req *r)
{
    if (r->mapped)
        formatted_leave(b, r);
}

int block_try(struct block *b, struct block_req *r)
{
    int rc = block_request_check(b, r);

    if (rc)
        return rc;
    if (r->op == BLOCK_FLUSH) {
        if (atomic_load(&b->flush_failed))
            return -EIO;
        return atomic_load(&b->flushed) == atomic_load(&b->written) ? 0 : -EAGAIN;
    }
    if (!r->len)
        return 0;
    if (r->len > INLINE_BYTES_MAX || !find_place(b, r))
        return -EAGAIN;
    if (r->op == BLOCK_READ)
        rc = try_read(b, r);
    else
        rc = r->op == BLOCK_WRITE ? try_write(b, r) : -EAGAIN;
    leave_place(b, r);
    return rc;
}

static void inflight_dec(struct block *b)
{
    pthread_mutex_lock(&b->lock);
    if (--b->inflight == 0)
        pthread_cond_broadcast(&b->idle);
    pthread_mutex_unlock(&b->lock);
}

void block_finish(struct block_req *r, int result)
{
    struct block *b = r->disk;

    block_changed(r);
    leave_place(b, r);
    r->done(r, result);
    inflight_dec(b);
}

int block_submit(struct block *b, struct block_req *r)
{
    struct block_engine *e = b->engine;
    int rc = block_request_check(b, r);

    if (rc)
        return rc;
    r->disk = b;
    r->moved = 0;
    pthread_mutex_lock(&b->lock);
    b->inflight++;
    pthread_mutex_unlock(&b->lock);
    if (!find_place(b, r))
        e = e->slow;
    rc = e->ops->submit(e, r);
    if (rc != -EINPROGRESS) {
        block_changed(r);
        leave_place(b, r);
        inflight_dec(b);
    }
    return rc;
}

void block_drain(struct block *b)
{
    pthread_mutex_lock(&b->lock);
    while (b->inflight)
        pthread_cond_wait(&b->idle, &b->lock);
    pthread_mutex_unlock(&b->lock);
}
