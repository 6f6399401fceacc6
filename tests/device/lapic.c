/* Local APICs: priorities, timers, IPIs, modes. The test is every processor in turn. */
#include "pc.h"

#define MSR_BASE 0x1b
#define MSR_DEADLINE 0x6e0
#define MSR_X2(offset) (0x800 + (offset) / 16)
#define ICR_SELF 0x40000u
#define ICR_ALL 0x80000u
#define ICR_OTHERS 0xc0000u

static bool wrmsr(struct pc *pc, unsigned cpu, u32 msr, u64 value)
{
    struct accel_intc intc = board_intc(pc->b);

    return intc.write_msr(intc.opaque, cpu, msr, value);
}

static bool rdmsr(struct pc *pc, unsigned cpu, u32 msr, u64 *ret)
{
    struct accel_intc intc = board_intc(pc->b);

    return intc.read_msr(intc.opaque, cpu, msr, ret);
}

static void ipi(struct pc *pc, unsigned from, u32 dest, u32 low)
{
    pc_apic_write(pc, from, 0x310, dest << 24);
    pc_apic_write(pc, from, 0x300, low);
}

static void test_reset_state(void **state)
{
    struct pc pc;
    u64 base;

    pc_init(&pc, 2);
    assert_true(rdmsr(&pc, 0, MSR_BASE, &base));
    assert_int_equal(base, MEMMAP_LAPIC | 0x900);
    assert_true(rdmsr(&pc, 1, MSR_BASE, &base));
    assert_int_equal(base, MEMMAP_LAPIC | 0x800);
    assert_int_equal(pc_apic_read(&pc, 1, 0x20), 1u << 24);
    assert_int_equal(pc_apic_read(&pc, 0, 0x30), 0x01050014);
    assert_int_equal(pc_apic_read(&pc, 0, 0xf0), 0xff);
    for (u32 lvt = 0x320; lvt <= 0x370; lvt += 0x10)
        assert_int_equal(pc_apic_read(&pc, 0, lvt), 0x10000);
    pc_apic_write(&pc, 0, 0x320, 0x20); /* stays masked while software-disabled */
    assert_int_equal(pc_apic_read(&pc, 0, 0x320), 0x10020);
    ipi(&pc, 1, 0, 0x41);
    assert_false(pc_pending(&pc, 0)); /* and accepts nothing */
    pc_fini(&pc);
}

static void test_priorities(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    pc_enable_apics(&pc);
    ipi(&pc, 0, 0, 0x45);
    ipi(&pc, 0, 0, 0x62);
    ipi(&pc, 0, 0, 0x47);
    assert_int_equal(pc_apic_read(&pc, 0, 0x200 + 0x20), 1 << 5 | 1 << 7); /* IRR 0x40-0x5f */
    assert_int_equal(pc_ack(&pc, 0), 0x62);
    assert_int_equal(pc_apic_read(&pc, 0, 0xa0), 0x60);
    assert_false(pc_pending(&pc, 0));
    ipi(&pc, 0, 0, 0x68); /* the same class does not interrupt it */
    assert_false(pc_pending(&pc, 0));
    ipi(&pc, 0, 0, 0x71);
    assert_int_equal(pc_ack(&pc, 0), 0x71);
    pc_eoi(&pc, 0);
    assert_false(pc_pending(&pc, 0));
    pc_eoi(&pc, 0);
    assert_int_equal(pc_ack(&pc, 0), 0x68);
    pc_eoi(&pc, 0);
    assert_int_equal(pc_ack(&pc, 0), 0x47);
    pc_eoi(&pc, 0);
    assert_int_equal(pc_ack(&pc, 0), 0x45);
    pc_eoi(&pc, 0);
    pc_eoi(&pc, 0); /* one too many does nothing */
    assert_int_equal(pc_ack(&pc, 0), -1);
    pc_fini(&pc);
}

static void test_task_priority(void **state)
{
    struct pc pc;
    struct accel_intc intc;

    pc_init(&pc, 1);
    pc_enable_apics(&pc);
    intc = board_intc(pc.b);
    intc.set_tpr(intc.opaque, 0, 5);
    assert_int_equal(pc_apic_read(&pc, 0, 0x80), 0x50);
    ipi(&pc, 0, 0, 0x5f);
    assert_false(pc_pending(&pc, 0));
    assert_int_equal(pc_take_kicks(&pc, 0), 0);
    intc.set_tpr(intc.opaque, 0, 4);
    assert_true(pc_pending(&pc, 0));
    assert_int_equal(pc_take_kicks(&pc, 0), KICK_INTR);
    pc_apic_write(&pc, 0, 0x80, 0x60);
    assert_int_equal(intc.get_tpr(intc.opaque, 0), 6);
    assert_int_equal(pc_apic_read(&pc, 0, 0xa0), 0x60);
    assert_int_equal(pc_ack(&pc, 0), -1);
    pc_fini(&pc);
}

