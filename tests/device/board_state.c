/* Saving and loading the board's fixed devices: nothing is lost, time goes on, hostile files are refused. */
#include "pc.h"
#include "state/stream.h"

static void save(struct pc *pc, struct state_buf *buf)
{
    struct state_set set = {0};
    struct state_sink sink = state_buf_sink(buf);

    assert_int_equal(board_add_state(pc->b, &set, NULL), 0);
    assert_int_equal(state_set_save(&set, &sink, NULL), 0);
    board_remove_state(pc->b, &set);
    assert_null(set.first);
}

static int load(struct pc *pc, struct state_buf *buf)
{
    struct state_set set = {0};
    struct state_source source = state_buf_source(buf);
    struct err err = ERR_INIT;
    int rc;

    buf->at = 0;
    assert_int_equal(board_add_state(pc->b, &set, NULL), 0);
    rc = state_set_load(&set, &source, &err);
    board_remove_state(pc->b, &set);
    return rc;
}

/* A machine in the middle of things: timers run, interrupts wait, FIFOs are filled. */
static void make_busy(struct pc *pc)
{
    struct irq irq = board_irq(pc->b, 17);

    pc_enable_apics(pc);
    pc_ioapic_write(pc, 0x10 + 2 * 17, 0x8041);
    irq_set(&irq, true);
    pc_apic_write(pc, 1, 0x3e0, 0xb);
    pc_apic_write(pc, 1, 0x320, 0x200ec);
    pc_apic_write(pc, 1, 0x380, 1000000);
    pc_outb(pc, 0x43, 0x34);
    pc_outb(pc, 0x40, 0x9c);
    pc_outb(pc, 0x40, 0x2e);
    pc_outb(pc, 0x3fa, 0x81);
    pc_outb(pc, 0x3f9, 0x01);
    pc->console.front.receive(pc->console.front.opaque, (const u8 *)"abc", 3);
    pc_outb(pc, 0x60, 0xf2);
    pc_outb(pc, 0x70, 0x40);
    pc_outb(pc, 0x71, 0x99);
    aspace_write(board_mmio(pc->b), MEMMAP_HPET + 0x10, 8, 1);
    pc_step(pc, 300000);
}

static void test_round_trip(void **state)
{
    struct state_buf first = {0}, second = {0};
    struct pc a, b;

    pc_init(&a, 2);
    make_busy(&a);
    save(&a, &first);
    pc_init(&b, 2);
    pc_step(&b, 300000); /* the same clock, so that bytes can be compared */
    assert_int_equal(load(&b, &first), 0);
    save(&b, &second);
    assert_int_equal(first.len, second.len);
    assert_memory_equal(first.data, second.data, first.len);
    state_buf_fini(&first);
    state_buf_fini(&second);
    pc_fini(&a);
    pc_fini(&b);
}

/* Loaded much later: what was to happen in 700 us still does. */
static void test_time_goes_on(void **state)
{
    struct state_buf buf = {0};
    u32 pm_timer;
    struct pc a, b;

    pc_init(&a, 2);
    make_busy(&a);
    pm_timer = pc_in(&a, MEMMAP_PORT_PM + 8, 4);
    save(&a, &buf);
    pc_init(&b, 2);
    pc_step(&b, 5000 * NS_PER_S);
    assert_int_equal(load(&b, &buf), 0);
    assert_int_equal(pc_ack(&b, 0), 0x41);
    assert_int_equal(pc_in(&b, MEMMAP_PORT_PM + 8, 4), pm_timer);
    assert_int_equal(aspace_read(board_mmio(b.b), MEMMAP_HPET + 0xf0, 8), 30000);
    pc_step(&b, 699999);
    assert_false(pc_pending(&b, 1));
    pc_step(&b, 1);
    assert_int_equal(pc_ack(&b, 1), 0xec);
    assert_int_equal(pc_inb(&b, 0x3f8), 'a');
    assert_int_equal(pc_inb(&b, 0x60), 0xfa);
    pc_outb(&b, 0x70, 0x40);
    assert_int_equal(pc_inb(&b, 0x71), 0x99);
    state_buf_fini(&buf);
    pc_fini(&a);
    pc_fini(&b);
}

/* The transmitter's interrupt waits while the machine moves: a console whose driver never hears of it would be dead. */
static void test_serial_interrupt_in_flight(void **state)
{
    struct state_buf buf = {0};
    struct pc a, b;

    pc_init(&a, 1);
    pc_outb(&a, 0x3fa, 0x01);
    pc_outb(&a, 0x3f9, 0x02);
    pc_outb(&a, 0x3f8, 'x');
    save(&a, &buf);
    pc_init(&b, 1);
    assert_int_equal(load(&b, &buf), 0);
    pc_outb(&b, 0x20, 0x0a);
    assert_true(pc_inb(&b, 0x20) & 0x10);
    assert_int_equal(pc_inb(&b, 0x3fa), 0xc2);
    assert_false(pc_inb(&b, 0x20) & 0x10);
    pc_outb(&b, 0x3f8, 'y'); /* the driver goes on, and hears of it again */
    assert_true(pc_inb(&b, 0x20) & 0x10);
    state_buf_fini(&buf);
    pc_fini(&a);
    pc_fini(&b);
}

