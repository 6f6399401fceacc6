/*
 * Instructions that a KVM without hardware behind it gives up on (KVM_INTERNAL_ERROR_EMULATION),
 * done here, one at a time, so that the guest goes on: CMPXCHG16B, XSAVE, XRSTOR, CLAC, STAC and
 * INT, which stock kernels execute in ring 0. 64-bit mode only; anything else is left to fail.
 * SDM 2A to 2C, the instructions' own pages; 3A 4.7 for page faults.
 *
 * Memory is reached by walking the guest's page tables: a page that is not there makes the #PF
 * that the instruction would.
 *
 * Threads: the vCPU's own, between two entries.
 */
#include "accel/kvm/kvm.h"
#include "x86/walk.h"
#include <cpuid.h>
#include <errno.h>
#include <string.h>

#define INSN_MAX 15
#define PAGE 4096u
#define XSAVE_HEADER 512
#define XSAVE_LEGACY_SSE 160
#define XSAVE_BYTES 4096 /* of KVM's image */

struct context {
    struct vcpu *v;
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    const u8 *bytes;
    unsigned len, at; /* of bytes; the next to look at */
    u8 rex, modrm, opcode[2];
    int segment; /* prefix 0x64 or 0x65, else 0 */
    u64 address; /* linear, of the memory operand */
    u64 written_gpa; /* of the last reach() */
};

static u8 next(struct context *c)
{
    return c->at < c->len ? c->bytes[c->at++] : 0;
}

static u64 gpr(const struct context *c, unsigned index)
{
    const struct kvm_regs *r = &c->regs;
    const u64 order[16] = {r->rax, r->rcx, r->rdx, r->rbx, r->rsp, r->rbp, r->rsi, r->rdi,
                           r->r8,  r->r9,  r->r10, r->r11, r->r12, r->r13, r->r14, r->r15};

    return order[index];
}

static u64 displacement(struct context *c, unsigned bytes)
{
    u32 v = 0;

    for (unsigned i = 0; i < bytes; i++)
        v |= (u32)next(c) << (8 * i);
    return bytes == 1 ? (u64)(s64)(s8)v : (u64)(s64)(s32)v;
}

/* The linear address of ModRM's memory operand, in 64-bit mode. */
static void decode_address(struct context *c)
{
    unsigned mod = c->modrm >> 6, rm = c->modrm & 7, base = rm | (c->rex & 1) << 3;
    u64 at = 0;
    bool rip = false, has_base = true;

    if (rm == 4) {
        u8 sib = next(c);
        unsigned index = (sib >> 3 & 7) | (c->rex & 2) << 2;

        base = (sib & 7) | (c->rex & 1) << 3;
        has_base = mod || (sib & 7) != 5;
        if (index != 4)
            at += gpr(c, index) << (sib >> 6);
        if (!has_base)
            at += displacement(c, 4);
    } else if (!mod && rm == 5) {
        rip = true;
        has_base = false;
        at += displacement(c, 4);
    }
    if (has_base)
        at += gpr(c, base);
    if (mod)
        at += displacement(c, mod == 1 ? 1 : 4);
    if (rip)
        at += c->regs.rip + c->at;
    if (c->segment)
        at += c->segment == 0x64 ? c->sregs.fs.base : c->sregs.gs.base;
    c->address = at;
}

/* Prefixes, opcode, ModRM. False: not of the kind that is known here. */
static bool decode(struct context *c)
{
    u8 b = next(c);

    while (b == 0xf0 || b == 0x64 || b == 0x65) {
        if (b != 0xf0)
            c->segment = b;
        b = next(c);
    }
    if ((b & 0xf0) == 0x40) {
        c->rex = b;
        b = next(c);
    }
    c->opcode[0] = b;
    if (b != 0x0f) {
        c->modrm = b == 0xcd ? next(c) : 0; /* the vector of INT n */
        return b == 0xcc || b == 0xcd;
    }
    c->opcode[1] = next(c);
    c->modrm = next(c);
    if (c->modrm >> 6 != 3)
        decode_address(c);
    return true;
}

/* Delivers a vector before the next instruction; from 32 on it must be passed as an interrupt. */
static int inject(struct context *c, u8 vector, bool has_error, u32 error)
{
    struct kvm_vcpu_events e;
    int rc = kvm_ioctl(c->v->fd, KVM_GET_VCPU_EVENTS, &e);

    if (rc < 0)
        return rc;
    if (vector >= 32) {
        e.interrupt.injected = 1;
        e.interrupt.nr = vector;
        return kvm_ioctl(c->v->fd, KVM_SET_VCPU_EVENTS, &e);
    }
    e.exception.injected = 1;
    e.exception.nr = vector;
    e.exception.has_error_code = has_error;
    e.exception.error_code = error;
    return kvm_ioctl(c->v->fd, KVM_SET_VCPU_EVENTS, &e);
}

