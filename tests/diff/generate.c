/*
 * Makes cases. The code is a straight line with forward jumps, so it always ends. Memory operands are aimed at the data
 * pages by choosing the contents of their registers, which is why an instruction whose address depends on a register
 * that is already used, or was written by an earlier instruction, is thrown away and another one tried.
 */
#include <Zydis/Zydis.h>
#include <string.h>

#include "generate.h"

struct maker {
    struct random r;
    const struct catalogue *from;
    struct diff_case *c;
    unsigned fixed;   /* registers whose first contents are decided */
    unsigned written; /* registers that no longer hold what they started with */
    bool stack_lost;  /* RSP is anywhere */
};

static u64 mask_of(unsigned bytes)
{
    return bytes == 8 ? ~0ull : (1ull << bytes * 8) - 1;
}

void diff_random_regs(struct random *r, struct diff_regs *ret)
{
    u16 fcw = 0x37f;
    u32 mxcsr = 0x1f80;

    memset(ret, 0, sizeof(*ret));
    for (unsigned i = 0; i < X86_GPRS; i++)
        ret->gpr[i] = random_value(r);
    ret->gpr[RSP] = DIFF_STACK + DIFF_PAGE / 2;
    ret->rip = DIFF_CODE;
    ret->rflags = 2 | FL_IF | (random_next(r) & FL_ARITH);
    fcw |= (u16)(random_below(r, 4) << 10);
    mxcsr |= random_below(r, 4) << 13 | random_below(r, 2) << 15;
    memcpy(ret->fx, &fcw, 2);
    memcpy(ret->fx + 24, &mxcsr, 4);
    ret->fx[4] = (u8)random_next(r); /* which x87 registers are in use */
    for (unsigned i = 0; i < 8; i++) {
        u64 mantissa = random_value(r) | 1ull << 63;
        u16 exponent = (u16)(0x3fff + random_below(r, 64) - 32 + (random_below(r, 2) << 15));

        memcpy(ret->fx + 32 + 16 * i, &mantissa, 8);
        memcpy(ret->fx + 40 + 16 * i, &exponent, 2);
    }
    for (unsigned i = 160; i < 416; i += 8)
        memcpy(ret->fx + i, &(u64){random_value(r)}, 8);
    for (unsigned i = 0; i < sizeof(ret->ymm_high); i += 8)
        memcpy((u8 *)ret->ymm_high + i, &(u64){random_value(r)}, 8);
    for (unsigned i = 0; i < 8; i++)
        ret->mask[i] = random_value(r);
}

static void set_low(u64 *reg, u64 value, unsigned addrsize)
{
    u64 m = mask_of(addrsize);

    *reg = (*reg & ~m) | (value & m);
}

bool diff_aim(const struct insn *in, u8 *code, u64 code_addr, u64 target, struct diff_regs *regs,
              unsigned *fixed)
{
    u64 *base = in->base < X86_GPRS ? &regs->gpr[in->base] : NULL;
    u64 *index = in->index < X86_GPRS ? &regs->gpr[in->index] : NULL;
    u64 rest = target - (u64)in->disp;

    if (in->disp_len >= 4 && (in->base == BASE_RIP || (!base && !index))) {
        u64 disp = in->base == BASE_RIP ? target - (code_addr + in->len) : target;

        memcpy(code + in->disp_at, &disp, in->disp_len);
        return in->disp_len == 8 || (u64)(s64)(s32)disp == disp;
    }
    if ((base && *fixed >> in->base & 1) || (index && *fixed >> in->index & 1))
        return false;
    if (base && index && base != index)
        set_low(base, rest - *index * in->scale, in->addrsize);
    else if (base && index)
        set_low(base, (rest & mask_of(in->addrsize)) / (1u + in->scale), in->addrsize);
    else if (base)
        set_low(base, rest, in->addrsize);
    else
        set_low(index, (rest & mask_of(in->addrsize)) / in->scale, in->addrsize);
    *fixed |= (base ? 1u << in->base : 0) | (index ? 1u << in->index : 0);
    return true;
}

