/* The page walk in every paging mode: translation, rights, accessed and dirty bits, error codes. */
#include "unit.h"

#include "x86/cpu.h"
#include "x86/walk.h"

#define RAM_BYTES (64 * KiB)
#define P 1ull
#define W 2ull
#define U 4ull
#define A 0x20ull
#define D 0x40ull
#define PS 0x80ull
#define G 0x100ull
#define NX BIT(63)

static u8 ram_bytes[RAM_BYTES] __attribute__((aligned(4096)));
static struct gmem ram;

static struct walk_regs regs(u64 cr4, u64 efer)
{
    memset(ram_bytes, 0, sizeof(ram_bytes));
    ram = (struct gmem){.nslots = 1};
    ram.slot[0] = (struct gmem_slot){.len = RAM_BYTES, .hva = ram_bytes};
    return (struct walk_regs){.cr0 = CR0_PG | CR0_PE | CR0_WP,
                              .cr3 = 0x1000,
                              .cr4 = cr4,
                              .efer = efer,
                              .phys_bits = 40,
                              .ram = &ram};
}

static struct walk_regs regs64(u64 cr4)
{
    return regs(CR4_PAE | cr4, EFER_LME | EFER_LMA | EFER_NXE);
}

static void put64(u64 at, u64 value)
{
    memcpy(ram_bytes + at, &value, 8);
}

static void put32(u64 at, u32 value)
{
    memcpy(ram_bytes + at, &value, 4);
}

static u64 get64(u64 at)
{
    u64 value;

    memcpy(&value, ram_bytes + at, 8);
    return value;
}

/* The address 0x1234 through four levels at 0x1000, 0x2000, 0x3000, 0x4000; page at 0x9000. */
static void map64(u64 upper, u64 leaf)
{
    put64(0x1000, 0x2000 | upper);
    put64(0x2000, 0x3000 | upper);
    put64(0x3000, 0x4000 | upper);
    put64(0x4000 + 8, 0x9000 | leaf);
}

static u32 refused(const struct walk_regs *r, u64 lin, unsigned access)
{
    struct walk_page p;
    u32 error = 0;

    assert_false(walk_page(r, lin, access, &p, &error));
    return error;
}

static struct walk_page walked(const struct walk_regs *r, u64 lin, unsigned access)
{
    struct walk_page p;
    u32 error = 0;

    assert_true(walk_page(r, lin, access, &p, &error));
    return p;
}

static void test_no_paging(void **state)
{
    struct walk_regs r = regs(0, 0);

    (void)state;
    r.cr0 = 0;
    assert_int_equal(walked(&r, 0x12345678, WALK_WRITE).gpa, 0x12345678);
}

static void test_4level(void **state)
{
    struct walk_regs r = regs64(CR4_PGE);
    struct walk_page p;

    (void)state;
    map64(P | W | U, P | W | U | G);
    p = walked(&r, 0x1234, WALK_USER);
    assert_int_equal(p.gpa, 0x9234);
    assert_int_equal(p.page_bytes, 4096);
    assert_true(p.writable && p.user && p.global && !p.nx && !p.dirty);
    assert_int_equal(get64(0x1000), 0x2000 | P | W | U | A);
    assert_int_equal(get64(0x4008), 0x9000 | P | W | U | G | A);
    assert_true(walked(&r, 0x1234, WALK_WRITE).dirty);
    assert_int_equal(get64(0x4008), 0x9000 | P | W | U | G | A | D);
    assert_int_equal(refused(&r, 0x2234, WALK_USER | WALK_WRITE), PF_WRITE | PF_USER);
    assert_int_equal(refused(&r, 0x2234, WALK_FETCH), PF_FETCH);
}

static void test_peek_leaves_bits(void **state)
{
    struct walk_regs r = regs64(0);

    (void)state;
    map64(P | W | U, P | W | U);
    assert_false(walked(&r, 0x1234, WALK_WRITE | WALK_PEEK).dirty);
    assert_int_equal(get64(0x4008), 0x9000 | P | W | U);
}

static void test_rights(void **state)
{
    struct walk_regs r = regs64(0);

    (void)state;
    map64(P | U, P | W | U); /* read-only above */
    assert_int_equal(refused(&r, 0x1234, WALK_WRITE), PF_PRESENT | PF_WRITE);
    assert_int_equal(get64(0x1000), 0x2000 | P | U); /* a fault sets nothing */
    r.cr0 &= ~CR0_WP;
    assert_false(walked(&r, 0x1234, WALK_WRITE).writable);
    assert_int_equal(refused(&r, 0x1234, WALK_WRITE | WALK_USER), PF_PRESENT | PF_WRITE | PF_USER);
    map64(P | W, P | W | U);
    assert_int_equal(refused(&r, 0x1234, WALK_USER), PF_PRESENT | PF_USER);
    map64(P | W | U, P | NX);
    assert_true(walked(&r, 0x1234, 0).nx);
    assert_int_equal(refused(&r, 0x1234, WALK_FETCH), PF_PRESENT | PF_FETCH);
}

