/*
 * ACPI tables: RSDP, XSDT, FADT, FACS, MADT, MCFG, HPET, DSDT. ACPI 6.4, 5.2; PCI firmware
 * specification 3.3, 4.1.2 (MCFG); IA-PC HPET specification 1.0a, 3.2.4.
 *
 * Tables are put together in one buffer whose first byte will be at MEMMAP_ACPI; addresses in them
 * are final.
 */
#include "board/acpi.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TABLES_MAX (ACPI_VMGENID - MEMMAP_ACPI)
#define HEADER_LEN 36
#define RSDP_LEN 36
#define FADT_LEN 276
#define FACS_LEN 64

/* FADT flags, table 5.10 */
#define FADT_WBINVD BIT(0)
#define FADT_PROC_C1 BIT(2)
#define FADT_NO_SLEEP_BUTTON BIT(5)
#define FADT_NO_FIXED_RTC BIT(6)
#define FADT_TIMER_32BIT BIT(8)
#define FADT_RESET_REG BIT(10)
#define FADT_HEADLESS BIT(12)
/* IA-PC boot flags, table 5.11: no VGA; bit 1 clear: do not look for an 8042 */
#define FADT_BOOT_NO_VGA BIT(2)

struct tables {
    struct aml out;
    u32 list[8]; /* addresses of what goes into the XSDT */
    unsigned nlist;
};

static void put(struct tables *t, u64 value, unsigned bytes)
{
    aml_bytes(&t->out, &value, bytes);
}

static void align(struct tables *t, size_t to)
{
    while (t->out.len % to && !t->out.overflow)
        aml_byte(&t->out, 0);
}

static u32 address(const struct tables *t)
{
    return (u32)(MEMMAP_ACPI + t->out.len);
}

static size_t table_begin(struct tables *t, const char *signature, u8 revision)
{
    size_t start;

    align(t, 16);
    start = t->out.len;
    aml_bytes(&t->out, signature, 4);
    put(t, 0, 4); /* length */
    put(t, revision, 1);
    put(t, 0, 1); /* checksum */
    aml_bytes(&t->out, "TRAPEZTRAPEZE ", 14);
    put(t, 1, 4);
    aml_bytes(&t->out, "TRPZ", 4);
    put(t, 1, 4);
    return start;
}

static u8 checksum(const u8 *bytes, size_t len)
{
    u8 sum = 0;

    for (size_t i = 0; i < len; i++)
        sum += bytes[i];
    return (u8)-sum;
}

static void table_end(struct tables *t, size_t start)
{
    u32 len = (u32)(t->out.len - start);

    if (t->out.overflow)
        return;
    memcpy(t->out.buf + start + 4, &len, 4);
    t->out.buf[start + 9] = checksum(t->out.buf + start, len);
}

static void list_table(struct tables *t, size_t start)
{
    if (t->nlist < ARRAY_LEN(t->list))
        t->list[t->nlist++] = (u32)(MEMMAP_ACPI + start);
}

static u32 add_dsdt(struct tables *t, const struct board *b)
{
    size_t start = table_begin(t, "DSDT", 2);

    acpi_dsdt_body(&t->out, b);
    table_end(t, start);
    return (u32)(MEMMAP_ACPI + start);
}

static u32 add_facs(struct tables *t)
{
    u32 at;

    align(t, 64);
    at = address(t);
    aml_bytes(&t->out, "FACS", 4);
    put(t, FACS_LEN, 4);
    for (unsigned i = 8; i < FACS_LEN; i++)
        put(t, i == 32 ? 2 : 0, 1); /* version */
    return at;
}

/* Generic address of an I/O port, 5.2.3.2. */
static void put_port(struct tables *t, u16 port, u8 bits)
{
    put(t, port ? 1 : 0, 1);
    put(t, bits, 1);
    put(t, 0, 1);
    put(t, bits == 8 ? 1 : bits == 16 ? 2 : bits == 32 ? 3 : 0, 1);
    put(t, port, 8);
}

/* The first 116 bytes: those of ACPI 1.0 and the boot flags. */
static void put_fadt_legacy(struct tables *t, u32 facs, u32 dsdt)
{
    put(t, facs, 4);
    put(t, dsdt, 4);
    put(t, 0, 1);
    put(t, 4, 1); /* an enterprise server */
    put(t, MEMMAP_GSI_SCI, 2);
    put(t, 0, 8); /* no SMI command port, so ACPI is always on */
    put(t, MEMMAP_PORT_PM + ACPI_PM_EVENT, 4);
    put(t, 0, 4);
    put(t, MEMMAP_PORT_PM + ACPI_PM_CONTROL, 4);
    put(t, 0, 8);
    put(t, MEMMAP_PORT_PM + ACPI_PM_TIMER, 4);
    put(t, 0, 8); /* no general purpose events */
    put(t, 4, 1);
    put(t, 2, 1);
    put(t, 0, 1);
    put(t, 4, 1);
    put(t, 0, 4);
    put(t, 0xfff, 2); /* latencies that say: no C2, no C3 */
    put(t, 0xfff, 2);
    put(t, 0, 8);    /* no flushing, no throttling, no day and month alarm */
    put(t, 0x32, 1); /* the RTC's century byte */
    put(t, FADT_BOOT_NO_VGA, 2);
    put(t, 0, 1);
    put(t,
        FADT_WBINVD | FADT_PROC_C1 | FADT_NO_SLEEP_BUTTON | FADT_NO_FIXED_RTC | FADT_TIMER_32BIT |
            FADT_RESET_REG | FADT_HEADLESS,
        4);
}

