/*
 * Files of unpacked kernels. A head, the packed payload, and on the next page boundary the unpacked kernel. Files are
 * written under another name and then renamed, so that a reader never sees half of one.
 *
 * Thread: the one that starts the machine, before it locks itself in.
 */
#include "board/kernel_cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC 0x314c4e4b5a505254ull /* "TRPZKNL1" */
#define PAGE 4096ull
#define PREFIX "kernel-"
#define KEEP 4 /* files; the ones stored first go first */
#define COMPARE_LEN (256 * KiB)

struct head {
    u64 magic, payload_len, vmlinux_len;
};

/* FNV-1a over a sample: only tells files apart, the bytes are compared anyway. */
static u64 file_key(const struct blob *payload)
{
    u64 h = 0xcbf29ce484222325ull ^ payload->len;

    for (u64 i = 0; i < payload->len; i += 61)
        h = (h ^ payload->mem[i]) * 0x100000001b3ull;
    return h;
}

static int file_name(char *path, size_t len, const char *dir, const struct blob *payload)
{
    int n = snprintf(path, len, "%s/" PREFIX "%016" PRIx64, dir, file_key(payload));

    return n < 0 || (size_t)n >= len ? -ENAMETOOLONG : 0;
}

static u64 vmlinux_offset(const struct head *h)
{
    return ALIGN_UP(sizeof(*h) + h->payload_len, PAGE);
}

static bool same_payload(const struct blob *file, const struct blob *payload)
{
    auto_free u8 *buf = malloc(COMPARE_LEN);

    for (u64 at = 0; buf && at < payload->len; at += COMPARE_LEN) {
        u64 n = MIN(payload->len - at, COMPARE_LEN);

        if (blob_read(file, sizeof(struct head) + at, buf, n, NULL) ||
            memcmp(buf, payload->mem + at, n))
            return false;
    }
    return buf != NULL;
}

static bool usable(const struct blob *file, const struct blob *payload, struct head *h)
{
    if (blob_read(file, 0, h, sizeof(*h), NULL) || h->magic != MAGIC ||
        h->payload_len != payload->len)
        return false;
    return file->len > vmlinux_offset(h) && file->len - vmlinux_offset(h) == h->vmlinux_len &&
           same_payload(file, payload);
}

int kernel_cache_open(const char *dir, const struct blob *payload, struct blob *ret_vmlinux)
{
    struct blob file = BLOB_INIT;
    char path[4096];
    struct head h;

    if (file_name(path, sizeof(path), dir, payload) || blob_open(&file, path, NULL))
        return -ENOENT;
    if (!usable(&file, payload, &h)) {
        blob_close(&file);
        return -ENOENT;
    }
    file.base = vmlinux_offset(&h);
    file.len = h.vmlinux_len;
    *ret_vmlinux = file;
    return 0;
}

static bool write_all(FILE *f, const struct blob *payload, const struct blob *vmlinux)
{
    struct head h = {.magic = MAGIC, .payload_len = payload->len, .vmlinux_len = vmlinux->len};

    return fwrite(&h, sizeof(h), 1, f) == 1 && fwrite(payload->mem, payload->len, 1, f) == 1 &&
           fseek(f, (long)vmlinux_offset(&h), SEEK_SET) == 0 &&
           fwrite(vmlinux->mem, vmlinux->len, 1, f) == 1;
}

/* The folder and the one it is in. */
static void make_dir(const char *dir)
{
    auto_free char *parent = strdup(dir);
    char *slash = parent ? strrchr(parent, '/') : NULL;

    if (slash && slash != parent) {
        *slash = '\0';
        mkdir(parent, 0700);
    }
    mkdir(dir, 0700);
}

struct oldest {
    unsigned count;
    struct timespec time;
    char name[NAME_MAX + 1];
};

static bool before(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec != b->tv_sec ? a->tv_sec < b->tv_sec : a->tv_nsec < b->tv_nsec;
}

/* Counts the folder's kernels, half-written ones included, and finds the oldest. */
static void find_oldest(DIR *d, struct oldest *ret)
{
    struct dirent *e;

    *ret = (struct oldest){0};
    rewinddir(d);
    while ((e = readdir(d)) != NULL) {
        struct stat st;

        if (strncmp(e->d_name, PREFIX, strlen(PREFIX)) ||
            fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW))
            continue;
        if (!ret->count++ || before(&st.st_mtim, &ret->time)) {
            ret->time = st.st_mtim;
            snprintf(ret->name, sizeof(ret->name), "%s", e->d_name);
        }
    }
}

static void prune(const char *dir)
{
    DIR *d = opendir(dir);
    struct oldest o;

    if (!d)
        return;
    for (find_oldest(d, &o); o.count > KEEP && !unlinkat(dirfd(d), o.name, 0); find_oldest(d, &o))
        ;
    closedir(d);
}

int kernel_cache_store(const char *dir, const struct blob *payload, const struct blob *vmlinux,
                       struct err *err)
{
    char path[4096], temp[4096 + 8];
    bool ok = false;
    FILE *f;
    int fd;

    if (!payload->mem || !vmlinux->mem || !payload->len || !vmlinux->len ||
        file_name(path, sizeof(path), dir, payload))
        return err_set(err, EINVAL, "%s: cannot keep a kernel there", dir);
    make_dir(dir);
    snprintf(temp, sizeof(temp), "%s.XXXXXX", path);
    fd = mkstemp(temp);
    f = fd < 0 ? NULL : fdopen(fd, "wb");
    if (f) {
        ok = write_all(f, payload, vmlinux);
        ok = fclose(f) == 0 && ok && rename(temp, path) == 0;
    } else if (fd >= 0) {
        close(fd);
    }
    if (ok) {
        prune(dir);
        return 0;
    }
    if (fd >= 0)
        unlink(temp);
    return err_sys(err, errno ? errno : EIO, "%s: cannot keep the unpacked kernel", dir);
}