static void test_smep_smap(void **state)
{
    struct walk_regs r = regs64(CR4_SMEP | CR4_SMAP);

    (void)state;
    map64(P | W | U, P | W | U);
    assert_int_equal(refused(&r, 0x1234, WALK_FETCH), PF_PRESENT | PF_FETCH);
    assert_int_equal(refused(&r, 0x1234, 0), PF_PRESENT);
    walked(&r, 0x1234, WALK_AC);
    walked(&r, 0x1234, WALK_USER | WALK_FETCH);
}

static void test_reserved(void **state)
{
    struct walk_regs r = regs64(0);

    (void)state;
    map64(P | W, P | W | BIT(40)); /* beyond 40 physical bits */
    assert_int_equal(refused(&r, 0x1234, 0), PF_PRESENT | PF_RSVD);
    map64(P | W, P | W);
    put64(0x1000, 0x2000 | P | PS);
    assert_int_equal(refused(&r, 0x1234, 0), PF_PRESENT | PF_RSVD);
    map64(P | W, P | W | NX);
    r.efer &= ~EFER_NXE;
    assert_int_equal(refused(&r, 0x1234, WALK_WRITE), PF_PRESENT | PF_RSVD | PF_WRITE);
    r.cr3 = 1ull << 30; /* tables outside RAM */
    assert_int_equal(refused(&r, 0x1234, 0), PF_PRESENT | PF_RSVD);
}

static void test_large_pages(void **state)
{
    struct walk_regs r = regs64(0);
    struct walk_page p;

    (void)state;
    map64(P | W, P | W);
    put64(0x3000, 0x200000 | P | W | PS);
    p = walked(&r, 0x54321, WALK_WRITE);
    assert_int_equal(p.gpa, 0x254321);
    assert_int_equal(p.page_bytes, 2 * MiB);
    put64(0x3000, 0x202000 | P | W | PS);
    assert_int_equal(refused(&r, 0x54321, 0), PF_PRESENT | PF_RSVD);
    put64(0x2000, 0x40000000 | P | PS);
    p = walked(&r, 0x7654321, 0);
    assert_int_equal(p.gpa, 0x47654321);
    assert_int_equal(p.page_bytes, GiB);
}

static void test_32bit(void **state)
{
    struct walk_regs r = regs(CR4_PSE, 0);
    struct walk_page p;

    (void)state;
    put32(0x1000 + 4, 0x2000 | P | W | U);
    put32(0x2000 + 8, 0x9000 | P | W | U);
    p = walked(&r, 0x402345, WALK_USER | WALK_WRITE);
    assert_int_equal(p.gpa, 0x9345);
    assert_int_equal(refused(&r, 0x403000, WALK_FETCH), 0); /* no NX: no I bit */
    put32(0x1000 + 8, 0x00802000 | P | PS);                 /* address bit 32 */
    p = walked(&r, 0x812345, 0);
    assert_int_equal(p.gpa, 0x100812345);
    assert_int_equal(p.page_bytes, 4 * MiB);
    put32(0x1000 + 8, 0x00a00000 | P | PS);
    assert_int_equal(refused(&r, 0x812345, 0), PF_PRESENT | PF_RSVD);
    r.cr4 = 0; /* PS is ignored */
    put32(0x1000 + 8, 0x2000 | P | PS);
    assert_int_equal(walked(&r, 0x802345, 0).gpa, 0x9345);
}

static void test_pae(void **state)
{
    struct walk_regs r = regs(CR4_PAE, 0);

    (void)state;
    r.cr3 = 0x1020;
    put64(0x1020 + 24, 0x2000 | P);
    put64(0x2000, 0x3000 | P | W | U);
    put64(0x3000 + 8, 0x9000 | P | W | U);
    assert_int_equal(walked(&r, 0xc0001234, WALK_USER | WALK_WRITE).gpa, 0x9234);
    assert_int_equal(get64(0x1020 + 24), 0x2000 | P); /* no accessed bit there */
    assert_int_equal(refused(&r, 0x1234, 0), 0);
    put64(0x3000 + 8, 0x9000 | P | BIT(53));
    assert_int_equal(refused(&r, 0xc0001234, 0), PF_PRESENT | PF_RSVD);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_no_paging),
    cmocka_unit_test(test_4level),
    cmocka_unit_test(test_peek_leaves_bits),
    cmocka_unit_test(test_rights),
    cmocka_unit_test(test_smep_smap),
    cmocka_unit_test(test_reserved),
    cmocka_unit_test(test_large_pages),
    cmocka_unit_test(test_32bit),
    cmocka_unit_test(test_pae),
};
UNIT_MAIN(tests)
