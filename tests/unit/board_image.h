/* Kernel images made up in a test, and a board to start them on. */
#ifndef BOARD_IMAGE_H
#define BOARD_IMAGE_H

#include "board/boot.h"
#include "unit.h"
#include <sys/mman.h>
#include <unistd.h>

#define IMAGE_RAM (64 * MiB)
#define IMAGE_MAX (1024 * KiB)

struct image {
    struct gmem ram;
    struct timerq q;
    struct cpu_model model;
    struct board *b;
    u8 bytes[IMAGE_MAX];
    size_t len;
    int fd[2]; /* of files without a name, so that nothing is left when a test fails */
    char path[32], initrd[32];
    const char *cache_dir;
    struct x86_cpu cpu;
    struct err err;
};

static inline void image_put(struct image *i, size_t at, u64 value, unsigned bytes)
{
    assert_true(at + bytes <= IMAGE_MAX);
    memcpy(i->bytes + at, &value, bytes);
    i->len = MAX(i->len, at + bytes);
}

static inline void image_file(char *path, size_t len, int *ret_fd)
{
    *ret_fd = memfd_create("image", MFD_CLOEXEC);
    assert_true(*ret_fd >= 0);
    snprintf(path, len, "/proc/self/fd/%d", *ret_fd);
}

static inline void image_init(struct image *i)
{
    struct board_config c = {.name = "test", .cpus = 1};

    memset(i, 0, sizeof(*i));
    assert_int_equal(gmem_init(&i->ram, IMAGE_RAM, NULL), 0);
    timerq_init(&i->q);
    i->q.stepped = true;
    i->model.phys_bits = 40;
    i->model.tsc_khz = 1000000;
    c.ram = &i->ram;
    c.model = &i->model;
    c.timers = &i->q;
    assert_int_equal(board_new(&c, &i->b, NULL), 0);
    image_file(i->path, sizeof(i->path), &i->fd[0]);
    image_file(i->initrd, sizeof(i->initrd), &i->fd[1]);
}

static inline void image_fini(struct image *i)
{
    close(i->fd[0]);
    close(i->fd[1]);
    board_free(i->b);
    timerq_fini(&i->q);
    gmem_fini(&i->ram);
}

static inline struct image *image_new(void)
{
    struct image *i = malloc(sizeof(*i));

    assert_non_null(i);
    image_init(i);
    return i;
}

static inline void image_free(struct image *i)
{
    image_fini(i);
    free(i);
}

static inline void image_write(const char *path, const void *bytes, size_t len)
{
    FILE *f = fopen(path, "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, len, f), len);
    fclose(f);
}

/* Opens and starts it; 0 or the error, whose text is in i->err. */
static inline int image_boot(struct image *i, const char *initrd, const char *cmdline)
{
    struct board_kernel k = {
        .kernel = i->path, .initrd = initrd, .cmdline = cmdline, .cache_dir = i->cache_dir};
    int rc;

    i->err = ERR_INIT;
    image_write(i->path, i->bytes, i->len);
    rc = board_open_kernel(i->b, &k, &i->err);
    return rc ? rc : board_boot(i->b, &i->cpu, &i->err);
}

static inline u64 image_ram(struct image *i, u64 gpa, unsigned bytes)
{
    u64 v = 0;

    assert_int_equal(gmem_read(&i->ram, gpa, &v, bytes), 0);
    return v;
}

/* An ELF header with `n` program headers behind it; 64 bit. */
static inline void image_elf64(struct image *i, size_t at, u64 entry, unsigned n)
{
    static const u8 ident[] = {0x7f, 'E', 'L', 'F', 2, 1, 1};

    memcpy(i->bytes + at, ident, sizeof(ident));
    image_put(i, at + 16, 2, 2);
    image_put(i, at + 18, 62, 2);
    image_put(i, at + 24, entry, 8);
    image_put(i, at + 32, 64, 8);
    image_put(i, at + 52, 64, 2);
    image_put(i, at + 54, 56, 2);
    image_put(i, at + 56, n, 2);
    image_put(i, at + 58, 64, 2);
    image_put(i, at + 64 + 56 * n - 1, 0, 1);
}

struct image_phdr {
    u32 type;
    u64 offset, vaddr, paddr, file_len, mem_len;
};

static inline void image_phdr64(struct image *i, size_t at, unsigned index,
                                const struct image_phdr *p)
{
    at += 64 + 56 * index;
    image_put(i, at, p->type, 4);
    image_put(i, at + 8, p->offset, 8);
    image_put(i, at + 16, p->vaddr, 8);
    image_put(i, at + 24, p->paddr, 8);
    image_put(i, at + 32, p->file_len, 8);
    image_put(i, at + 40, p->mem_len, 8);
}

#endif
