/* See opmask.h. SDM 2, 2.7 (embedded opmask) and 2.8 (fault suppression). Runs on the vCPU's thread, its registers live. */
#include "accel/bt/opmask.h"

#define READ(instruction, n)                                          \
    case n:                                                           \
        __asm__ volatile(instruction " %%k" #n ", %0" : "=r"(value)); \
        break

/* 64 elements come with AVX512BW, fewer than 17 without it too. */
static u64 read_wide(unsigned reg)
{
    u64 value = 0;

    switch (reg) {
        READ("kmovq", 1);
        READ("kmovq", 2);
        READ("kmovq", 3);
        READ("kmovq", 4);
        READ("kmovq", 5);
        READ("kmovq", 6);
        READ("kmovq", 7);
    }
    return value;
}

static u64 read_narrow(unsigned reg)
{
    u32 value = 0;

    switch (reg) {
        READ("kmovw", 1);
        READ("kmovw", 2);
        READ("kmovw", 3);
        READ("kmovw", 4);
        READ("kmovw", 5);
        READ("kmovw", 6);
        READ("kmovw", 7);
    }
    return value;
}

static u64 low_bits(unsigned n)
{
    return n >= 64 ? ~0ull : (1ull << n) - 1;
}

bool opmask_range(const struct insn *in, unsigned *ret_first, unsigned *ret_len)
{
    const struct insn_form *f = in->form;
    unsigned reg = in->bytes[in->opcode_at - 1] & 7, n = f->mem_bytes / f->mask_bytes, first, last;
    u64 mask = (f->mask_count > 16 ? read_wide(reg) : read_narrow(reg)) & low_bits(f->mask_count);
    u64 bits = mask;

    for (unsigned i = n; i < f->mask_count; i += n)
        bits |= mask >> i;
    bits &= low_bits(n);
    if (!bits)
        return false;
    if (f->mask_packed) /* bits move down to the start, so only their number matters */
        bits = ~0ull >> (64 - __builtin_popcountll(bits));
    first = (unsigned)__builtin_ctzll(bits);
    last = 63 - (unsigned)__builtin_clzll(bits);
    *ret_first = first * f->mask_bytes;
    *ret_len = (last + 1 - first) * f->mask_bytes;
    return true;
}
