/*
 * Asks the processor whether the facts in struct insn_form are true, for every form that is copied: which bytes of memory
 * are touched, whether they are written, whether they must be aligned, which general registers and arithmetic flags
 * matter or change, and that nothing else does. An instruction runs many times with one thing changed at a time.
 *
 * A form may claim too much (an operand that is read although the result never depends on it), never too little.
 * TRAPEZE_DIFF_ROUNDS=N: how many choices of operands per form (default 1).
 */
#include <Zydis/Zydis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "maker.h"
#include "model.h"
#include "native.h"

#define AROUND 128u /* bytes that are looked at on both sides of the operand */
#define END (DIFF_DATA + DIFF_DATA_BYTES)
#define PLACE (DIFF_DATA + DIFF_PAGE / 2) /* well inside, aligned */

struct probe {
    struct random r;
    struct insn in;
    struct diff_case c;
    unsigned address; /* bits of the registers that make up the address */
    unsigned read, written;
    u64 target;
    u8 before[2 * AROUND], after[2 * AROUND];
    struct diff_result base; /* of the unchanged case */
    u8 base_after[2 * AROUND];
    const char *name;
    unsigned complaints;
};

static unsigned total;

static void complain(struct probe *p, const char *what, unsigned number)
{
    ZydisDisassembledInstruction d;

    if (p->complaints++)
        return; /* the first is enough */
    total++;
    printf("#");
    for (unsigned i = 0; i < p->in.len; i++)
        printf(" %02x", p->c.code[i]);
    if (ZYAN_SUCCESS(
            ZydisDisassembleIntel(ZYDIS_MACHINE_MODE_LONG_64, DIFF_CODE, p->c.code, p->in.len, &d)))
        printf("  %s", d.text);
    printf(": %s %u\n", what, number);
}

static bool touches_memory(const struct probe *p)
{
    return p->in.has_mem && p->in.form->mem_acc;
}

/* Where memory around the operand may be looked at and set. */
static u8 *window(const struct probe *p)
{
    return (u8 *)(uintptr_t)(p->target - AROUND);
}

static void run(struct probe *p, struct diff_result *ret)
{
    if (p->target == PLACE)
        memcpy(window(p), p->before, sizeof(p->before));
    native_run(&p->c, ret);
    if (p->target == PLACE)
        memcpy(p->after, window(p), sizeof(p->after));
}

static bool aim(struct probe *p, u64 target)
{
    unsigned fixed = 1u << RSP;

    p->target = target;
    return !touches_memory(p) || diff_aim(&p->in, p->c.code, DIFF_CODE, target, &p->c.regs, &fixed);
}

static bool page_fault_at(struct probe *p, u64 target)
{
    struct diff_result res;

    aim(p, target);
    run(p, &res);
    return res.end.vector == VEC_PF;
}

/* The mask register of an EVEX instruction, and the bytes of its operand that it selects; false if there are none. */
static bool selected_bytes(struct probe *p, unsigned *ret_first, unsigned *ret_end)
{
    const struct insn_form *f = p->in.form;
    u64 all = f->mask_count == 64 ? ~0ull : (1ull << f->mask_count) - 1;
    u64 mask = p->c.regs.mask[p->in.bytes[p->in.opcode_at - 1] & 7] & all, bits = mask;
    unsigned n = f->mem_bytes / f->mask_bytes;

    for (unsigned i = n; i < f->mask_count; i += n)
        bits |= mask >> i;
    bits &= n == 64 ? ~0ull : (1ull << n) - 1;
    if (f->mask_packed)
        bits = bits ? ~0ull >> (64 - __builtin_popcountll(bits)) : 0;
    *ret_first = bits ? (unsigned)__builtin_ctzll(bits) * f->mask_bytes : 0;
    *ret_end = bits ? (64 - (unsigned)__builtin_clzll(bits)) * f->mask_bytes : 0;
    return mask != 0;
}

