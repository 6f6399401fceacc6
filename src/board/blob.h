/*
 * Bytes of a file to boot: an open file, or memory. Contents may change under us (another process
 * writes the file): readers copy once, then check.
 */
#ifndef BOARD_BLOB_H
#define BOARD_BLOB_H

#include "base/err.h"
#include "mem/gmem.h"

struct blob {
    int fd;  /* -1: the bytes are in mem */
    u8 *mem; /* mapping that blob_close() unmaps, or NULL */
    u64 len;
    u64 base;      /* where the bytes begin in the file */
    char name[64]; /* for messages: the end of the path */
};

#define BLOB_INIT ((struct blob){.fd = -1})

/* Opens a regular file, read-only. */
int blob_open(struct blob *b, const char *path, struct err *err);
/* Anonymous memory of len bytes, zeroed. */
int blob_alloc(struct blob *b, u64 len, const char *name, struct err *err);
void blob_close(struct blob *b); /* BLOB_INIT and zeroed-and-closed are fine */
/* Copies [offset, offset + len). -EIO when the file has become shorter or cannot be read. */
int blob_read(const struct blob *b, u64 offset, void *buf, u64 len, struct err *err);
/* The same straight into guest RAM. -EFAULT when it is not all RAM. */
int blob_load(const struct blob *b, u64 offset, struct gmem *ram, u64 gpa, u64 len,
              struct err *err);

#endif