/* A deadline is of the guest's TSC. Where it is loaded, the host's is another one, until the offset is set to match: the
 * interrupt comes neither at once nor never. */
static void test_deadline_in_flight(void **state)
{
    static const s64 clocks[] = {0, 5000 * NS_PER_S};

    for (size_t i = 0; i < ARRAY_LEN(clocks); i++) {
        struct state_buf buf = {0};
        struct pc a, b;

        pc_init(&a, 1);
        struct accel_intc intc = board_intc(a.b);
        pc_enable_apics(&a);
        pc_apic_write(&a, 0, 0x320, 0x400ed);
        pc_step(&a, 300000);
        assert_true(intc.write_msr(intc.opaque, 0, 0x6e0, 4000000)); /* at 2 ms, with 2 GHz */
        save(&a, &buf);
        pc_init(&b, 1);
        pc_step(&b, clocks[i]);
        assert_int_equal(load(&b, &buf), 0);
        board_set_tsc_offset(b.b, 0, 600000 - 2 * clocks[i]); /* as it was */
        pc_step(&b, 1699999);
        assert_false(pc_pending(&b, 0));
        pc_step(&b, 1);
        assert_int_equal(pc_ack(&b, 0), 0xed);
        state_buf_fini(&buf);
        pc_fini(&a);
        pc_fini(&b);
    }
}

/* Each of these is something a file could say and no device could be. */
static void test_impossible_states(void **state)
{
    struct pc good, bad, target;

    pc_init(&good, 1);
    pc_init(&target, 1);
    for (unsigned i = 0; i < 15; i++) {
        struct state_buf buf = {0};

        pc_init(&bad, 1);
        switch (i) {
        case 0:
            bad.b->com1.s.rx_count = 17;
            break;
        case 1:
            bad.b->com1.s.tx_count = 255;
            break;
        case 2:
            bad.b->i8042.s.count = 17;
            break;
        case 3:
            bad.b->rtc.s.index = 128;
            break;
        case 4:
            bad.b->rtc.s.offset_s = INT64_MAX;
            break;
        case 5:
            bad.b->rtc.s.next_ns = INT64_MIN;
            break;
        case 6:
            bad.b->pit.s.ch[1].mode = 6;
            break;
        case 7:
            bad.b->pit.s.ch[2].start_ns = INT64_MIN;
            break;
        case 8:
            bad.b->pic.s.chip[1].top = 8;
            break;
        case 9:
            bad.b->lapic.cpu[0].s.sipi = 256;
            break;
        case 10:
            bad.b->lapic.cpu[0].s.timer_ns = INT64_MIN;
            break;
        case 11:
            bad.b->ioapic.s.select = 256;
            break;
        case 12:
            bad.b->hpet.s.start_ns = INT64_MAX - 1;
            break;
        case 13:
            bad.b->pm.s.epoch_ns = INT64_MIN;
            break;
        case 14:
            bad.b->lapic.cpu[0].s.timer_ns = 1000; /* runs, but counts from nothing */
            break;
        }
        save(&bad, &buf);
        assert_int_equal(load(&target, &buf), -EINVAL);
        state_buf_fini(&buf);
        pc_fini(&bad);
    }
    pc_fini(&good);
    pc_fini(&target);
}

/* Any byte of a file may be wrong: the machine that loaded it goes on without harm. */
static void test_damaged_files(void **state)
{
    u64 seed = 88172645463325252ull;
    struct pc a, b;

    pc_init(&a, 1);
    make_busy(&a);
    pc_init(&b, 1);
    for (unsigned i = 0; i < 300; i++) {
        struct lapic_state *l = &a.b->lapic.cpu[0].s, keep = *l;
        struct pit_state pit = a.b->pit.s;
        struct state_buf buf = {0};
        u8 *victim = i & 1 ? (u8 *)l : (u8 *)&a.b->pit.s;
        size_t len = i & 1 ? sizeof(*l) : sizeof(pit);

        for (unsigned n = 0; n < 4; n++) {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            victim[seed % len] = (u8)(seed >> 32);
        }
        save(&a, &buf);
        if (load(&b, &buf) == 0) {
            pc_step(&b, 20000000);
            pc_apic_read(&b, 0, 0x390);
            pc_ack(&b, 0);
            pc_inb(&b, 0x40);
        }
        state_buf_fini(&buf);
        *l = keep;
        a.b->pit.s = pit;
    }
    pc_fini(&a);
    pc_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_time_goes_on),
        cmocka_unit_test(test_serial_interrupt_in_flight),
        cmocka_unit_test(test_deadline_in_flight),
        cmocka_unit_test(test_impossible_states),
        cmocka_unit_test(test_damaged_files),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
