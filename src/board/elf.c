/*
 * ELF executables. System V ABI, "Object files"; System V ABI AMD64 supplement.
 *
 * Headers are copied, then checked: every offset against the file, every sum against wrap-around,
 * segments against each other. Whether segments lie in RAM is found out when they are loaded.
 */
#include "board/elf.h"

#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "board/zero.h"

#define NOTES_MAX 4096
#define SECTIONS_MAX 1024

struct header {
    u64 phoff, shoff;
    u16 phentsize, phnum, shentsize, shnum;
};

bool elf_probe(const struct blob *b)
{
    u8 magic[4];

    return b->len >= sizeof(Elf32_Ehdr) && !blob_read(b, 0, magic, 4, NULL) &&
           !memcmp(magic, ELFMAG, SELFMAG);
}

static int bad(const struct blob *b, struct err *err, const char *what)
{
    return err_set(err, EINVAL, "%s: ELF: %s", b->name, what);
}

static int read_header(const struct blob *b, struct elf *e, struct header *h, struct err *err)
{
    Elf64_Ehdr e64;
    Elf32_Ehdr e32;
    int rc = blob_read(b, 0, &e32, sizeof(e32), err);

    if (rc)
        return rc;
    if (memcmp(e32.e_ident, ELFMAG, SELFMAG) || e32.e_ident[EI_DATA] != ELFDATA2LSB)
        return bad(b, err, "is not a little-endian executable");
    e->is64 = e32.e_ident[EI_CLASS] == ELFCLASS64;
    e->machine = e32.e_machine;
    e->type = e32.e_type;
    if (!e->is64) {
        e->entry = e32.e_entry;
        *h = (struct header){e32.e_phoff, e32.e_shoff,     e32.e_phentsize,
                             e32.e_phnum, e32.e_shentsize, e32.e_shnum};
        return h->phentsize == sizeof(Elf32_Phdr)
                   ? 0
                   : bad(b, err, "program headers have a strange size");
    }
    rc = blob_read(b, 0, &e64, sizeof(e64), err);
    if (rc)
        return rc;
    e->entry = e64.e_entry;
    *h = (struct header){e64.e_phoff, e64.e_shoff,     e64.e_phentsize,
                         e64.e_phnum, e64.e_shentsize, e64.e_shnum};
    return h->phentsize == sizeof(Elf64_Phdr) ? 0
                                              : bad(b, err, "program headers have a strange size");
}

static int read_phdr(const struct blob *b, const struct elf *e, u64 at, Elf64_Phdr *ret,
                     struct err *err)
{
    Elf32_Phdr p;
    int rc;

    if (e->is64)
        return blob_read(b, at, ret, sizeof(*ret), err);
    rc = blob_read(b, at, &p, sizeof(p), err);
    if (rc)
        return rc;
    *ret = (Elf64_Phdr){.p_type = p.p_type,
                        .p_offset = p.p_offset,
                        .p_vaddr = p.p_vaddr,
                        .p_paddr = p.p_paddr,
                        .p_filesz = p.p_filesz,
                        .p_memsz = p.p_memsz};
    return 0;
}

static int check_segment(const struct blob *b, const struct elf *e, const struct elf_segment *s,
                         struct err *err)
{
    u64 end;

    if (!range_fits(s->offset, s->file_len, b->len))
        return bad(b, err, "a segment lies past the end of the file");
    if (s->file_len > s->mem_len)
        return bad(b, err, "a segment has more bytes in the file than in memory");
    if (ADD_OVERFLOWS(s->paddr, s->mem_len, &end) || ADD_OVERFLOWS(s->vaddr, s->mem_len, &end))
        return bad(b, err, "a segment wraps around the end of the address space");
    for (unsigned i = 0; i < e->nsegments; i++) {
        const struct elf_segment *o = &e->segment[i];

        if (s->paddr < o->paddr + o->mem_len && o->paddr < s->paddr + s->mem_len)
            return bad(b, err, "two segments overlap in memory");
    }
    return 0;
}

static int add_segment(const struct blob *b, struct elf *e, const Elf64_Phdr *p, struct err *err)
{
    struct elf_segment s = {p->p_offset, p->p_filesz, p->p_vaddr, p->p_paddr, p->p_memsz};
    int rc;

    if (p->p_type == PT_NOTE && e->nnotes < ELF_SEGMENTS &&
        range_fits(s.offset, s.file_len, b->len))
        e->note[e->nnotes++] = s;
    if (p->p_type != PT_LOAD || !p->p_memsz)
        return 0;
    if (e->nsegments == ELF_SEGMENTS)
        return bad(b, err, "has too many segments");
    rc = check_segment(b, e, &s, err);
    if (rc)
        return rc;
    if (!e->nsegments || s.paddr < e->paddr_first)
        e->paddr_first = s.paddr;
    e->paddr_end = MAX(e->paddr_end, s.paddr + s.mem_len);
    e->file_end = MAX(e->file_end, s.offset + s.file_len);
    e->segment[e->nsegments++] = s;
    return 0;
}

