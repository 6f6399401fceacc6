/*
 * A loader for payloads: program headers by physical address, and the note of Xen's x86/HVM direct boot ABI. Payloads are
 * our own, so a broken one is answered with an error, but nothing more is made of it.
 */
#include "image.h"

#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOTE_PHYS32_ENTRY 18

struct file {
    u8 *data;
    size_t len;
};

/* The fields that the two classes share, widened. */
struct segment {
    u32 type;
    u64 offset, paddr, filesz, memsz;
};

static int read_file(const char *path, struct file *ret, struct err *err)
{
    FILE *f = fopen(path, "re");
    long len;

    if (!f)
        return err_sys(err, errno, "%s", path);
    fseek(f, 0, SEEK_END);
    len = ftell(f);
    rewind(f);
    ret->data = len > 0 ? malloc((size_t)len) : NULL;
    ret->len = ret->data ? fread(ret->data, 1, (size_t)len, f) : 0;
    fclose(f);
    return ret->len && ret->len == (size_t)len ? 0 : err_set(err, EIO, "%s: cannot be read", path);
}

/* False when there is no such header. */
static bool get_segment(const struct file *f, unsigned index, struct segment *ret)
{
    const Elf64_Ehdr *e64 = (const Elf64_Ehdr *)f->data;
    const Elf32_Ehdr *e32 = (const Elf32_Ehdr *)f->data;

    if (e64->e_ident[EI_CLASS] == ELFCLASS64) {
        const Elf64_Phdr *p = (const Elf64_Phdr *)(f->data + e64->e_phoff) + index;

        if (index >= e64->e_phnum || !range_fits(e64->e_phoff, (index + 1ull) * sizeof(*p), f->len))
            return false;
        *ret = (struct segment){p->p_type, p->p_offset, p->p_paddr, p->p_filesz, p->p_memsz};
    } else {
        const Elf32_Phdr *p = (const Elf32_Phdr *)(f->data + e32->e_phoff) + index;

        if (index >= e32->e_phnum || !range_fits(e32->e_phoff, (index + 1ull) * sizeof(*p), f->len))
            return false;
        *ret = (struct segment){p->p_type, p->p_offset, p->p_paddr, p->p_filesz, p->p_memsz};
    }
    return range_fits(ret->offset, ret->filesz, f->len);
}

static u32 find_entry(const u8 *notes, u64 len)
{
    while (len >= sizeof(Elf64_Nhdr)) {
        const Elf64_Nhdr *n = (const Elf64_Nhdr *)notes;
        u64 desc = sizeof(*n) + ALIGN_UP((u64)n->n_namesz, 4),
            size = desc + ALIGN_UP((u64)n->n_descsz, 4);

        if (size > len)
            return 0;
        if (n->n_type == NOTE_PHYS32_ENTRY && n->n_namesz == 4 && n->n_descsz >= 4)
            return *(const u32 *)(notes + desc);
        notes += size;
        len -= size;
    }
    return 0;
}

static int load(struct gmem *ram, const struct file *f, const char *path, u32 *ret_entry,
                struct err *err)
{
    struct segment s;
    u32 entry = 0;

    if (f->len < sizeof(Elf64_Ehdr) || memcmp(f->data, ELFMAG, SELFMAG))
        return err_set(err, ENOEXEC, "%s: is no ELF file", path);
    for (unsigned i = 0; get_segment(f, i, &s); i++) {
        if (s.type == PT_NOTE && !entry)
            entry = find_entry(f->data + s.offset, s.filesz);
        if (s.type != PT_LOAD)
            continue;
        if (s.filesz > s.memsz || !gmem_ptr(ram, s.paddr, s.memsz))
            return err_set(err, ENOEXEC, "%s: does not fit into guest memory", path);
        gmem_write(ram, s.paddr, f->data + s.offset, s.filesz);
    }
    if (!entry)
        return err_set(err, ENOEXEC, "%s: has no PVH note", path);
    *ret_entry = entry;
    return 0;
}

int image_load(struct gmem *ram, const char *path, u32 *ret_entry, struct err *err)
{
    struct file f = {0};
    int rc = read_file(path, &f, err);

    if (!rc)
        rc = load(ram, &f, path, ret_entry, err);
    free(f.data);
    return rc;
}

void image_entry(struct x86_cpu *c, u32 entry)
{
    const struct x86_seg data = {.limit = UINT32_MAX, .attr = 0xc093, .sel = 0x10};

    x86_cpu_reset(c, true);
    for (unsigned i = 0; i < X86_SEGS; i++)
        c->seg[i] = data;
    c->seg[SEG_CS] = (struct x86_seg){.limit = UINT32_MAX, .attr = 0xc09b, .sel = 0x08};
    c->tr = (struct x86_seg){.limit = 0x67, .attr = 0x8b};
    c->cr0 = CR0_PE | CR0_ET;
    c->rip = entry;
    c->rflags = 2;
}