static u32 who(struct pc *pc, u8 vector)
{
    u32 mask = 0;

    for (unsigned i = 0; i < pc->b->config.cpus; i++) {
        if (!pc_pending(pc, i))
            continue;
        assert_int_equal(pc_ack(pc, i), vector);
        pc_eoi(pc, i);
        mask |= 1u << i;
    }
    return mask;
}

static void test_destinations(void **state)
{
    struct pc pc;

    pc_init(&pc, 4);
    pc_enable_apics(&pc);
    ipi(&pc, 0, 2, 0x50);
    assert_int_equal(who(&pc, 0x50), 1 << 2);
    ipi(&pc, 0, 0xff, 0x51);
    assert_int_equal(who(&pc, 0x51), 0xf);
    ipi(&pc, 0, 9, 0x52);
    assert_int_equal(who(&pc, 0x52), 0);
    ipi(&pc, 1, 0, ICR_SELF | 0x53);
    assert_int_equal(who(&pc, 0x53), 1 << 1);
    ipi(&pc, 1, 0, ICR_ALL | 0x54);
    assert_int_equal(who(&pc, 0x54), 0xf);
    ipi(&pc, 1, 0, ICR_OTHERS | 0x55);
    assert_int_equal(who(&pc, 0x55), 0xd);
    ipi(&pc, 0, 0x0a, 0x856); /* logical, flat */
    assert_int_equal(who(&pc, 0x56), 0xa);
    for (unsigned i = 0; i < 4; i++) {
        pc_apic_write(&pc, i, 0xe0, 0x0fffffff); /* cluster model, two clusters of two */
        pc_apic_write(&pc, i, 0xd0, (i / 2 << 4 | 1u << (i & 1)) << 24);
    }
    ipi(&pc, 0, 0x13, 0x857);
    assert_int_equal(who(&pc, 0x57), 0xc);
    ipi(&pc, 0, 0x02, 0x858);
    assert_int_equal(who(&pc, 0x58), 1 << 1);
    pc_fini(&pc);
}

static void test_lowest_priority(void **state)
{
    struct pc pc;
    u32 seen = 0;

    pc_init(&pc, 4);
    pc_enable_apics(&pc);
    pc_apic_write(&pc, 0, 0x80, 0x40);
    pc_apic_write(&pc, 1, 0x80, 0x20);
    pc_apic_write(&pc, 3, 0x80, 0x30);
    ipi(&pc, 0, 0x0b, 0x960); /* 0, 1, 3 */
    assert_int_equal(who(&pc, 0x60), 1 << 1);
    pc_apic_write(&pc, 1, 0x80, 0);
    pc_apic_write(&pc, 3, 0x80, 0);
    for (unsigned i = 0; i < 8; i++) {
        ipi(&pc, 0, 0x0a, 0x961);
        seen |= who(&pc, 0x61);
    }
    assert_int_equal(seen, 0xa); /* equals take turns */
    pc_fini(&pc);
}

static void test_startup(void **state)
{
    struct pc pc;
    struct accel_intc intc;

    pc_init(&pc, 3);
    pc_enable_apics(&pc);
    intc = board_intc(pc.b);
    ipi(&pc, 0, 1, 0x4500);
    assert_int_equal(pc_take_kicks(&pc, 1), KICK_INIT);
    assert_int_equal(pc_apic_read(&pc, 1, 0xf0), 0xff); /* its APIC is as after reset */
    assert_int_equal(intc.take_sipi(intc.opaque, 1), -1);
    ipi(&pc, 0, 1, 0x4698);
    assert_int_equal(pc_take_kicks(&pc, 1), KICK_SIPI);
    assert_int_equal(intc.take_sipi(intc.opaque, 1), 0x98);
    assert_int_equal(intc.take_sipi(intc.opaque, 1), -1);
    ipi(&pc, 0, 1, 0x8500); /* INIT level de-assert is nothing */
    assert_int_equal(pc_take_kicks(&pc, 1), 0);
    ipi(&pc, 0, 0, ICR_OTHERS | 0x4400);
    assert_int_equal(pc_take_kicks(&pc, 0), 0);
    assert_int_equal(pc_take_kicks(&pc, 1), KICK_NMI);
    assert_int_equal(pc_take_kicks(&pc, 2), KICK_NMI);
    pc_fini(&pc);
}