/* Sections matter only for where the file ends: the kernel's relocations follow. Errors leave
 * file_end as it is. */
static void note_sections(const struct blob *b, struct elf *e, const struct header *h)
{
    u64 len;

    if (!e->is64 || h->shentsize != sizeof(Elf64_Shdr) || h->shnum > SECTIONS_MAX ||
        MUL_OVERFLOWS((u64)h->shentsize, (u64)h->shnum, &len) || !range_fits(h->shoff, len, b->len))
        return;
    e->file_end = MAX(e->file_end, h->shoff + len);
    for (unsigned i = 0; i < h->shnum; i++) {
        Elf64_Shdr s;

        if (blob_read(b, h->shoff + i * sizeof(s), &s, sizeof(s), NULL))
            return;
        if (s.sh_type != SHT_NOBITS && s.sh_type != SHT_NULL &&
            range_fits(s.sh_offset, s.sh_size, b->len))
            e->file_end = MAX(e->file_end, s.sh_offset + s.sh_size);
    }
}

int elf_parse(const struct blob *b, struct elf *ret_elf, struct err *err)
{
    struct elf e = {0};
    struct header h = {0};
    int rc = read_header(b, &e, &h, err);

    if (rc)
        return rc;
    if (!range_fits(h.phoff, (u64)h.phnum * h.phentsize, b->len))
        return bad(b, err, "program headers lie past the end of the file");
    e.file_end = h.phoff + (u64)h.phnum * h.phentsize;
    for (unsigned i = 0; i < h.phnum; i++) {
        Elf64_Phdr p;

        rc = read_phdr(b, &e, h.phoff + (u64)i * h.phentsize, &p, err);
        rc = rc ? rc : add_segment(b, &e, &p, err);
        if (rc)
            return rc;
    }
    if (!e.nsegments)
        return bad(b, err, "has nothing to load");
    note_sections(b, &e, &h);
    *ret_elf = e;
    return 0;
}

int elf_load(const struct blob *b, const struct elf *e, struct gmem *ram, u64 delta,
             struct err *err)
{
    for (unsigned i = 0; i < e->nsegments; i++) {
        const struct elf_segment *s = &e->segment[i];
        u64 gpa = s->paddr + delta;
        int rc = blob_load(b, s->offset, ram, gpa, s->file_len, err);

        rc = rc ? rc : zero_guest(ram, gpa + s->file_len, s->mem_len - s->file_len);
        if (rc == -EFAULT)
            return err_set(err, EFAULT,
                           "%s: a segment of 0x%" PRIx64 " bytes at 0x%" PRIx64
                           " is not all in RAM",
                           b->name, s->mem_len, gpa);
        if (rc)
            return rc;
    }
    return 0;
}

/* One note at `at` of `notes`; its end, or 0 when it does not fit. */
static u64 parse_note(const u8 *notes, u64 len, u64 at, const u8 **ret_name, const u8 **ret_desc,
                      Elf64_Nhdr *ret)
{
    u64 desc;

    if (!range_fits(at, sizeof(*ret), len))
        return 0;
    memcpy(ret, notes + at, sizeof(*ret));
    at += sizeof(*ret);
    desc = at + ALIGN_UP((u64)ret->n_namesz, 4);
    if (!range_fits(at, ret->n_namesz, len) || !range_fits(desc, ret->n_descsz, len))
        return 0;
    *ret_name = notes + at;
    *ret_desc = notes + desc;
    return desc + ALIGN_UP((u64)ret->n_descsz, 4);
}

static int find_note(const u8 *notes, u64 len, const char *owner, u32 type, void *buf,
                     size_t buf_len)
{
    const u8 *name, *desc;
    Elf64_Nhdr n;
    u64 at = 0;

    while ((at = parse_note(notes, len, at, &name, &desc, &n)) != 0) {
        if (n.n_type != type || n.n_namesz != strlen(owner) + 1 || memcmp(name, owner, n.n_namesz))
            continue;
        memcpy(buf, desc, MIN(buf_len, n.n_descsz));
        return (int)n.n_descsz;
    }
    return -ENOENT;
}

int elf_note(const struct blob *b, const struct elf *e, const char *owner, u32 type, void *buf,
             size_t len)
{
    for (unsigned i = 0; i < e->nnotes; i++) {
        u8 notes[NOTES_MAX];
        u64 n = MIN(e->note[i].file_len, sizeof(notes));
        int rc;

        if (blob_read(b, e->note[i].offset, notes, n, NULL))
            continue;
        rc = find_note(notes, n, owner, type, buf, len);
        if (rc >= 0)
            return rc;
    }
    return -ENOENT;
}
