/*
 * The bytes under a disk image: a regular file or a block device of the host, or whatever a test puts in its place
 * (memory, a recorder, one that fails). All calls wait until they are done and move all of it or fail; any thread.
 */
#ifndef BLOCK_FILE_H
#define BLOCK_FILE_H

#include "base/err.h"
#include "block/lock.h"
#include <pthread.h>
#include <stdatomic.h>

struct block_file;

struct block_file_ops {
    /* All of it, or -errno; -EIO where the file ends early. */
    int (*read)(struct block_file *f, void *buf, size_t len, u64 offset);
    int (*write)(struct block_file *f, const void *buf, size_t len, u64 offset);
    /* The range, which lies within the file, reads as zeros afterwards; hole: and takes no space if that can be. */
    int (*zero)(struct block_file *f, u64 offset, u64 len, bool hole);
    int (*sync)(struct block_file *f);
    int (*truncate)(struct block_file *f, u64 size);
    /* Data or a hole at offset (below size), and where that ends. */
    int (*next)(struct block_file *f, u64 offset, bool *ret_data, u64 *ret_end);
    void (*close)(struct block_file *f); /* frees f too */
};

struct block_file {
    const struct block_file_ops *ops;
    char *name;              /* for messages */
    int fd;                  /* of the host's file, else -1 */
    bool readonly, device;   /* device: its size cannot change */
    enum block_lock lock;    /* what we hold of it */
    pthread_mutex_t syncing; /* held during a sync: who finds nothing unsynced must not be early */
    bool unsafe;             /* sync does nothing: for images that are being made */
    _Atomic u64 size;        /* bytes; writes and truncate move it */
    atomic_bool unsynced;    /* written to since the last sync */
    atomic_bool sync_failed; /* then for ever: the kernel forgets which pages it lost */
};

struct block_file_options {
    bool readonly;
    bool create; /* make it or empty it; it must be no device */
    bool shared; /* take no lock: for looking at an image that is in use */
    int dir_fd;  /* when >= 0: the path is relative to it and must stay beneath it */
};

#define BLOCK_FILE_OPTIONS ((struct block_file_options){.dir_fd = -1})

/* Opens and locks a file of the host (fcntl(2), F_OFD_SETLK; readers share). */
int block_file_open(const char *path, const struct block_file_options *o,
                    struct block_file **ret_file, struct err *err);
/* The lock, for a file that was opened `shared`. */
int block_file_lock(struct block_file *f, struct err *err);
int block_file_set_lock(struct block_file *f, enum block_lock lock, struct err *err);
/* A file that somebody else opened; `name` is for messages, and to find what it names. Takes the descriptor, also when
 * it fails, with the lock that may be on it; not yet locked by us. */
int block_file_from_fd(int fd, const char *name, bool readonly, struct block_file **ret_file,
                       struct err *err);
/* Its size may have changed while another host had it. */
int block_file_refresh(struct block_file *f, struct err *err);
/*
 * What other images or snapshots stand on must not change any more. Such a file has no write permission, for nobody, and
 * is then never opened for writing here, by root neither: a rule that every file system keeps, that survives a copy to
 * another host, and that `ls` shows. Off: its owner may write again.
 */
int block_file_protect(const char *path, bool on, struct err *err);
/* For implementers: sets what they share. Takes a copy of the name. */
int block_file_init(struct block_file *f, const struct block_file_ops *ops, const char *name);
void block_file_close(struct block_file *f); /* NULL is fine; does not sync */

int block_file_read(struct block_file *f, void *buf, size_t len, u64 offset);
int block_file_write(struct block_file *f, const void *buf, size_t len, u64 offset);
/* As the operation, but the range may pass the end: the file grows then. */
int block_file_zero(struct block_file *f, u64 offset, u64 len, bool hole);
int block_file_sync(struct block_file *f);
int block_file_truncate(struct block_file *f, u64 size);
int block_file_next(struct block_file *f, u64 offset, bool *ret_data, u64 *ret_end);

/* Somebody wrote to it by other means, up to `end`. */
void block_file_grown(struct block_file *f, u64 end);

#endif