/* Mostly inside the data, sometimes across or onto its edges. */
static u64 choose_target(struct maker *m, const struct insn_form *f)
{
    unsigned bytes = f->mem_bytes ? f->mem_bytes : 8;
    u64 any = random_below(&m->r, DIFF_RW_PAGES * DIFF_PAGE - bytes);

    switch (random_below(&m->r, 32)) {
    case 0:
        return DIFF_DATA + DIFF_PAGE - random_below(&m->r, bytes + 1);
    case 1:
        return DIFF_RO_ADDR + random_below(&m->r, DIFF_PAGE - bytes) / bytes * bytes;
    case 2:
        return DIFF_RO_ADDR - random_below(&m->r, bytes + 1);
    case 3:
        return DIFF_DATA + DIFF_DATA_BYTES - random_below(&m->r, bytes + 1);
    case 4:
        return DIFF_DATA - random_below(&m->r, bytes + 1);
    case 5:
        return 1ull << 47 | any; /* not canonical */
    case 6:
    case 7:
    case 8:
        return DIFF_DATA + any;
    default:
        return DIFF_DATA + any / bytes * bytes;
    }
}

static unsigned written_by(const struct insn *in)
{
    const struct insn_form *f = in->form;
    unsigned w = f->gpr_implicit_w;
    u8 high = !in->rex && in->enc == ENC_LEGACY;

    /* AH..BH are part of 0..3: both possible registers count. */
    if (f->reg_acc & ACC_W)
        w |= 1u << in->reg | (high && f->reg_is_byte & 1 ? 1u << (in->reg & 3) : 0);
    if (f->rm_acc & ACC_W && !in->has_mem)
        w |= 1u << in->rm | (high && f->reg_is_byte & 2 ? 1u << (in->rm & 3) : 0);
    if (f->opreg_acc & ACC_W)
        w |= 1u << in->rm | (high && f->reg_is_byte & 4 ? 1u << (in->rm & 3) : 0);
    if (f->vvvv_acc & ACC_W)
        w |= 1u << in->vvvv;
    return w;
}

/* Fixes the contents of a register, if it still has those it started with. */
static bool need(struct maker *m, unsigned reg, u64 value)
{
    if ((m->written | m->fixed) >> reg & 1)
        return false;
    m->c->regs.gpr[reg] = value;
    m->fixed |= 1u << reg;
    return true;
}

static bool prepare_string(struct maker *m)
{
    u64 in_data = DIFF_DATA + DIFF_PAGE + random_below(&m->r, 512) - 256;

    u64 out_data = DIFF_DATA + DIFF_PAGE / 2 + random_below(&m->r, 1024);

    if (random_below(&m->r, 8) == 0)
        out_data = DIFF_RO_ADDR - random_below(&m->r, 64);
    return need(m, RSI, in_data) && need(m, RCX, random_below(&m->r, 40)) && need(m, RDI, out_data);
}

/* [rsp + disp] stays where it is: RSP has its own page. */
static bool on_stack(struct maker *m, const struct insn *in, u8 *code)
{
    u32 disp = random_below(&m->r, DIFF_PAGE / 2) - DIFF_PAGE / 4;

    if (in->base != RSP || in->index != REG_NONE || m->written >> RSP & 1)
        return false;
    if (in->disp_len == 4)
        memcpy(code + in->disp_at, &disp, 4);
    return true;
}

/* What the class asks of registers. */
static bool prepare(struct maker *m, const struct insn *in, u8 *code, u64 addr)
{
    unsigned blocked = m->fixed | m->written;

    switch (in->form->cls) {
    case INSN_STRING:
        return prepare_string(m);
    case INSN_PUSH:
    case INSN_POP:
        if (m->stack_lost)
            return false;
        break;
    case INSN_LEAVE:
        return !m->stack_lost && need(m, RBP, DIFF_STACK + DIFF_PAGE / 2 + 8);
    default:
        break;
    }
    if (in->has_mem && in->form->mem_acc && !on_stack(m, in, code)) {
        if (!diff_aim(in, code, addr, choose_target(m, in->form), &m->c->regs, &blocked))
            return false;
        m->fixed |= blocked & ~m->written;
    }
    return true;
}

static u64 undefined_flags(const struct insn *in)
{
    ZydisDecoder d;
    ZydisDecodedInstruction zi;

    ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&d, NULL, in->bytes, in->len, &zi)))
        return FL_ARITH;
    return zi.cpu_flags ? zi.cpu_flags->undefined & FL_ARITH : 0;
}

