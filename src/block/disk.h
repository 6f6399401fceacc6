/* What the files of src/block share: the open disk and the engine's table. Devices use block.h. */
#ifndef BLOCK_DISK_H
#define BLOCK_DISK_H

#include "block/block.h"
#include "block/image.h"
#include <pthread.h>

struct block_engine_ops {
    const char *name;
    int (*new)(struct block_engine **ret_engine, struct err *err);
    void (*free)(struct block_engine *e);
    /* -EINPROGRESS: ends in block_finish() from the engine's thread. Else the result, and it is not
     * called. */
    int (*submit)(struct block_engine *e, struct block_req *r);
};

struct block_engine {
    const struct block_engine_ops *ops;
    struct block_engine *slow; /* threads that may wait, for what formats must do */
};

struct block {
    struct block_image *image;
    bool direct; /* raw and alone: requests go to fd as they are */
    int fd;      /* the image's, when direct */
    bool readonly, can_discard, trust;
    bool given_up; /* another host has it, or will: no requests until block_set_lock() */
    u64 size;
    char *path; /* for messages */
    struct block_engine *engine;

    atomic_bool no_nowait; /* the file system does not know RWF_NOWAIT */
    atomic_llong
        slow_until_ns;     /* inline writes waited lately: leave them to the engine until then */
    atomic_int watched;    /* so many more inline writes are looked at closely */
    atomic_ullong written; /* counts changes to the image */
    atomic_ullong flushed; /* the value of `written` that is known to be on the disk */
    atomic_bool
        flush_failed; /* once failed, always failed: the kernel forgets which pages it lost */

    pthread_mutex_t dirty_lock; /* protects the list of logs and their bits */
    struct block_dirty_log *dirty;
    atomic_uint dirty_logs; /* in that list */

    pthread_mutex_t lock; /* protects all below */
    pthread_cond_t idle;  /* inflight or mapped fell, or changing ended */
    unsigned inflight;
    unsigned mapped; /* requests that rely on where the format said things are */
    bool changing;   /* one request may change that */
};

extern const struct block_engine_ops block_uring, block_threads;

/* Does the whole request in this thread, waiting as long as it takes; 0 or -errno. */
int block_execute(struct block_req *r);
/* Accounts for a request that was in progress and calls its `done`. */
void block_finish(struct block_req *r, int result);
/* Called before a flush starts and with what came of it. */
u64 block_flush_begin(struct block *b);
int block_flush_end(struct block *b, u64 begun, int result);
/* 0: the disk takes it. */
int block_request_check(const struct block *b, const struct block_req *r);
/* After a request, done or failed, and before anybody is told: it may have changed the disk. */
void block_changed(const struct block_req *r);
/* fallocate(2) mode for BLOCK_DISCARD and BLOCK_ZERO. */
int block_fallocate_mode(const struct block_req *r);
/* Notes that n bytes have moved and drops them from the segments. */
void block_advance(struct block_req *r, size_t n);

/* Nothing opened yet; NULL: no memory. */
struct block *block_new(const char *path, const struct block_options *o, struct block_engine *e);
/* Ends opening: what b->image says of the disk. */
int block_adopt(struct block *b, struct err *err);

/* --- formatted.c: disks with a format other than raw, or with layers --- */

/* Finds the place of a read or write that needs nothing of the format. True: r->fd and r->host are set, and
 * formatted_leave() must follow when it is done. Does not wait. */
bool formatted_enter(struct block *b, struct block_req *r);
void formatted_leave(struct block *b, struct block_req *r);
/* Does the whole request, waiting as long as it takes. */
int formatted_execute(struct block_req *r);
/* In between, the mapping does not change. */
void formatted_lean(struct block *b);
void formatted_let_go(struct block *b);

/* --- mirror.c --- */

void block_dirty_note(struct block *b, u64 offset, u64 len);

#endif
