/* ELF executables, 32 and 64 bit, as far as booting them takes: segments, notes, entry. Hostile
 * input. */
#ifndef BOARD_ELF_H
#define BOARD_ELF_H

#include "board/blob.h"

#define ELF_SEGMENTS 16
#define ELF_MACHINE_386 3
#define ELF_MACHINE_X86_64 62

struct elf_segment {
    u64 offset, file_len; /* in the file */
    u64 vaddr, paddr, mem_len;
};

struct elf {
    bool is64;
    u16 machine, type;
    u64 entry;
    unsigned nsegments, nnotes;
    struct elf_segment segment[ELF_SEGMENTS]; /* PT_LOAD with memory, checked: file_len <= mem_len,
                                                 no wrap, no overlap */
    struct elf_segment note[ELF_SEGMENTS];    /* PT_NOTE: offset and file_len */
    u64 paddr_first, paddr_end;               /* of all segments */
    u64 file_end;                             /* end of everything the headers speak of */
};

bool elf_probe(const struct blob *b);
/* -EINVAL says what is wrong with it. */
int elf_parse(const struct blob *b, struct elf *ret_elf, struct err *err);
/* Copies the segments into guest RAM, each at its physical address + delta, and clears what the
 * file leaves open. */
int elf_load(const struct blob *b, const struct elf *e, struct gmem *ram, u64 delta,
             struct err *err);
/* Finds note `type` of `owner`; copies up to len bytes of its description into buf. Its length, or
 * -ENOENT. */
int elf_note(const struct blob *b, const struct elf *e, const char *owner, u32 type, void *buf,
             size_t len);

#endif
