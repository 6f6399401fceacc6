/*
 * The vmlinux inside a bzImage, unpacked on the host and entered directly, with the kernel's own
 * kind of address randomization: what its decompressor would do (Linux, arch/x86/boot/compressed),
 * without running it in the guest.
 *
 * The payload is an ELF file, followed by the relocations if the kernel was built for randomization
 * (x86-64: exactly then). They are lists of 32-bit numbers, sign-extended link-time addresses of
 * places to be adjusted, written to be read backwards from the end of the payload:
 *
 *     [ELF] 0 [places of 64-bit values] (0 [places of 32-bit values to be decreased]) 0 [places of
 * 32-bit values]
 *
 * The middle list is there up to Linux 6.14. As the end of the ELF file is known, the lists must
 * fill what follows exactly: that, and each place within the image, is checked before a byte is
 * changed. Anything else is -ENOTSUP, and the caller starts the bzImage as it is.
 */
#include "board/boot.h"
#include "board/unpack.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define UNPACKED_MAX (512 * MiB)
#define KERNEL_MAP 0xffffffff80000000ull /* virtual address of physical 0 in the kernel's link */
#define KERNEL_IMAGE_SIZE \
    (1 * GiB) /* with randomization, the image may lie anywhere in this window of it */
#define RELOCS_MAX (4 * MiB) /* numbers */

struct relocs {
    s32 *list; /* as in the file */
    size_t count;
    size_t first64, n64, first_inverse, n_inverse, first32, n32;
};

static int unfamiliar(struct err *err, const char *what)
{
    return err_set(err, ENOTSUP, "the kernel's payload looks unfamiliar: %s", what);
}

/* Walks one list backwards from `end` (exclusive) to its zero. */
static bool take_list(const struct relocs *r, size_t *end, size_t *ret_first, size_t *ret_count)
{
    size_t i = *end;

    while (i > 0 && r->list[i - 1] != 0)
        i--;
    if (i == 0)
        return false;
    *ret_first = i;
    *ret_count = *end - i;
    *end = i - 1; /* the zero */
    return true;
}

/* Finds the lists; false when they do not fill the space exactly. */
static bool split_lists(struct relocs *r)
{
    size_t end = r->count;

    if (!take_list(r, &end, &r->first32, &r->n32) ||
        !take_list(r, &end, &r->first_inverse, &r->n_inverse))
        return false;
    if (end == 0) { /* two lists only: what came second are the 64-bit values */
        r->first64 = r->first_inverse;
        r->n64 = r->n_inverse;
        r->n_inverse = 0;
        return true;
    }
    return take_list(r, &end, &r->first64, &r->n64) && end == 0;
}

/* Are all places of a list inside the file's part of the image? */
static bool places_fit(const struct elf *e, const s32 *list, size_t n, unsigned width)
{
    u64 len = e->paddr_end - e->paddr_first;

    for (size_t i = 0; i < n; i++) {
        u64 at = (u64)(s64)list[i] - KERNEL_MAP - e->paddr_first;

        if (!range_fits(at, width, len))
            return false;
    }
    return true;
}

static int read_relocs(const struct blob *v, const struct elf *e, struct relocs *r, struct err *err)
{
    /* objcopy may leave the ELF file's end unaligned; numbers are not aligned to anything but each
     * other */
    u64 len = v->len - e->file_end;

    r->count = len / 4;
    if (len % 4 || r->count > RELOCS_MAX)
        return unfamiliar(err, "what follows the ELF file are no relocations");
    r->list = malloc(len + 1);
    if (!r->list)
        return err_set(err, ENOMEM, "no memory for relocations");
    if (blob_read(v, e->file_end, r->list, len, err))
        return unfamiliar(err, "relocations cannot be read");
    if (!split_lists(r))
        return unfamiliar(err, "the relocations have no known form");
    if (!places_fit(e, r->list + r->first64, r->n64, 8) ||
        !places_fit(e, r->list + r->first32, r->n32, 4) ||
        !places_fit(e, r->list + r->first_inverse, r->n_inverse, 4))
        return unfamiliar(err, "a relocation lies outside the image");
    return 0;
}