static void test_errors(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    pc_enable_apics(&pc);
    pc_apic_write(&pc, 0, 0x370, 0xfe);
    ipi(&pc, 0, 0, 0x0f); /* a vector below 16 */
    assert_int_equal(pc_ack(&pc, 0), 0xfe);
    pc_eoi(&pc, 0);
    assert_int_equal(pc_apic_read(&pc, 0, 0x280), 0);
    pc_apic_write(&pc, 0, 0x280, 0);
    assert_int_equal(pc_apic_read(&pc, 0, 0x280), 1 << 5);
    pc_apic_write(&pc, 0, 0x280, 0);
    assert_int_equal(pc_apic_read(&pc, 0, 0x280), 0);
    pc_apic_write(&pc, 0, 0x3f0, 1); /* x2APIC's only */
    pc_apic_write(&pc, 0, 0x280, 0);
    assert_int_equal(pc_apic_read(&pc, 0, 0x280), 1 << 7);
    pc_apic_write(&pc, 0, 0x370, 0x0e); /* an error interrupt that is an error */
    ipi(&pc, 0, 0, 0x0f);
    while (pc_pending(&pc, 0)) {
        pc_ack(&pc, 0);
        pc_eoi(&pc, 0);
    }
    pc_fini(&pc);
}

static void test_one_shot_and_periodic(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    pc_enable_apics(&pc);
    pc_apic_write(&pc, 0, 0x3e0, 0xb); /* divide by 1: a count is a nanosecond */
    pc_apic_write(&pc, 0, 0x320, 0xec);
    pc_apic_write(&pc, 0, 0x380, 1000000);
    pc_step(&pc, 400000);
    assert_int_equal(pc_apic_read(&pc, 0, 0x390), 600000);
    assert_false(pc_pending(&pc, 0));
    pc_step(&pc, 600000);
    assert_int_equal(pc_ack(&pc, 0), 0xec);
    pc_eoi(&pc, 0);
    assert_int_equal(pc_apic_read(&pc, 0, 0x390), 0);
    pc_step(&pc, NS_PER_S);
    assert_false(pc_pending(&pc, 0));
    pc_apic_write(&pc, 0, 0x320, 0x200ec);
    pc_apic_write(&pc, 0, 0x3e0, 0x3); /* by 16 */
    pc_apic_write(&pc, 0, 0x380, 62500);
    for (unsigned i = 0; i < 3; i++) {
        pc_step(&pc, 999999);
        assert_false(pc_pending(&pc, 0));
        pc_step(&pc, 1);
        assert_int_equal(pc_ack(&pc, 0), 0xec);
        pc_eoi(&pc, 0);
    }
    pc_apic_write(&pc, 0, 0x380, 0); /* stops */
    pc_step(&pc, NS_PER_S);
    assert_false(pc_pending(&pc, 0));
    pc_fini(&pc);
}

static void test_deadline(void **state)
{
    struct pc pc;
    u64 value;

    pc_init(&pc, 1);
    pc_enable_apics(&pc);
    assert_true(wrmsr(&pc, 0, MSR_DEADLINE, 12345)); /* not in that mode: ignored */
    assert_true(rdmsr(&pc, 0, MSR_DEADLINE, &value));
    assert_int_equal(value, 0);
    pc_apic_write(&pc, 0, 0x320, 0x400ed);
    assert_true(wrmsr(&pc, 0, MSR_DEADLINE, 2000001)); /* at 2 GHz, just after 1 ms */
    pc_step(&pc, 1000000);
    assert_false(pc_pending(&pc, 0));
    assert_true(rdmsr(&pc, 0, MSR_DEADLINE, &value));
    assert_int_equal(value, 2000001);
    pc_step(&pc, 1);
    assert_int_equal(pc_ack(&pc, 0), 0xed);
    pc_eoi(&pc, 0);
    assert_true(rdmsr(&pc, 0, MSR_DEADLINE, &value));
    assert_int_equal(value, 0);
    assert_true(wrmsr(&pc, 0, MSR_DEADLINE, 1)); /* in the past: at once */
    assert_int_equal(pc_ack(&pc, 0), 0xed);
    pc_eoi(&pc, 0);
    assert_true(wrmsr(&pc, 0, MSR_DEADLINE, 4000000));
    assert_true(wrmsr(&pc, 0, MSR_DEADLINE, 0)); /* disarms */
    assert_true(wrmsr(&pc, 0, MSR_DEADLINE, UINT64_MAX / 4));
    pc_step(&pc, 100 * NS_PER_S);
    assert_false(pc_pending(&pc, 0));
    board_set_tsc_offset(pc.b, 0, (s64)(UINT64_MAX / 4)); /* the guest sets its clock forward */
    assert_int_equal(pc_ack(&pc, 0), 0xed);
    pc_fini(&pc);
}

