/* The state of our interrupt controllers as registers of an accelerator's, and back. */
#include "unit.h"

#include "board/parts.h"

#define NOW 1000000000ll

static struct board *new_board(void)
{
    struct board *b = calloc(1, sizeof(*b));

    b->config.cpus = 2;
    return b;
}

/* What a guest may have made of them. */
static void fill(struct board *b)
{
    for (unsigned i = 0; i < 2; i++)
        b->pic.s.chip[i] = (struct pic_chip){.irr = 0x81,
                                             .isr = 2,
                                             .imr = 0x44,
                                             .lines = 0x81,
                                             .elcr = 0x20,
                                             .base = (u8)(0x20 + 8 * i),
                                             .top = 3,
                                             .icw1 = 0x11,
                                             .special_mask = 1};
    for (unsigned i = 0; i < 3; i++)
        b->pit.s.ch[i] = (struct pit_channel){.start_ns = NOW - 5000,
                                              .count = 1193 + i,
                                              .latch = 77,
                                              .latched = 2,
                                              .status = 0x36,
                                              .mode = 3,
                                              .access = 3,
                                              .write_low = 9,
                                              .gate = 1};
    b->pit.s.saved_ns = NOW;
    b->pit.s.speaker = 1;
    for (unsigned i = 0; i < IOAPIC_PINS; i++)
        b->ioapic.s.entry[i] = (0x30 + i) | (i & 1 ? BIT(15) : 0) | (u64)i << 56;
    b->ioapic.s.id = 3;
    b->ioapic.s.select = 0x10;
    for (unsigned i = 0; i < 2; i++) {
        struct lapic_state *s = &b->lapic.cpu[i].s;

        *s = (struct lapic_state){.apic_base = 0xfee00900,
                                  .icr = 0x01000000000000fdull,
                                  .saved_ns = NOW,
                                  .timer_ns = NOW + 64000,
                                  .tpr = 0x30,
                                  .ldr = 0x02000000,
                                  .dfr = UINT32_MAX,
                                  .svr = 0x1ff,
                                  .timer_count = 5000,
                                  .timer_divide = 3,
                                  .sipi = -1};
        for (unsigned k = 0; k < 8; k++)
            s->irr[k] = 1u << k, s->isr[k] = 2u << k, s->tmr[k] = 3u << k;
        for (unsigned k = 0; k < LAPIC_LVTS; k++)
            s->lvt[k] = 0x10000 | (0x40 + k);
    }
}

static void test_there_and_back(void **state)
{
    struct board *ours = new_board(), *back = new_board();
    struct x86_irqchip *k = calloc(1, sizeof(*k));

    fill(ours);
    irqchip_to_registers(ours, k, NOW);
    irqchip_from_registers(back, k, NOW);
    assert_memory_equal(&ours->pic.s, &back->pic.s, sizeof(ours->pic.s));
    assert_memory_equal(&ours->pit.s, &back->pit.s, sizeof(ours->pit.s));
    assert_memory_equal(ours->ioapic.s.entry, back->ioapic.s.entry, sizeof(ours->ioapic.s.entry));
    assert_int_equal(ours->ioapic.s.id, back->ioapic.s.id);
    for (unsigned i = 0; i < 2; i++)
        assert_memory_equal(&ours->lapic.cpu[i].s, &back->lapic.cpu[i].s,
                            sizeof(struct lapic_state));
    free(ours);
    free(back);
    free(k);
}

/* Loaded an hour later: timers have as much to go as they had. */
static void test_time_that_passed_is_not_counted(void **state)
{
    s64 later = NOW + 3600 * NS_PER_S;
    struct board *b = new_board();
    struct x86_irqchip *k = calloc(1, sizeof(*k));

    fill(b);
    irqchip_to_registers(b, k, later);
    assert_int_equal(k->pit[0].start_ns, later - 5000);
    assert_int_equal(k->lapic[1].reg[0x39], 64000 / 16);
    irqchip_from_registers(b, k, later);
    assert_int_equal(b->lapic.cpu[1].s.timer_ns, later + 64000);
    free(b);
    free(k);
}

/* A level that is up is told again; an edge that was taken is not. */
static void test_lines(void **state)
{
    struct board *b = new_board();
    struct x86_irqchip *k = calloc(1, sizeof(*k));

    fill(b);
    b->ioapic.s.lines = BIT(16) | BIT(17) | BIT(4);
    irqchip_to_registers(b, k, NOW);
    assert_int_equal(k->ioapic_irr, BIT(17)); /* odd pins are level-triggered */
    atomic_store(&b->irqchip_lines, BIT(0) | BIT(20));
    irqchip_from_registers(b, k, NOW);
    assert_int_equal(b->ioapic.s.lines, BIT(2) | BIT(20));
    free(b);
    free(k);
}

static void test_a_deadline_is_no_count(void **state)
{
    struct board *b = new_board();
    struct x86_irqchip *k = calloc(1, sizeof(*k));

    fill(b);
    b->lapic.cpu[0].s.lvt[LVT_TIMER] = 2u << 17 | 0xec;
    b->lapic.cpu[0].s.timer_ns = TIMER_NEVER;
    b->lapic.cpu[0].s.tsc_deadline = 123456789;
    irqchip_to_registers(b, k, NOW);
    assert_int_equal(k->lapic[0].reg[0x39], 0);
    k->lapic[0].reg[0x39] = 55;
    irqchip_from_registers(b, k, NOW);
    assert_int_equal(b->lapic.cpu[0].s.tsc_deadline, 123456789);
    assert_int_equal(b->lapic.cpu[0].s.timer_ns, TIMER_NEVER);
    free(b);
    free(k);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_there_and_back),
    cmocka_unit_test(test_time_that_passed_is_not_counted),
    cmocka_unit_test(test_lines),
    cmocka_unit_test(test_a_deadline_is_no_count),
};

UNIT_MAIN(tests)