/* Masked operands across both ends of the data: a fault only if something is selected there. */
static void probe_masked(struct probe *p)
{
    const struct insn_form *f = p->in.form;
    u64 *mask = &p->c.regs.mask[p->in.bytes[p->in.opcode_at - 1] & 7], kept = *mask;
    unsigned first, end;

    for (unsigned i = 0; i < 12; i++) {
        unsigned split = random_below(&p->r, f->mem_bytes + 1u);

        *mask = i < 2 ? 0 : random_next(&p->r) & (i & 1 ? random_next(&p->r) << i : ~0ull);
        if (f->align)
            split = 0;
        bool any = selected_bytes(p, &first, &end);
        if (page_fault_at(p, END - split) != (any && end > split))
            complain(p, "masked, at the end", split);
        if (page_fault_at(p, DIFF_DATA - split) != (any && first < split))
            complain(p, "masked, at the start", split);
    }
    *mask = kept;
    aim(p, PLACE);
}

/* Left to the host: processors differ. */
static bool may_be_misaligned(const struct insn *in)
{
    return in->form->mnemonic >= ZYDIS_MNEMONIC_SHA1MSG1 &&
           in->form->mnemonic <= ZYDIS_MNEMONIC_SHA256RNDS2;
}

/* How many bytes, and which kind of access. */
static void probe_memory(struct probe *p)
{
    const struct insn_form *f = p->in.form;
    struct diff_result res;

    if (page_fault_at(p, END - f->mem_bytes))
        complain(p, "touches more than mem_bytes", f->mem_bytes);
    if (!f->align && !page_fault_at(p, END - f->mem_bytes + 1))
        complain(p, "touches less than mem_bytes", f->mem_bytes);
    if (page_fault_at(p, DIFF_DATA))
        complain(p, "touches memory before its operand", f->mem_bytes);
    if (!f->align && !page_fault_at(p, DIFF_DATA - 1))
        complain(p, "does not touch its first byte", f->mem_bytes);
    native_protect(DIFF_RO_ADDR, PROT_READ);
    if (page_fault_at(p, DIFF_RO_ADDR) != !!(f->mem_acc & ACC_W))
        complain(p, "mem_acc", f->mem_acc);
    native_protect(DIFF_RO_ADDR, PROT_READ | PROT_WRITE);
    if (f->mem_bytes > 1 && !may_be_misaligned(&p->in)) {
        aim(p, PLACE + 1);
        run(p, &res);
        if ((res.end.vector == VEC_GP) != f->align)
            complain(p, "align", f->align);
    }
    aim(p, PLACE);
}

/* Vector registers, without what the processor may leave as it likes. */
static bool same_vectors(const struct diff_regs *a, const struct diff_regs *b)
{
    bool same = !memcmp(a->fx, b->fx, 5) && !memcmp(a->fx + 24, b->fx + 24, 4) &&
                !memcmp(a->fx + 160, b->fx + 160, 256) &&
                !memcmp(a->zmm_high, b->zmm_high, sizeof(a->zmm_high)) &&
                !memcmp(a->zmm16, b->zmm16, sizeof(a->zmm16)) &&
                !memcmp(a->ymm_high, b->ymm_high, sizeof(a->ymm_high)) &&
                !memcmp(a->mask, b->mask, sizeof(a->mask));

    for (unsigned i = 0; i < 8; i++)
        same &= !memcmp(a->fx + 32 + 16 * i, b->fx + 32 + 16 * i, 10);
    return same;
}

/* Everything but general registers and flags. */
static bool same_rest(const struct probe *p, const struct diff_result *res)
{
    return res->end.vector == p->base.end.vector && res->regs.rip == p->base.regs.rip &&
           same_vectors(&res->regs, &p->base.regs) &&
           !memcmp(p->after, p->base_after, sizeof(p->after));
}

static u64 changed_flags(const struct diff_result *a, const struct diff_result *b)
{
    return (a->regs.rflags ^ b->regs.rflags) & FL_ARITH;
}

static unsigned changed_gprs(const struct diff_result *a, const struct diff_result *b,
                             unsigned except)
{
    unsigned mask = 0;

    for (unsigned i = 0; i < X86_GPRS; i++)
        if (a->regs.gpr[i] != b->regs.gpr[i] && i != except)
            mask |= 1u << i;
    return mask;
}