static void test_x2apic(void **state)
{
    struct pc pc;
    u64 value;

    pc_init(&pc, 20);
    pc_enable_apics(&pc);
    assert_false(rdmsr(&pc, 0, MSR_X2(0x20), &value)); /* not in this mode */
    for (unsigned i = 0; i < 20; i++) {
        assert_false(wrmsr(&pc, i, MSR_BASE, MEMMAP_LAPIC | 0x400));
        assert_true(wrmsr(&pc, i, MSR_BASE, MEMMAP_LAPIC | 0xc00 | (i == 0 ? 0x100 : 0)));
        assert_false(
            wrmsr(&pc, i, MSR_BASE, MEMMAP_LAPIC | 0x800)); /* no way back but through off */
    }
    assert_true(rdmsr(&pc, 17, MSR_X2(0x20), &value));
    assert_int_equal(value, 17);
    assert_true(rdmsr(&pc, 17, MSR_X2(0xd0), &value));
    assert_int_equal(value, 1 << 16 | 1 << 1);
    assert_int_equal(pc_apic_read(&pc, 0, 0x20), 0xffffffff); /* the memory view is gone */
    assert_true(wrmsr(&pc, 0, MSR_X2(0x300), 17ull << 32 | 0x70));
    assert_int_equal(pc_ack(&pc, 17), 0x70);
    assert_false(wrmsr(&pc, 17, MSR_X2(0xb0), 1));
    assert_true(wrmsr(&pc, 17, MSR_X2(0xb0), 0));
    assert_true(wrmsr(&pc, 0, MSR_X2(0x300), 0x1000aull << 32 | 0x871)); /* cluster 1, 1 and 3 */
    assert_int_equal(pc_ack(&pc, 17), 0x71);
    assert_int_equal(pc_ack(&pc, 19), 0x71);
    assert_int_equal(pc_ack(&pc, 1), -1);
    assert_true(wrmsr(&pc, 3, MSR_X2(0x3f0), 0x72)); /* self IPI */
    assert_int_equal(pc_ack(&pc, 3), 0x72);
    assert_true(wrmsr(&pc, 0, MSR_X2(0x300), 0xffffffffull << 32 | 0x73));
    assert_int_equal(pc_ack(&pc, 5), 0x73);
    assert_false(wrmsr(&pc, 0, MSR_X2(0x300), 1 << 13)); /* reserved */
    assert_false(wrmsr(&pc, 0, MSR_X2(0x20), 0));
    assert_false(wrmsr(&pc, 0, MSR_X2(0xe0), 0));
    assert_false(rdmsr(&pc, 0, MSR_X2(0x310), &value));
    assert_false(rdmsr(&pc, 0, MSR_X2(0xb0), &value));
    assert_false(wrmsr(&pc, 0, MSR_X2(0xf0), 1ull << 32));
    assert_true(wrmsr(&pc, 0, MSR_BASE, MEMMAP_LAPIC));
    assert_false(wrmsr(&pc, 0, MSR_BASE, MEMMAP_LAPIC | 0xc00)); /* off to x2APIC: not at once */
    pc_fini(&pc);
}

static void test_messages(void **state)
{
    struct pc pc;
    struct msi_sink msi;

    pc_init(&pc, 4);
    pc_enable_apics(&pc);
    msi = board_msi(pc.b);
    msi_send(&msi, 0xfee02000, 0x4044); /* processor 2, fixed, edge */
    assert_int_equal(who(&pc, 0x44), 1 << 2);
    msi_send(&msi, 0xfee05004, 0x45); /* logical 0 and 2 */
    assert_int_equal(who(&pc, 0x45), 5);
    msi_send(&msi, 0xfee0500c, 0x146); /* to one of them */
    assert_int_equal(__builtin_popcount(who(&pc, 0x46)), 1);
    msi_send(&msi, 0xfee01000, 0x400); /* NMI */
    assert_int_equal(pc_take_kicks(&pc, 1) & KICK_NMI, KICK_NMI);
    msi_send(&msi, 0xfed00000, 0x47); /* not for us */
    msi_send(&msi, 0xfee00000, 0x05); /* a vector that cannot be */
    assert_int_equal(who(&pc, 0x47), 0);
    pc_fini(&pc);
}

static void test_lint1_nmi(void **state)
{
    struct pc pc;

    pc_init(&pc, 2);
    pc_enable_apics(&pc);
    pc_apic_write(&pc, 0, 0x360, 0x400);
    board_nmi(pc.b);
    assert_int_equal(pc_take_kicks(&pc, 0), KICK_NMI);
    assert_int_equal(pc_take_kicks(&pc, 1), 0);
    pc_fini(&pc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reset_state),     cmocka_unit_test(test_priorities),
        cmocka_unit_test(test_task_priority),   cmocka_unit_test(test_destinations),
        cmocka_unit_test(test_lowest_priority), cmocka_unit_test(test_startup),
        cmocka_unit_test(test_errors),          cmocka_unit_test(test_one_shot_and_periodic),
        cmocka_unit_test(test_deadline),        cmocka_unit_test(test_x2apic),
        cmocka_unit_test(test_messages),        cmocka_unit_test(test_lint1_nmi),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
