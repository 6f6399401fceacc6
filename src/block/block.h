/*
 * Disks as devices see them: a size in bytes and requests against it. A format says
 * where they are in the image; an engine moves the bytes of what would make the caller wait.
 *
 * block_try() runs in the caller's thread and finishes what needs no waiting: on the hosts we
 * measured, a 4 KiB read from the page cache takes 1 us inline, 6 us through io_uring and 30-60 us
 * through another thread. block_submit() hands the rest to the engine; `done` is called once from
 * the engine's thread.
 *
 * Images are never mapped: one that is truncated under us gives -EIO, not SIGBUS.
 */
#ifndef BLOCK_BLOCK_H
#define BLOCK_BLOCK_H

#include "base/err.h"
#include "block/lock.h"
#include <stdatomic.h>
#include <sys/uio.h>

enum block_op { BLOCK_READ, BLOCK_WRITE, BLOCK_FLUSH, BLOCK_DISCARD, BLOCK_ZERO };

struct block;
struct block_engine;

struct block_req {
    enum block_op op;
    u64 offset, len;   /* bytes; for reads and writes len is the sum of iov[] */
    struct iovec *iov; /* engines may change it */
    unsigned niov;
    bool unmap; /* BLOCK_ZERO: the range may become a hole */
    /* result: 0, or -errno (-EIO when the image ended early). May free the request. */
    void (*done)(struct block_req *r, int result);
    /* The engine's. */
    struct block *disk;
    struct block_req *next;
    u64 moved;
    int fd; /* where it goes, and at which offset there */
    u64 host;
    bool mapped; /* a formatted disk's: it holds the mapping until it is done */
};

struct block_options {
    bool readonly;
    const char
        *format;   /* "raw" or "qcow2"; NULL: raw, and refused when it looks like something else */
    bool trust;    /* the image may name files outside its folder */
    bool given_up; /* another host writes to it: no lock, no requests before block_set_lock() */
};

/* One image of a chain, opened by somebody else. */
struct block_layer {
    int fd;
    const char *path;   /* for messages */
    const char *format; /* "raw" or "qcow2" */
    int data_fd;        /* of its external data file, -1: none */
};

/* Opens the image and locks it against a second user (shared when read-only), see fcntl(2),
 * F_OFD_SETLK. The engine outlives the disk; NULL: nothing is submitted, only looked at. */
int block_open(const char *path, const struct block_options *o, struct block_engine *e,
               struct block **ret_disk, struct err *err);
/* The same from descriptors: layer[0] is the disk, each stands on the next. No name is looked at; that an image says it
 * has a backing image must agree with the list. Takes the descriptors, also when it fails. All but the first may be
 * read-only. Locks as block_open() does, unless given_up. */
int block_open_layers(const struct block_layer *layer, unsigned n, const struct block_options *o,
                      struct block_engine *e, struct block **ret_disk, struct err *err);

/*
 * Puts a new overlay on top: what the disk is now stays as it is, and later writes go to the overlay. overlay_fd: a qcow2
 * image of the same size that holds nothing, and names the image now on top as its backing image (with its format, so
 * that others find their way, too); it is opened by whoever made it, in the best case with the lock on it. Takes the
 * descriptor, also when it fails; the disk is as before then. `path` is for messages and block_layer_path().
 *
 * No vCPU runs and nothing submits requests meanwhile; what is under way is waited for. Nothing is written and nothing
 * synced: it takes microseconds. What was written before is on the medium after the next flush of the guest's or
 * block_sync(), and only then may others use the image below (it is locked against that).
 */
int block_push(struct block *b, int overlay_fd, const char *path, struct err *err);
/* All that was written so far is on the medium, in every layer. Any thread, also while the guest runs. */
int block_sync(struct block *b, struct err *err);
/* The images from the top down. */
unsigned block_layers(const struct block *b);
const char *block_layer_path(const struct block *b, unsigned layer);
const char *block_layer_format(const struct block *b, unsigned layer);

/*
 * Storage that two hosts share: at any time one of them has the disk. EXCLUSIVE (SHARED when read-only) takes it: locks
 * it, and reads anew what the other one wrote. UNLOCKED gives it up: all is on the medium, nothing is kept in memory, and
 * requests are refused until it is taken again. No requests meanwhile. When taking fails, it stays given up; when giving
 * up fails (the host cannot write), it stays ours.
 */
int block_set_lock(struct block *b, enum block_lock lock, struct err *err);

/* Waits until every submitted request is done and its callback has returned. */
void block_drain(struct block *b);
/* Waits for requests as block_drain() does. NULL is fine. */
void block_close(struct block *b);
u64 block_size(const struct block *b); /* bytes, fixed while it is open */
bool block_readonly(const struct block *b);
bool block_can_discard(const struct block *b);

/* 0 or -errno: finished, `done` is not called. -EAGAIN: it would wait, submit it. */
int block_try(struct block *b, struct block_req *r);
/* -EINPROGRESS: r->done is called once, from the engine's thread, perhaps already now. Anything
 * else is the result: it was finished in this thread (the engine was full) or refused, and `done`
 * is not called. */
int block_submit(struct block *b, struct block_req *r);

/* name: "auto" (io_uring where it is allowed, else threads), "uring" or "threads". */
int block_engine_new(const char *name, struct block_engine **ret_engine, struct err *err);
void block_engine_free(struct block_engine *e); /* NULL is fine */
const char *block_engine_name(const struct block_engine *e);

#endif