/* Adjusts the loaded image, which starts at `base` and was linked to start at e->paddr_first. */
static void apply(u8 *base, const struct elf *e, const struct relocs *r, u64 delta)
{
    u64 link = KERNEL_MAP + e->paddr_first, v64;
    u32 v32;

    for (size_t i = 0; i < r->n64; i++) {
        u8 *p = base + ((u64)(s64)r->list[r->first64 + i] - link);

        memcpy(&v64, p, 8);
        v64 += delta;
        memcpy(p, &v64, 8);
    }
    for (size_t i = 0; i < r->n32; i++) {
        u8 *p = base + ((u64)(s64)r->list[r->first32 + i] - link);

        memcpy(&v32, p, 4);
        v32 += (u32)delta;
        memcpy(p, &v32, 4);
    }
    for (size_t i = 0; i < r->n_inverse; i++) {
        u8 *p = base + ((u64)(s64)r->list[r->first_inverse + i] - link);

        memcpy(&v32, p, 4);
        v32 -= (u32)delta;
        memcpy(p, &v32, 4);
    }
}

static u64 random_below(u64 n)
{
    u64 v = 0;

    if (n < 2 || getrandom(&v, sizeof(v), 0) != sizeof(v))
        return 0;
    return (u64)((unsigned __int128)v * n >> 64);
}

static int check_elf(const struct elf *e, const struct linux_place *where, struct err *err)
{
    if (!e->is64 || e->machine != ELF_MACHINE_X86_64)
        return unfamiliar(err, "no x86-64 executable");
    if (e->paddr_first != where->pref || where->align < 2 * MiB)
        return unfamiliar(err, "it is not linked to run at the preferred address");
    if (e->entry < e->paddr_first || e->entry >= e->paddr_end)
        return unfamiliar(err, "its entry is no physical address in it");
    return 0;
}

static u64 slots(u64 room, u64 len, u64 align)
{
    return room < len ? 0 : (room - len) / align + 1;
}

static int place_and_load(struct board *b, const struct blob *v, const struct elf *e,
                          const struct relocs *r, const struct linux_place *where, u64 *ret_entry,
                          struct err *err)
{
    u64 len = ALIGN_UP(e->paddr_end - e->paddr_first, where->align);
    u64 room = where->limit > where->floor ? where->limit - where->floor : 0;
    u64 physical = slots(room, len, where->align), virtual, at, delta = 0;
    bool random = where->kaslr && r->count;
    int rc;

    if (!physical)
        return err_set(err, ENOTSUP, "no room for the unpacked kernel");
    at = where->floor + (random ? random_below(physical) * where->align : 0);
    rc = elf_load(v, e, b->config.ram, at - e->paddr_first, err);
    if (rc)
        return rc;
    virtual = slots(KERNEL_IMAGE_SIZE - where->pref, len, where->align);
    if (random)
        delta = random_below(virtual) * where->align;
    if (delta) {
        u8 *base = gmem_ptr(b->config.ram, at, e->paddr_end - e->paddr_first);

        if (!base)
            return err_set(err, ENOTSUP, "no room for the unpacked kernel");
        apply(base, e, r, delta);
        gmem_wrote(b->config.ram, at, e->paddr_end - e->paddr_first);
    }
    *ret_entry = e->entry - e->paddr_first + at;
    return 0;
}

int vmlinux_unpack(const struct blob *payload, u64 max, struct blob *ret_vmlinux, struct err *err)
{
    struct blob v = BLOB_INIT;
    size_t unpacked = 0;
    u32 claimed;
    int rc;

    if (payload->len < 16 || !unpack_format(payload->mem, payload->len))
        return unfamiliar(err, "unknown compression");
    memcpy(&claimed, payload->mem + payload->len - 4,
           4); /* the kernel's build appends the length */
    if (claimed < BOOT_PAGE || claimed > MIN(max, UNPACKED_MAX))
        return unfamiliar(err, "its length makes no sense");
    rc = blob_alloc(&v, claimed, "vmlinux", err);
    rc = rc ? rc : unpack(payload->mem, payload->len, v.mem, claimed, &unpacked, err);
    if (!rc && unpacked != claimed)
        rc = unfamiliar(err, "its length is not what was said");
    if (rc)
        blob_close(&v);
    else
        *ret_vmlinux = v;
    return rc;
}

int vmlinux_load(struct board *b, const struct blob *vmlinux, const struct linux_place *where,
                 u64 *ret_entry, struct err *err)
{
    struct relocs r = {0};
    struct elf e = {0};
    int rc = elf_parse(vmlinux, &e, err);

    rc = rc ? rc : check_elf(&e, where, err);
    if (!rc && e.file_end < vmlinux->len)
        rc = read_relocs(vmlinux, &e, &r, err);
    rc = rc ? rc : place_and_load(b, vmlinux, &e, &r, where, ret_entry, err);
    free(r.list);
    return rc;
}
