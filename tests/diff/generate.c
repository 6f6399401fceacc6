/*
 * Makes cases. The code is a straight line with forward jumps, or that in a loop of a few rounds, so it always ends.
 * Instructions come from the catalogue at random; one that cannot be used where it would come (see aim.c) is thrown away
 * and another one tried.
 */
#include <Zydis/Zydis.h>
#include <string.h>

#include "maker.h"

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
    for (unsigned i = 0; i < sizeof(ret->zmm_high); i += 8)
        memcpy((u8 *)ret->zmm_high + i, &(u64){random_value(r)}, 8);
    for (unsigned i = 0; i < sizeof(ret->zmm16); i += 8)
        memcpy((u8 *)ret->zmm16 + i, &(u64){random_value(r)}, 8);
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

static bool prepare_string(struct maker *m)
{
    u64 in_data = DIFF_DATA + DIFF_PAGE + random_below(&m->r, 512) - 256;
    u64 out_data = DIFF_DATA + DIFF_PAGE / 2 + random_below(&m->r, 1024);

    if (random_below(&m->r, 8) == 0)
        out_data = DIFF_RO_ADDR - random_below(&m->r, 64);
    return need(m, RSI, in_data) && need(m, RCX, random_below(&m->r, 40)) && need(m, RDI, out_data);
}

/* What the class asks of registers. */
static bool prepare(struct maker *m, const struct insn *in, u8 *code, u64 addr)
{
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
    case INSN_SPECIAL:
        if (!special_prepare(m, in))
            return false;
        break;
    default:
        break;
    }
    return !in->has_mem || !in->form->mem_acc || aim_operand(m, in, code, addr);
}

static u64 undefined_flags(const struct insn *in)
{
    ZydisDecoder d;
    ZydisDecodedInstruction zi;

    ZydisDecoderInit(&d, in->mode == 64 ? ZYDIS_MACHINE_MODE_LONG_64 : ZYDIS_MACHINE_MODE_LEGACY_32,
                     in->mode == 64 ? ZYDIS_STACK_WIDTH_64 : ZYDIS_STACK_WIDTH_32);
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&d, NULL, in->bytes, in->len, &zi)))
        return FL_ARITH;
    return zi.cpu_flags ? zi.cpu_flags->undefined & FL_ARITH : 0;
}

/* Flags that are undefined before it must not show, be it in a register or in flags that are not. */
static bool note_flags(struct maker *m, const struct insn *in)
{
    const struct insn_form *f = in->form;
    bool special = f->cls == INSN_SPECIAL;
    u64 seen = special ? FL_ARITH : f->flags_r;

    if (m->c->undefined_flags & seen)
        return false;
    if (!special && !(f->flags_r & f->flags_w))
        m->c->undefined_flags &= ~(u64)f->flags_w;
    m->c->undefined_flags |= undefined_flags(in);
    return true;
}

/* Whether the result may be compared. */
static bool note_effects(struct maker *m, const struct insn *in)
{
    const struct insn_form *f = in->form;
    unsigned written = written_by(in);
    bool pops_rsp = f->cls == INSN_POP && !in->has_mem && in->rm == RSP;
    bool balanced = f->cls == INSN_PUSH || (f->cls == INSN_POP && !pops_rsp);

    if (f->cls == INSN_SPECIAL && f->gpr_implicit_w >> RSP & 1)
        balanced = f->mnemonic != ZYDIS_MNEMONIC_ENTER;
    if (m->in_loop && (written & m->fixed & ~(balanced ? 1u << RSP : 0)))
        return false;
    if (!note_flags(m, in))
        return false;
    m->written |= written;
    if ((written >> RSP & 1 && !balanced) || (f->cls == INSN_POP && !in->has_mem && in->rm == RSP))
        m->stack_lost = true;
    return true;
}

static bool unwanted(const struct insn *in)
{
    /* Processors disagree about the register form of PREFETCH: a nop for Intel, undefined for AMD. */
    if (in->map == MAP_0F && in->opcode == 0x0d && in->mod == 3)
        return true;
    if (in->form->cls == INSN_SPECIAL && !special_wanted(in))
        return true;
    /* EVEX.X means nothing for a general register, but a processor was seen to read a stale RSP then, behind a CALL. */
    if (in->enc == ENC_EVEX && in->form->rm_acc && !(in->bytes[in->opcode_at - 3] & 0x40))
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
    const struct catalogue *from = m->plan->from;
    const struct template *t = &from->list[random_below(&m->r, (unsigned)from->n)];
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

static void append_body(struct maker *m)
{
    struct diff_case *c = m->c;
    unsigned n = 1 + random_below(&m->r, m->plan->max_insns);

    for (unsigned i = 0; i < n && c->len + 40 < DIFF_CODE_MAX; i++) {
        bool alone = m->plan->max_insns == 1;
        u8 *jump = NULL;

        if (!alone && random_below(&m->r, 5) == 0 && !c->undefined_flags)
            jump = append_jcc(m);
        else if (!alone && random_below(&m->r, 16) == 0 && !m->stack_lost)
            append_transfer(m);
        for (unsigned tries = 0; tries < 64 && !append(m); tries++)
            continue;
        if (jump)
            *jump = (u8)(c->code + c->len - jump - 1);
    }
}

/* add pointer, imm8; dec counter; jnz start */
static void append_loop_end(struct maker *m, unsigned counter)
{
    u8 code[16];
    unsigned n = 0;

    for (unsigned reg = 0; reg < 8 && n == 0; reg++)
        if (m->pointers >> reg & 1) {
            if (m->plan->mode == 64)
                code[n++] = 0x48;
            code[n++] = 0x83;
            code[n++] = (u8)(0xc0 | reg);
            code[n++] = (u8)(random_below(&m->r, 128) & (random_below(&m->r, 2) ? 0x7f : 0x60));
        }
    code[n++] = 0xff;
    code[n++] = (u8)(0xc8 | counter);
    code[n++] = 0x75;
    code[n] = (u8) - (m->c->len + n + 1);
    memcpy(m->c->code + m->c->len, code, n + 1);
    m->c->len += n + 1;
    m->c->undefined_flags = 0;
}

/* A counter that nothing else touches; a loop of at most 127 bytes. */
static bool begin_loop(struct maker *m, unsigned *ret_counter)
{
    unsigned counter = random_below(&m->r, 8);

    if (!m->plan->loops || !need(m, counter, 2 + random_below(&m->r, 5)))
        return false;
    *ret_counter = counter;
    m->in_loop = true;
    return true;
}

void diff_generate(const struct plan *plan, u64 number, struct diff_case *ret)
{
    struct maker m = {.plan = plan, .c = ret, .fixed = 1u << RSP};
    unsigned counter = 0;
    bool loop;

    memset(ret, 0, sizeof(*ret));
    random_init(&m.r, plan->seed, number);
    ret->number = number;
    ret->mode = plan->mode;
    ret->avx512 = plan->avx512;
    ret->memory_seed = random_next(&m.r);
    diff_random_regs(&m.r, &ret->regs);
    for (unsigned i = 0; plan->mode == 32 && i < X86_GPRS; i++)
        ret->regs.gpr[i] &= 0xffffffff;
    if (random_below(&m.r, 8) == 0)
        ret->regs.rflags |= FL_DF;
    loop = begin_loop(&m, &counter);
    if (plan->max_insns > 1)
        make_pointers(&m);
    append_body(&m);
    /* What is undefined at the end would be seen at the start: then it is no loop. */
    if (loop && ret->len < 110 && !(ret->undefined_flags & FL_CF))
        append_loop_end(&m, counter);
}