static int page_fault(struct context *c, u64 lin, u32 error)
{
    int rc;

    c->sregs.cr2 = lin;
    rc = kvm_ioctl(c->v->fd, KVM_SET_SREGS, &c->sregs);
    return rc < 0 ? rc : inject(c, VEC_PF, true, error);
}

/*
 * Host address of [lin, lin + len), which must lie within one page. NULL: *ret_rc is 0 when a #PF was injected instead,
 * -EFAULT when there is no RAM.
 */
static u8 *reach(struct context *c, u64 lin, u32 len, bool write, int *ret_rc)
{
    struct accel_machine *m = c->v->accel->m;
    bool user = (c->sregs.cs.selector & 3) == 3;
    unsigned access =
        (write ? WALK_WRITE : 0) | (user ? WALK_USER : 0) | (c->regs.rflags & FL_AC ? WALK_AC : 0);
    struct walk_regs r = {.cr0 = c->sregs.cr0,
                          .cr3 = c->sregs.cr3,
                          .cr4 = c->sregs.cr4,
                          .efer = c->sregs.efer,
                          .phys_bits = m->model->phys_bits,
                          .ram = m->ram};
    struct walk_page page;
    u32 error;

    if (!walk_page(&r, lin, access, &page, &error)) {
        *ret_rc = page_fault(c, lin, error);
        return NULL;
    }
    *ret_rc = -EFAULT;
    c->written_gpa = page.gpa;
    return write ? gmem_ptr(m->ram, page.gpa, len) : (u8 *)gmem_ptr_ro(m->ram, page.gpa, len);
}

static int advance(struct context *c)
{
    c->regs.rip += c->at;
    c->regs.rflags &= ~FL_RF;
    return kvm_ioctl(c->v->fd, KVM_SET_REGS, &c->regs);
}

static int do_cmpxchg16b(struct context *c)
{
    u8 *at, equal;
    int rc;

    if (!(c->rex & 8))
        return -ENOTSUP;
    if (c->address & 15)
        return inject(c, VEC_GP, true, 0);
    at = reach(c, c->address, 16, true, &rc);
    if (!at)
        return rc;
    __asm__ volatile("lock cmpxchg16b %0; setz %1"
                     : "+m"(*(u8(*)[16])at), "=q"(equal), "+a"(c->regs.rax), "+d"(c->regs.rdx)
                     : "b"(c->regs.rbx), "c"(c->regs.rcx)
                     : "cc");
    gmem_wrote(c->v->accel->m->ram, c->written_gpa, 16);
    c->regs.rflags = (c->regs.rflags & ~FL_ZF) | (equal ? FL_ZF : 0);
    return advance(c);
}

/* INT3 and INT n of ring 0, where no gate's privilege stands in the way. */
static int do_int(struct context *c, u8 vector)
{
    int rc;

    if (c->sregs.cs.selector & 3)
        return -ENOTSUP;
    rc = advance(c);
    return rc < 0 ? rc : inject(c, vector, false, 0);
}

/* CLAC and STAC: 0f 01 ca and cb. */
static int do_ac(struct context *c)
{
    if ((c->modrm & 0xfe) != 0xca || (c->sregs.cs.selector & 3) || !(c->sregs.cr4 & CR4_SMAP))
        return -ENOTSUP;
    c->regs.rflags = (c->regs.rflags & ~FL_AC) | (c->modrm & 1 ? FL_AC : 0);
    return advance(c);
}

/* Where an extended component lies in the standard format (CPUID 0xD, subleaf n). */
static void component(unsigned n, u32 *ret_offset, u32 *ret_len)
{
    u32 c, d;

    __cpuid_count(0xd, n, *ret_len, *ret_offset, c, d);
}

static u64 feature_mask(struct context *c)
{
    struct kvm_xcrs xcrs;
    u64 xcr0 = 1;

    if (kvm_ioctl(c->v->fd, KVM_GET_XCRS, &xcrs) >= 0 && xcrs.nr_xcrs)
        xcr0 = xcrs.xcrs[0].value;
    return xcr0 & (c->regs.rdx << 32 | (u32)c->regs.rax);
}

/* Copies one component's bytes from one image to the other; with from == NULL, its initial state. */
static void copy_component(u8 *to, const u8 *from, unsigned n)
{
    u32 offset, len;

    if (n == 0) { /* x87: everything of the first 160 bytes but MXCSR and its mask */
        static const u8 initial[24] = {0x7f, 0x03};

        memcpy(to, from ? from : initial, 24);
        if (from)
            memcpy(to + 32, from + 32, 128);
        else
            memset(to + 32, 0, 128);
        return;
    }
    component(n, &offset, &len);
    if (n == 1) {
        offset = XSAVE_LEGACY_SSE;
        len = 256;
    }
    if (!range_fits(offset, len, XSAVE_BYTES))
        return;
    if (from)
        memcpy(to + offset, from + offset, len);
    else
        memset(to + offset, 0, len);
}

