/* Files to boot, read in pieces. Thread: the one that starts or resets the machine. */
#include "board/blob.h"
#include "board/zero.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define ZERO_PAGE 4096ull
#define LOAD_CHUNK (256 * KiB)

static void set_name(struct blob *b, const char *path)
{
    size_t len = strlen(path), keep = sizeof(b->name) - 1;

    snprintf(b->name, sizeof(b->name), "%s", len > keep ? path + len - keep : path);
}

int blob_open(struct blob *b, const char *path, struct err *err)
{
    /* Not to wait for the other end of a pipe, which is refused anyway. */
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;

    if (fd < 0 || fstat(fd, &st))
        return err_sys(err, errno, "%s: cannot be opened", path);
    if (!S_ISREG(st.st_mode))
        return err_set(err, EINVAL, "%s: is not a regular file", path);
    *b = BLOB_INIT;
    set_name(b, path);
    b->len = (u64)st.st_size;
    b->fd = fd;
    fd = -1;
    return 0;
}

int blob_alloc(struct blob *b, u64 len, const char *name, struct err *err)
{
    void *mem =
        mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (mem == MAP_FAILED)
        return err_sys(err, errno, "%s: no memory for %" PRIu64 " bytes", name, len);
    madvise(mem, len, MADV_HUGEPAGE); /* page faults cost more than what is done with the bytes */
    *b = (struct blob){.fd = -1, .mem = mem, .len = len};
    set_name(b, name);
    return 0;
}

void blob_close(struct blob *b)
{
    if (b->mem)
        munmap(b->mem, b->len);
    else if (b->fd > 0)
        close(b->fd);
    *b = BLOB_INIT;
}

static int read_fd(const struct blob *b, u64 offset, u8 *buf, u64 len, struct err *err)
{
    while (len) {
        ssize_t n = pread(b->fd, buf, len, (off_t)(b->base + offset));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys(err, errno, "%s: cannot be read", b->name);
        if (n == 0)
            return err_set(err, EIO, "%s: has become shorter while it was read", b->name);
        buf += n;
        offset += (u64)n;
        len -= (u64)n;
    }
    return 0;
}

int blob_read(const struct blob *b, u64 offset, void *buf, u64 len, struct err *err)
{
    if (!range_fits(offset, len, b->len))
        return err_set(err, EIO, "%s: ends before byte 0x%" PRIx64, b->name, offset + len);
    if (!b->mem)
        return read_fd(b, offset, buf, len, err);
    memcpy(buf, b->mem + offset, len);
    return 0;
}

static bool is_zero(const u8 *p, u64 len)
{
    return len && p[0] == 0 && !memcmp(p, p + 1, len - 1);
}

/* Into memory that is zero: pages of zeros (a kernel's bss) are left alone, the host need not provide them. */
static void copy_sparse(u8 *to, const u8 *from, u64 len)
{
    while (len) {
        u64 n = MIN(len, ZERO_PAGE - ((uintptr_t)to & (ZERO_PAGE - 1)));

        if (!is_zero(from, n))
            memcpy(to, from, n);
        to += n;
        from += n;
        len -= n;
    }
}

/* Through a small buffer that stays in the processor's cache. */
static int load_fd(const struct blob *b, u64 offset, u8 *to, u64 len, struct err *err)
{
    auto_free u8 *buf = malloc(LOAD_CHUNK);
    int rc = 0;

    if (!buf)
        return err_set(err, ENOMEM, "no memory");
    for (u64 at = 0; at < len && !rc; at += LOAD_CHUNK) {
        u64 n = MIN(len - at, LOAD_CHUNK);

        rc = read_fd(b, offset + at, buf, n, err);
        if (!rc)
            copy_sparse(to + at, buf, n);
    }
    return rc;
}

int blob_load(const struct blob *b, u64 offset, struct gmem *ram, u64 gpa, u64 len, struct err *err)
{
    u8 *to = len ? gmem_ptr(ram, gpa, len) : NULL;
    int rc = 0;

    if (!len)
        return 0;
    if (!to)
        return err_set(err, EFAULT, "%s: 0x%" PRIx64 " bytes do not fit into memory at 0x%" PRIx64,
                       b->name, len, gpa);
    if (!range_fits(offset, len, b->len))
        return err_set(err, EIO, "%s: ends before byte 0x%" PRIx64, b->name, offset + len);
    zero_guest(ram, gpa, len);
    if (b->mem)
        copy_sparse(to, b->mem + offset, len);
    else
        rc = load_fd(b, offset, to, len, err);
    gmem_wrote(ram, gpa, len);
    return rc;
}
