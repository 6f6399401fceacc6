/* A processor's state from a file: what cannot be is refused by the field's name. */
#include "unit.h"

#include "x86/cpu_state.h"
#include "x86/cpuid.h"
#include "x86/xsave.h"

static struct cpu_model model;

/* A 64-bit kernel's, more or less. */
static void plausible(struct x86_cpu *c)
{
    x86_cpu_reset(c, true);
    c->cr0 = CR0_PE | CR0_PG | CR0_WP | CR0_ET;
    c->cr4 = CR4_PAE | CR4_PGE;
    c->cr3 = 0x1000;
    c->msr.efer = EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE;
    c->seg[SEG_CS] = (struct x86_seg){.limit = UINT32_MAX, .attr = 0xa09b, .sel = 0x10};
    c->seg[SEG_GS].base = 0xffff888000000000ull;
    c->rip = 0xffffffff81000000ull;
    c->msr.lstar = 0xffffffff81a00000ull;
}

struct lie {
    const char *field; /* what the message names */
    size_t offset;
    u64 value;
    unsigned size;
};

#define LIE(name, member, v)                                                               \
    {                                                                                      \
        name, offsetof(struct x86_cpu, member), (v), sizeof(((struct x86_cpu *)0)->member) \
    }

/* TABLE */
static const struct lie lies[] = {
    LIE("activity", activity, 3),
    LIE("cr0", cr0, CR0_PG),
    LIE("cr0", cr0, CR0_PE | CR0_PG | CR0_NW),
    LIE("cr0", cr0, CR0_PE | CR0_PG | BIT(40)),
    LIE("msr.efer", msr.efer, EFER_LMA),
    LIE("msr.efer", msr.efer, EFER_LME | EFER_LMA | BIT(12)),
    LIE("cr4", cr4, CR4_PGE),
    LIE("cr4", cr4, CR4_PAE | BIT(13)),
    LIE("cr3", cr3, BIT(60)),
    LIE("cr8", cr8, 16),
    LIE("rflags", rflags, FL_VM | 2),
    LIE("rflags", rflags, BIT(33)),
    LIE("seg[] of CS", seg[SEG_CS].attr, 0xa09b | SEG_ATTR_DB),
    LIE("seg[] of CS", seg[SEG_CS].attr, 0xa29b),
    LIE("seg[]", seg[SEG_DS].base, BIT(32)),
    LIE("seg[]", seg[SEG_FS].base, BIT(47)),
    LIE("seg[]", seg[SEG_SS].attr, BIT(17)),
    LIE("ldt, tr, gdt or idt", gdt.base, BIT(50)),
    LIE("ldt, tr, gdt or idt", idt.base, BIT(62)),
    LIE("ldt, tr, gdt or idt", tr.base, 0xff00000000000000ull),
    LIE("rip", rip, BIT(48)),
    LIE("dr6 or dr7", dr6, BIT(32)),
    LIE("xcr0", xcr0, 0),
    LIE("xcr0", xcr0, 5),
    LIE("xcr0", xcr0, BIT(62) | 1),
    LIE("xsave: MXCSR", xsave[XSAVE_MXCSR + 2], 1),
    LIE("xsave: header", xsave[XSAVE_BV + 7], 0x80),
    LIE("xsave: header", xsave[XSAVE_BV + 15], 0x80),
    LIE("msr.lstar", msr.cstar, BIT(63)),
    LIE("msr.lstar", msr.sfmask, BIT(32)),
    LIE("msr.kernel_gs_base", msr.kernel_gs_base, BIT(47)),
    LIE("msr.sysenter", msr.sysenter_eip, BIT(47)),
    LIE("msr.pat", msr.pat, 2),
    LIE("msr.mtrr", msr.mtrr_def_type, 2),
    LIE("msr.mtrr", msr.mtrr_mask[7], BIT(60)),
    LIE("msr.tsc_aux", msr.tsc_aux, BIT(32)),
    LIE("msr.spec_ctrl", msr.spec_ctrl, BIT(30)),
    LIE("sti_shadow", sti_shadow, 2),
    LIE("sti_shadow", nmi_pending, 255),
    LIE("event", event_valid, 2),
    LIE("event", event_has_error, 2),
};

static void test_what_can_be_passes(void **state)
{
    struct x86_cpu *c = aligned_alloc(64, sizeof(*c));
    struct err err = ERR_INIT;

    plausible(c);
    assert_int_equal(x86_cpu_check(&model, c, &err), 0);
    for (unsigned bsp = 0; bsp < 2; bsp++) {
        x86_cpu_reset(c, bsp);
        assert_int_equal(x86_cpu_check(&model, c, &err), 0);
    }
    free(c);
}

static void test_lies_are_named(void **state)
{
    struct x86_cpu *c = aligned_alloc(64, sizeof(*c));

    for (unsigned i = 0; i < ARRAY_LEN(lies); i++) {
        struct err err = ERR_INIT;

        plausible(c);
        memcpy((u8 *)c + lies[i].offset, &lies[i].value, lies[i].size);
        if (!x86_cpu_check(&model, c, &err))
            fail_msg("%s = 0x%llx is accepted", lies[i].field, (unsigned long long)lies[i].value);
        if (!strstr(err.msg, lies[i].field))
            fail_msg("%s: %s", lies[i].field, err.msg);
    }
    free(c);
}

static void test_the_table_holds_everything(void **state)
{
    u64 len = state_table_bytes(&x86_cpu_table, x86_cpu_table.version);
    struct x86_cpu *c = aligned_alloc(64, sizeof(*c)), *back = aligned_alloc(64, sizeof(*back));
    struct err err = ERR_INIT;
    u8 *buf = malloc(len), *again = malloc(len);

    assert_int_equal(state_table_check(&x86_cpu_table, &err), 0);
    memset(c, 0xa5, sizeof(*c));
    memset(back, 0, sizeof(*back));
    state_table_save(&x86_cpu_table, c, buf);
    assert_int_equal(state_table_load(&x86_cpu_table, x86_cpu_table.version, buf, back, &err), 0);
    state_table_save(&x86_cpu_table, back, again);
    assert_memory_equal(buf, again, len);
    assert_memory_equal(c->gpr, back->gpr, sizeof(c->gpr));
    assert_memory_equal(c->xsave, back->xsave, sizeof(c->xsave));
    assert_memory_equal(&c->msr, &back->msr, sizeof(c->msr)); /* it has no padding */
    free(c);
    free(back);
    free(buf);
    free(again);
}

static int setup(void **state)
{
    return cpu_model_init(&model, "host", 1, &ERR_INIT);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup(test_what_can_be_passes, setup),
    cmocka_unit_test_setup(test_lies_are_named, setup),
    cmocka_unit_test(test_the_table_holds_everything),
};

UNIT_MAIN(tests)