static u32 area_bytes(u64 mask)
{
    u32 bytes = XSAVE_HEADER + 64;

    for (unsigned n = 2; n < 63; n++)
        if (mask & BIT(n)) {
            u32 offset, len;

            component(n, &offset, &len);
            bytes = MAX(bytes, offset + len);
        }
    return MIN(bytes, XSAVE_BYTES);
}

/* Moves the area between guest memory and buf, page by page. 1: done; else as reach(). */
static int move_area(struct context *c, u8 *buf, u32 bytes, bool write)
{
    for (u32 done = 0; done < bytes;) {
        u64 lin = c->address + done;
        u32 n = MIN(bytes - done, PAGE - (u32)(lin % PAGE));
        int rc;
        u8 *at = reach(c, lin, n, write, &rc);

        if (!at)
            return rc;
        if (write) {
            memcpy(at, buf + done, n);
            gmem_wrote(c->v->accel->m->ram, c->written_gpa, n);
        } else {
            memcpy(buf + done, at, n);
        }
        done += n;
    }
    return 1;
}

static int do_xrstor(struct context *c)
{
    static const u32 mxcsr_at = 24;
    u64 mask = feature_mask(c), in, have;
    u8 area[XSAVE_BYTES], *image;
    struct kvm_xsave xsave;
    int rc = move_area(c, area, area_bytes(mask), false);

    if (rc <= 0)
        return rc;
    memcpy(&in, area + XSAVE_HEADER, 8);
    rc = kvm_ioctl(c->v->fd, KVM_GET_XSAVE, &xsave);
    if (rc < 0)
        return rc;
    image = (u8 *)&xsave;
    memcpy(&have, image + XSAVE_HEADER, 8);
    for (unsigned n = 0; n < 63; n++)
        if (mask & BIT(n))
            copy_component(image, in & BIT(n) ? area : NULL, n);
    if (mask & 6)
        memcpy(image + mxcsr_at, area + mxcsr_at, 4);
    have = (have & ~mask) | mask;
    memcpy(image + XSAVE_HEADER, &have, 8);
    rc = kvm_ioctl(c->v->fd, KVM_SET_XSAVE, &xsave);
    return rc < 0 ? rc : advance(c);
}

static int do_xsave(struct context *c)
{
    u64 mask = feature_mask(c), have, old;
    u8 area[XSAVE_BYTES];
    struct kvm_xsave xsave;
    u32 bytes = area_bytes(mask);
    int rc = move_area(c, area, bytes, false);

    if (rc <= 0)
        return rc;
    rc = kvm_ioctl(c->v->fd, KVM_GET_XSAVE, &xsave);
    if (rc < 0)
        return rc;
    memcpy(&have, (u8 *)&xsave + XSAVE_HEADER, 8);
    memcpy(&old, area + XSAVE_HEADER, 8);
    for (unsigned n = 0; n < 63; n++)
        if (mask & BIT(n))
            copy_component(area, (u8 *)&xsave, n);
    if (mask & 6)
        memcpy(area + 24, (u8 *)&xsave + 24, 8);
    old = (old & ~mask) | (have & mask);
    memcpy(area + XSAVE_HEADER, &old, 8);
    rc = move_area(c, area, bytes, true);
    return rc <= 0 ? rc : advance(c);
}

static const struct {
    u8 opcode[2];
    u8 reg; /* ModRM.reg */
    int (*run)(struct context *c);
} known[] = {
    {{0x0f, 0xc7}, 1, do_cmpxchg16b}, /* with REX.W: there is an 8-byte form, which KVM knows */
    {{0x0f, 0xae}, 4, do_xsave},
    {{0x0f, 0xae}, 5, do_xrstor},
};

int kvm_complete(struct vcpu *v)
{
    struct context c = {.v = v};
    struct kvm_run *run = v->run;

    if (run->emulation_failure.ndata < 3 ||
        !(run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES))
        return -ENOTSUP;
    c.bytes = run->emulation_failure.insn_bytes;
    c.len = MIN(run->emulation_failure.insn_size, INSN_MAX);
    if (kvm_ioctl(v->fd, KVM_GET_REGS, &c.regs) < 0 ||
        kvm_ioctl(v->fd, KVM_GET_SREGS, &c.sregs) < 0)
        return -EIO;
    if (!c.sregs.cs.l || !decode(&c))
        return -ENOTSUP;
    if (c.opcode[0] == 0xcc || c.opcode[0] == 0xcd)
        return do_int(&c, c.opcode[0] == 0xcc ? VEC_BP : c.modrm);
    if (c.opcode[1] == 0x01)
        return do_ac(&c);
    for (size_t i = 0; i < ARRAY_LEN(known) && c.modrm >> 6 != 3; i++)
        if (!memcmp(known[i].opcode, c.opcode, 2) && known[i].reg == (c.modrm >> 3 & 7))
            return known[i].run(&c);
    return -ENOTSUP;
}