static void add_fadt(struct tables *t, u32 facs, u32 dsdt)
{
    size_t start = table_begin(t, "FACP", 6);

    put_fadt_legacy(t, facs, dsdt);
    put_port(t, MEMMAP_PORT_PM + ACPI_PM_RESET, 8);
    put(t, ACPI_PM_RESET_VALUE, 1);
    put(t, 0, 2);
    put(t, 3, 1); /* minor version */
    put(t, 0, 8); /* X_FACS: the 32-bit field says it */
    put(t, dsdt, 8);
    put_port(t, MEMMAP_PORT_PM + ACPI_PM_EVENT, 32);
    put_port(t, 0, 0);
    put_port(t, MEMMAP_PORT_PM + ACPI_PM_CONTROL, 16);
    put_port(t, 0, 0);
    put_port(t, 0, 0);
    put_port(t, MEMMAP_PORT_PM + ACPI_PM_TIMER, 32);
    put_port(t, 0, 0);
    put_port(t, 0, 0);
    put_port(t, 0, 0); /* sleep control and status: for hardware-reduced machines only */
    put_port(t, 0, 0);
    put(t, 0x45504152545aull, 8); /* hypervisor vendor */
    table_end(t, start);
    list_table(t, start);
}

static void put_override(struct tables *t, u8 isa, u32 gsi, u16 flags)
{
    put(t, 2, 1);
    put(t, 10, 1);
    put(t, 0, 1);
    put(t, isa, 1);
    put(t, gsi, 4);
    put(t, flags, 2);
}

static void add_madt(struct tables *t, const struct board *b)
{
    size_t start = table_begin(t, "APIC", 5);

    put(t, MEMMAP_LAPIC, 4);
    put(t, 1, 4); /* there are 8259s too */
    for (unsigned i = 0; i < b->config.cpus; i++) {
        put(t, 0, 1);
        put(t, 8, 1);
        put(t, i, 1);
        put(t, i, 1);
        put(t, 1, 4);
    }
    put(t, 1, 1);
    put(t, 12, 1);
    put(t, 0, 2);
    put(t, MEMMAP_IOAPIC, 4);
    put(t, 0, 4);
    put_override(t, 0, MEMMAP_GSI_PIT, 0);
    put_override(t, MEMMAP_GSI_SCI, MEMMAP_GSI_SCI, 0x0d); /* level-triggered, active high */
    put(t, 4, 1);                                          /* LINT1 of every processor is NMI */
    put(t, 6, 1);
    put(t, 0xff, 1);
    put(t, 0, 2);
    put(t, 1, 1);
    table_end(t, start);
    list_table(t, start);
}

static void add_mcfg(struct tables *t)
{
    size_t start = table_begin(t, "MCFG", 1);

    put(t, 0, 8);
    put(t, MEMMAP_ECAM_BASE, 8);
    put(t, 0, 2);
    put(t, 0, 1);
    put(t, MEMMAP_ECAM_BUSES - 1, 1);
    put(t, 0, 4);
    table_end(t, start);
    list_table(t, start);
}

static void add_hpet(struct tables *t)
{
    size_t start = table_begin(t, "HPET", 1);

    put(t, HPET_ID, 4);
    put(t, 0, 4); /* in memory, any width */
    put(t, MEMMAP_HPET, 8);
    put(t, 0, 1);
    put(t, 0, 2);
    put(t, 0, 1);
    table_end(t, start);
    list_table(t, start);
}

static u32 add_xsdt(struct tables *t)
{
    size_t start = table_begin(t, "XSDT", 1);

    for (unsigned i = 0; i < t->nlist; i++)
        put(t, t->list[i], 8);
    table_end(t, start);
    return (u32)(MEMMAP_ACPI + start);
}

static void write_rsdp(u8 *p, u32 xsdt)
{
    memcpy(p, "RSD PTR \0TRAPEZ\2", 16);
    p[20] = RSDP_LEN;
    memcpy(p + 24, &xsdt, 4);
    p[8] = checksum(p, 20);
    p[32] = checksum(p, RSDP_LEN);
}

int acpi_write_tables(struct board *b, struct err *err)
{
    struct tables t = {.out.cap = TABLES_MAX};
    auto_free u8 *buf = calloc(1, TABLES_MAX);
    u32 facs, dsdt, xsdt;

    if (!buf)
        return err_set(err, ENOMEM, "no memory for ACPI tables");
    t.out.buf = buf;
    t.out.len = RSDP_LEN;
    facs = add_facs(&t);
    dsdt = add_dsdt(&t, b);
    add_fadt(&t, facs, dsdt);
    add_madt(&t, b);
    add_mcfg(&t);
    if (b->has_hpet)
        add_hpet(&t);
    xsdt = add_xsdt(&t);
    if (t.out.overflow)
        return err_set(err, ENOSPC, "the ACPI tables are larger than %llu bytes", TABLES_MAX);
    write_rsdp(buf, xsdt);
    if (gmem_write(b->config.ram, MEMMAP_ACPI, buf, TABLES_MAX) ||
        gmem_write(b->config.ram, ACPI_VMGENID, b->generation, sizeof(b->generation)))
        return err_set(err, EFAULT, "no RAM at 0x%llx for ACPI tables", MEMMAP_ACPI);
    return 0;
}