/* Whether the result may be compared, given the flags that are undefined before it. */
static bool note_effects(struct maker *m, const struct insn *in)
{
    const struct insn_form *f = in->form;
    u64 undefined = undefined_flags(in);
    bool may_keep = f->flags_r & f->flags_w;

    if (f->flags_r & ~f->flags_w & m->c->undefined_flags)
        return false;
    if (!may_keep)
        m->c->undefined_flags &= ~(u64)f->flags_w;
    else if (m->c->undefined_flags & f->flags_r)
        return false;
    m->c->undefined_flags |= undefined;
    m->written |= written_by(in);
    if (written_by(in) >> RSP & 1 && f->cls != INSN_PUSH && f->cls != INSN_POP)
        m->stack_lost = true;
    if (f->cls == INSN_POP && !in->has_mem && in->rm == RSP)
        m->stack_lost = true;
    return true;
}

static bool unwanted(const struct insn *in)
{
    /* Processors disagree about the register form of PREFETCH: a nop for Intel, undefined for AMD. */
    if (in->map == MAP_0F && in->opcode == 0x0d && in->mod == 3)
        return true;
    switch (in->form->mnemonic) {
    case ZYDIS_MNEMONIC_RDRAND:
    case ZYDIS_MNEMONIC_RDSEED:
        return true;
    default:
        /* FS and GS belong to the test program here. Too long: leave room for the jumps. */
        return in->len > 12 || (in->has_mem && in->seg >= SEG_FS);
    }
}

/* Appends one instruction; false if this one cannot be used here (nothing is changed then). */
static bool append(struct maker *m)
{
    const struct template *t = &m->from->list[random_below(&m->r, (unsigned)m->from->n)];
    struct maker before = *m;
    struct diff_case kept = *m->c;
    struct insn in;
    u8 *code = m->c->code + m->c->len;

    if (!template_emit(t, &m->r, &in) || unwanted(&in))
        return false;
    memcpy(code, in.bytes, in.len);
    if (prepare(m, &in, code, DIFF_CODE + m->c->len) && note_effects(m, &in)) {
        m->c->len += in.len;
        return true;
    }
    kept.regs.rflags = m->c->regs.rflags;
    *m->c = kept;
    before.r = m->r;
    *m = before;
    return false;
}

/* A conditional jump over the next instruction: returns where its displacement is. */
static u8 *append_jcc(struct maker *m)
{
    u8 *code = m->c->code + m->c->len;

    code[0] = (u8)(0x70 | random_below(&m->r, 16));
    code[1] = 0;
    m->c->len += 2;
    return code + 1;
}

/* call or push+ret to the next instruction. */
static void append_transfer(struct maker *m)
{
    u8 *code = m->c->code + m->c->len;
    u32 next = (u32)(DIFF_CODE + m->c->len + 6);

    if (random_below(&m->r, 2)) {
        memcpy(code, (u8[]){0xe8, 0, 0, 0, 0}, 5);
        m->c->len += 5;
    } else {
        code[0] = 0x68;
        memcpy(code + 1, &next, 4);
        code[5] = 0xc3;
        m->c->len += 6;
    }
    m->written |= 1u << RSP;
}

void diff_generate(const struct catalogue *from, u64 seed, u64 number, unsigned max_insns,
                   struct diff_case *ret)
{
    struct maker m = {.from = from, .c = ret};
    unsigned n;

    memset(ret, 0, sizeof(*ret));
    random_init(&m.r, seed, number);
    ret->number = number;
    ret->memory_seed = random_next(&m.r);
    diff_random_regs(&m.r, &ret->regs);
    if (random_below(&m.r, 8) == 0)
        ret->regs.rflags |= FL_DF;
    m.fixed = 1u << RSP;
    n = 1 + random_below(&m.r, max_insns);
    for (unsigned i = 0; i < n; i++) {
        u8 *jump = NULL;

        if (max_insns > 1 && random_below(&m.r, 5) == 0 && !ret->undefined_flags)
            jump = append_jcc(&m);
        if (max_insns > 1 && random_below(&m.r, 16) == 0 && !m.stack_lost && !jump)
            append_transfer(&m);
        for (unsigned tries = 0; tries < 64 && !append(&m); tries++)
            continue;
        if (jump)
            *jump = (u8)(ret->code + ret->len - jump - 1);
    }
}