/* What the unchanged case changes must be among what the form says is written. */
static void probe_base(struct probe *p)
{
    const struct insn_form *f = p->in.form;
    struct diff_result start = {.regs = p->c.regs};

    run(p, &p->base);
    memcpy(p->base_after, p->after, sizeof(p->after));
    if (changed_gprs(&start, &p->base, REG_NONE) & ~p->written)
        complain(p, "writes registers it does not name", p->written);
    if (changed_flags(&start, &p->base) & ~(u64)f->flags_w)
        complain(p, "writes flags it does not name", f->flags_w);
    if (!f->writes_vec && !same_vectors(&p->c.regs, &p->base.regs))
        complain(p, "writes vector registers", 0);
    if (!(f->mem_acc & ACC_W) && memcmp(p->before, p->after, sizeof(p->after)))
        complain(p, "writes memory", 0);
    if (p->base.end.vector != VEC_BP && p->base.end.vector != VEC_DE &&
        p->base.end.vector != VEC_GP)
        complain(p, "faults", p->base.end.vector);
}

static void probe_register(struct probe *p, unsigned reg)
{
    u64 was = p->c.regs.gpr[reg];
    struct diff_result res;
    bool read = p->read >> reg & 1, written = p->written >> reg & 1;

    p->c.regs.gpr[reg] = random_value(&p->r);
    run(p, &res);
    if (!read &&
        (changed_gprs(&res, &p->base, reg) || changed_flags(&res, &p->base) || !same_rest(p, &res)))
        complain(p, "depends on register", reg);
    if (!written && res.regs.gpr[reg] != p->c.regs.gpr[reg])
        complain(p, "changes register", reg);
    if (written && !read && res.regs.gpr[reg] != p->base.regs.gpr[reg])
        complain(p, "keeps part of register", reg);
    p->c.regs.gpr[reg] = was;
}

static void probe_flag(struct probe *p, u64 flag, u64 undefined)
{
    const struct insn_form *f = p->in.form;
    struct diff_result res;
    u64 changed;

    p->c.regs.rflags ^= flag;
    run(p, &res);
    changed = changed_flags(&res, &p->base);
    if (!(f->flags_r & flag) && (changed_gprs(&res, &p->base, REG_NONE) ||
                                 changed & ~flag & ~undefined || !same_rest(p, &res)))
        complain(p, "depends on flag", (unsigned)flag);
    if (!(f->flags_w & flag) && (res.regs.rflags ^ p->c.regs.rflags) & flag)
        complain(p, "changes flag", (unsigned)flag);
    if (f->flags_w & ~f->flags_r & ~undefined & flag && changed & flag && res.end.vector == VEC_BP)
        complain(p, "keeps flag", (unsigned)flag);
    p->c.regs.rflags ^= flag;
}

static void probe_flags(struct probe *p)
{
    ZydisDecoder d;
    ZydisDecodedInstruction zi;
    u64 undefined = FL_ARITH;

    ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    if (ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&d, NULL, p->c.code, p->in.len, &zi)) &&
        zi.cpu_flags)
        undefined = zi.cpu_flags->undefined;
    for (u64 flag = FL_CF; flag <= FL_OF; flag <<= 1)
        if (flag & FL_ARITH)
            probe_flag(p, flag, undefined);
}

/* Other contents of memory and of the vector registers. */
static void probe_contents(struct probe *p)
{
    const struct insn_form *f = p->in.form;
    struct diff_result res;

    if (!f->reads_vec) {
        struct diff_regs kept = p->c.regs, other;

        diff_random_regs(&p->r, &other);
        memcpy(p->c.regs.fx + 160, other.fx + 160, 256);
        run(p, &res);
        if (changed_gprs(&res, &p->base, REG_NONE) || changed_flags(&res, &p->base))
            complain(p, "depends on vector registers", 0);
        p->c.regs = kept;
    }
    if (!(f->mem_acc & ACC_R)) {
        diff_fill(random_next(&p->r), p->before, sizeof(p->before));
        run(p, &res);
        if (changed_gprs(&res, &p->base, REG_NONE) || changed_flags(&res, &p->base) ||
            !same_vectors(&res.regs, &p->base.regs) ||
            memcmp(p->after + AROUND, p->base_after + AROUND, f->mem_bytes))
            complain(p, "depends on memory", 0);
    }
}

