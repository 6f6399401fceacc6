/*
 * A guest that means harm, against the whole board: every port at every width, registers of every controller with
 * garbage, time running. Nothing may crash, hang or reach outside (sanitizer builds look closer). hostile.md 30, 34-36.
 */
#include "pc.h"

#define ROUNDS 200000

static u64 next(u64 *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

static void test_every_port(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    for (unsigned port = 0; port < 65536; port++) {
        for (unsigned size = 1; size <= 4; size *= 2) {
            pc_in(&pc, (u16)port, size);
            pc_out(&pc, (u16)port, size, 0xa5a5a5a5u ^ port);
            pc.nevents = 0;
        }
    }
    pc_step(&pc, NS_PER_S);
    pc_fini(&pc);
}

/* Ports and registers that exist, more often than those that do not. */
static void poke(struct pc *pc, u64 *seed)
{
    static const u16 ports[] = {0x20, 0xa0, 0x40, 0x43,  0x60,  0x61,  0x64,
                                0x70, 0x71, 0x92, 0x3f8, 0x4d0, 0x600, 0xcf8};
    static const u64 mmio[] = {MEMMAP_LAPIC, MEMMAP_IOAPIC, MEMMAP_HPET, MEMMAP_ECAM_BASE};
    u64 r = next(seed), value = next(seed) >> (r >> 56 & 63);
    unsigned size = 1u << (r & 3);

    board_enter_cpu(pc->b, r >> 4 & 1);
    if (r & 0x100) {
        u64 addr = mmio[r >> 9 & 3] + (r >> 16 & 0xfff);

        if (r & 0x1000)
            aspace_read(board_mmio(pc->b), addr, size);
        else
            aspace_write(board_mmio(pc->b), addr, size, value);
        return;
    }
    size = MIN(size, 4u);
    if (r & 0x1000)
        pc_in(pc, (u16)(ports[(r >> 16) % ARRAY_LEN(ports)] + (r >> 32 & 7)), size);
    else
        pc_out(pc, (u16)(ports[(r >> 16) % ARRAY_LEN(ports)] + (r >> 32 & 7)), size, (u32)value);
}

static void test_garbage(void **state)
{
    struct accel_intc intc;
    u64 seed = 0x9e3779b97f4a7c15ull, value;
    struct pc pc;

    pc_init(&pc, 2);
    intc = board_intc(pc.b);
    for (unsigned i = 0; i < ROUNDS; i++) {
        unsigned cpu = i & 1;

        poke(&pc, &seed);
        if (i % 7 == 0)
            intc.write_msr(intc.opaque, cpu, 0x800 + (u32)(next(&seed) & 0xff), next(&seed));
        if (i % 11 == 0)
            intc.read_msr(intc.opaque, cpu, 0x800 + (u32)(next(&seed) & 0xff), &value);
        if (i % 101 == 0)
            intc.write_msr(intc.opaque, cpu, 0x1b, next(&seed) & 0xfff);
        if (i % 13 == 0)
            intc.write_msr(intc.opaque, cpu, 0x6e0, next(&seed));
        if (i % 17 == 0)
            pc_step(&pc, (s64)(next(&seed) % 3000000));
        if (intc.pending(intc.opaque, cpu))
            intc.acknowledge(intc.opaque, cpu);
        intc.take_sipi(intc.opaque, cpu);
        pc.nevents = pc.nout = 0;
        pc.room = sizeof(pc.out);
        if (i % 20011 == 0)
            board_reset(pc.b);
    }
    pc_fini(&pc);
}

/* What else may a configuration be? */
static void test_bad_configurations(void **state)
{
    struct board_config c = {.name = "bad"};
    struct board *b = NULL;
    struct pc pc;

    pc_init(&pc, MEMMAP_CPUS);
    c = pc.b->config;
    c.cpus = 0;
    assert_int_equal(board_new(&c, &b, NULL), -EINVAL);
    c.cpus = MEMMAP_CPUS + 1;
    assert_int_equal(board_new(&c, &b, NULL), -EINVAL);
    c.cpus = 1;
    c.debug_exit = 0x3f8; /* on the serial port */
    assert_int_equal(board_new(&c, &b, NULL), -EEXIST);
    assert_null(b);
    board_free(NULL);
    pc_fini(&pc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_port),
        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_bad_configurations),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
