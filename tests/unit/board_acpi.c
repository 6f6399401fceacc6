/* The ACPI tables, as a guest finds and checks them. */
#include "board/acpi.h"
#include "board_image.h"

static u8 sum(struct image *i, u64 gpa, u64 len)
{
    u8 s = 0;

    for (u64 n = 0; n < len; n++)
        s += (u8)image_ram(i, gpa + n, 1);
    return s;
}

/* Address of the table, found from the RSDP on; its checksum is good. */
static u64 find(struct image *i, const char *signature)
{
    u64 xsdt = image_ram(i, MEMMAP_ACPI + 24, 8), n = (image_ram(i, xsdt + 4, 4) - 36) / 8;
    u32 want;

    memcpy(&want, signature, 4);
    for (u64 t = 0; t < n; t++) {
        u64 at = image_ram(i, xsdt + 36 + 8 * t, 8);

        if (image_ram(i, at, 4) != want)
            continue;
        assert_int_equal(sum(i, at, image_ram(i, at + 4, 4)), 0);
        return at;
    }
    return 0;
}

static void test_tables(void **state)
{
    struct image *i = image_new();
    u64 fadt, madt, mcfg, dsdt;

    assert_int_equal(acpi_write_tables(i->b, NULL), 0);
    assert_int_equal(sum(i, MEMMAP_ACPI, 20), 0);
    assert_int_equal(sum(i, MEMMAP_ACPI, 36), 0);
    fadt = find(i, "FACP");
    assert_int_equal(image_ram(i, fadt + 4, 4), 276);
    assert_int_equal(image_ram(i, fadt + 46, 2), MEMMAP_GSI_SCI);
    assert_int_equal(image_ram(i, fadt + 56, 4), MEMMAP_PORT_PM);
    assert_int_equal(image_ram(i, fadt + 108, 1), 0x32);
    assert_int_equal(image_ram(i, fadt + 120, 8), MEMMAP_PORT_PM + ACPI_PM_RESET);
    assert_int_equal(image_ram(i, fadt + 128, 1), ACPI_PM_RESET_VALUE);
    dsdt = image_ram(i, fadt + 40, 4);
    assert_int_equal(image_ram(i, fadt + 140, 8), dsdt);
    assert_int_equal(image_ram(i, dsdt, 4), 0x54445344); /* DSDT */
    assert_int_equal(sum(i, dsdt, image_ram(i, dsdt + 4, 4)), 0);
    madt = find(i, "APIC");
    assert_int_equal(image_ram(i, madt + 36, 4), MEMMAP_LAPIC);
    mcfg = find(i, "MCFG");
    assert_int_equal(image_ram(i, mcfg + 44, 8), MEMMAP_ECAM_BASE);
    assert_int_equal(find(i, "NONE"), 0);
    image_free(i);
}

/* 32 processors still fit, and each is in the MADT. */
static void test_many_cpus(void **state)
{
    struct image *i = image_new();
    u64 madt, at, end;
    u32 seen = 0;

    i->b->config.cpus = MEMMAP_CPUS;
    assert_int_equal(acpi_write_tables(i->b, NULL), 0);
    madt = find(i, "APIC");
    end = madt + image_ram(i, madt + 4, 4);
    for (at = madt + 44; at < end; at += image_ram(i, at + 1, 1)) {
        if (image_ram(i, at, 1) == 0)
            seen |= 1u << image_ram(i, at + 3, 1);
    }
    assert_int_equal(at, end);
    assert_int_equal(seen, 0xffffffff);
    image_free(i);
}

static void test_aml(void **state)
{
    u8 buf[64];
    struct aml a = {.buf = buf, .cap = sizeof(buf)};
    struct aml_scope s;

    aml_name_int(&a, "ABCD", 0x1234);
    assert_memory_equal(buf,
                        "\x08"
                        "ABCD\x0b\x34\x12",
                        8);
    a.len = 0;
    s = aml_package(&a, 2);
    aml_int(&a, 1);
    aml_int(&a, 0xff);
    aml_end(&a, s);
    assert_memory_equal(buf, "\x12\x87\x00\x00\x02\x01\x0a\xff", 8);
    a.len = 0;
    aml_name_eisa(&a, "_HID", "PNP0501");
    assert_memory_equal(buf, "\x08_HID\x0c\x41\xd0\x05\x01", 10);
    for (unsigned n = 0; n < 20; n++)
        aml_string(&a, "overflow");
    assert_true(a.overflow);
    assert_true(a.len <= sizeof(buf));
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_tables),
    cmocka_unit_test(test_many_cpus),
    cmocka_unit_test(test_aml),
};

UNIT_MAIN(tests)