/* The registers that the fields of the instruction name, as the form says they are used. */
static void name_registers(struct probe *p)
{
    const struct insn *in = &p->in;
    const struct insn_form *f = in->form;
    const struct {
        u8 acc, reg, byte;
    } fields[] = {{f->reg_acc, in->reg, f->reg_is_byte & 1},
                  {in->has_mem ? 0 : f->rm_acc, in->rm, f->reg_is_byte & 2},
                  {f->opreg_acc, in->rm, f->reg_is_byte & 4},
                  {f->vvvv_acc, in->vvvv, 0}};

    p->read = f->gpr_implicit_r;
    p->written = f->gpr_implicit_w;
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        bool high = fields[i].byte && !in->rex && fields[i].reg >= 4 && fields[i].reg < 8;
        unsigned bit = 1u << (high ? fields[i].reg & 3 : fields[i].reg);

        p->read |= fields[i].acc & ACC_R ? bit : 0;
        p->written |= fields[i].acc & ACC_W ? bit : 0;
    }
    p->address =
        (in->base < X86_GPRS ? 1u << in->base : 0) | (in->index < X86_GPRS ? 1u << in->index : 0);
}

/* A scaled register alone cannot point at every byte. */
static bool cannot_aim(const struct insn *in)
{
    return in->index != REG_NONE && (in->base == REG_NONE || in->base == in->index);
}

static bool cannot_probe(const struct insn *in)
{
    switch (in->form->mnemonic) {
    case ZYDIS_MNEMONIC_RDRAND:
    case ZYDIS_MNEMONIC_RDSEED:
    case ZYDIS_MNEMONIC_VMASKMOVPS: /* done in C */
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
    case ZYDIS_MNEMONIC_LDMXCSR: /* faults for most contents of its operand */
    case ZYDIS_MNEMONIC_VLDMXCSR:
        return true;
    default:
        return in->base == RSP || cannot_aim(in) || (in->has_mem && in->seg >= SEG_FS) ||
               (in->map == MAP_0F && in->opcode == 0x0d && in->mod == 3);
    }
}

/* One choice of operands. False when this one cannot be used. */
static bool probe_once(struct probe *p, const struct template *t)
{
    if (!template_emit(t, &p->r, &p->in) || cannot_probe(&p->in))
        return false;
    memset(&p->c, 0, sizeof(p->c));
    p->c.mode = 64;
    memcpy(p->c.code, p->in.bytes, p->in.len);
    p->c.len = p->in.len;
    diff_random_regs(&p->r, &p->c.regs);
    diff_fill(random_next(&p->r), p->before, sizeof(p->before));
    name_registers(p);
    if (!aim(p, PLACE))
        return false;
    if (touches_memory(p)) {
        if (p->address & p->written)
            return false; /* would not know what changed */
        if (p->in.form->masked)
            probe_masked(p);
        else
            probe_memory(p);
    }
    p->target = PLACE;
    probe_base(p);
    for (unsigned reg = 0; reg < X86_GPRS; reg++)
        if (!(p->address >> reg & 1) && reg != RSP)
            probe_register(p, reg);
    probe_flags(p);
    probe_contents(p);
    return true;
}

static void probe_form(const struct template *t, u64 number, unsigned rounds)
{
    struct probe p = {0};
    unsigned done = 0;

    random_init(&p.r, 0x70726f6265, number);
    for (unsigned tries = 0; tries < 50 * rounds && done < rounds; tries++)
        done += probe_once(&p, t);
}

int main(void)
{
    static struct diff_result first;
    const char *rounds = getenv("TRAPEZE_DIFF_ROUNDS");
    struct diff_case nothing = {.mode = 64,
                                .regs = {.rip = DIFF_CODE, .rflags = 2, .fx = {0x7f, 3}}};
    struct cpu_model m;
    struct catalogue forms;

    setvbuf(stdout, NULL, _IOLBF, 0);
    if (diff_run_native(&nothing, &first)) {
        printf("1..0 # SKIP this host has no AVX2, or no room at fixed addresses\n");
        return 0;
    }
    printf("1..1\n");
    native_protect(DIFF_RO_ADDR, PROT_READ | PROT_WRITE);
    model_init(&m, native_has_masks());
    insn_init(&m);
    catalogue_init(&forms, 64, 1u << INSN_COPY | 1u << INSN_LEA | 1u << INSN_NOP | 1u << INSN_MOFFS,
                   native_has_masks());
    for (size_t i = 0; i < forms.n; i++)
        probe_form(&forms.list[i], i, rounds ? (unsigned)strtoul(rounds, NULL, 0) : 1);
    printf("# %u of %zu forms are not what the table says\n", total, forms.n);
    printf("%s 1 - the facts about forms\n", total ? "not ok" : "ok");
    catalogue_fini(&forms);
    return 0;
}
