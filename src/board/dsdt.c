/*
 * The DSDT's body: what cannot be probed. ACPI 6.4, chapters 5 to 7; PCI firmware
 * specification 3.3, chapter 4.
 */
#include "board/acpi.h"

#include <stdio.h>

/* Functions here have INTA# only; leaving the other pins out saves the guest's interpreter most of the work. */
static void add_prt(struct aml *a)
{
    struct aml_scope prt;

    aml_name(a, "_PRT");
    prt = aml_package(a, PCI_SLOTS);
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
        struct aml_scope entry = aml_package(a, 4);

        aml_int(a, (u64)slot << 16 | 0xffff);
        aml_int(a, 0); /* INTA# */
        aml_int(a, 0); /* no link device: the next number is the pin of the I/O APIC */
        aml_int(a, MEMMAP_GSI_PCI + pci_intx_line(slot));
        aml_end(a, entry);
    }
    aml_end(a, prt);
}

static void add_pci(struct aml *a, const struct board *b)
{
    struct aml_scope dev = aml_device(a, "PCI0");
    struct aml_crs crs;

    aml_name_eisa(a, "_HID", "PNP0A08");
    aml_name_eisa(a, "_CID", "PNP0A03");
    aml_name_int(a, "_UID", 0);
    aml_name_int(a, "_SEG", 0);
    aml_name_int(a, "_BBN", 0);
    crs = aml_crs(a);
    aml_crs_bus(a, 0, MEMMAP_ECAM_BUSES - 1);
    aml_crs_io(a, 0xcf8, 8);
    aml_crs_io_window(a, 0, 0xcf7);
    aml_crs_io_window(a, 0xd00, 0xffff);
    aml_crs_window32(a, MEMMAP_MMIO32_BASE, MEMMAP_MMIO32_LEN);
    if (b->mmio64_len)
        aml_crs_window64(a, b->mmio64_base, b->mmio64_len);
    aml_crs_end(a, crs);
    add_prt(a);
    aml_end(a, dev);
}

/* What is taken on the board itself, so that a guest puts nothing there and believes the MCFG. */
static void add_board_resources(struct aml *a)
{
    struct aml_scope dev = aml_device(a, "MBRD");
    struct aml_crs crs;

    aml_name_eisa(a, "_HID", "PNP0C02");
    crs = aml_crs(a);
    aml_crs_mem32(a, MEMMAP_ECAM_BASE, MEMMAP_ECAM_LEN);
    aml_crs_io(a, MEMMAP_PORT_PM, ACPI_PM_LEN);
    aml_crs_end(a, crs);
    aml_end(a, dev);
}

static void add_com1(struct aml *a)
{
    struct aml_scope dev = aml_device(a, "COM1");
    struct aml_crs crs;

    aml_name_eisa(a, "_HID", "PNP0501");
    aml_name_int(a, "_UID", 1);
    aml_name_int(a, "_STA", 15);
    crs = aml_crs(a);
    aml_crs_io(a, 0x3f8, 8);
    aml_crs_irq(a, 4);
    aml_crs_end(a, crs);
    aml_end(a, dev);
}

static void add_rtc(struct aml *a)
{
    struct aml_scope dev = aml_device(a, "RTC_");
    struct aml_crs crs;

    aml_name_eisa(a, "_HID", "PNP0B00");
    crs = aml_crs(a);
    aml_crs_io(a, 0x70, 2);
    aml_crs_irq(a, 8);
    aml_crs_end(a, crs);
    aml_end(a, dev);
}

static void add_pvpanic(struct aml *a)
{
    struct aml_scope dev = aml_device(a, "PEVT");
    struct aml_crs crs;

    aml_name_string(a, "_HID", "QEMU0001");
    aml_name_int(a, "_STA", 15);
    crs = aml_crs(a);
    aml_crs_io(a, MEMMAP_PORT_PVPANIC, 1);
    aml_crs_end(a, crs);
    aml_end(a, dev);
}

/* VM generation id: where the guest finds 16 bytes that change when it becomes another machine. */
static void add_vmgenid(struct aml *a)
{
    struct aml_scope dev = aml_device(a, "VGEN"), package;

    aml_name_string(a, "_HID", "TRPZ0001");
    aml_name_string(a, "_CID", "VM_Gen_Counter");
    aml_name_string(a, "_DDN", "VM_Gen_Counter");
    aml_name(a, "ADDR");
    package = aml_package(a, 2);
    aml_int(a, ACPI_VMGENID);
    aml_int(a, 0);
    aml_end(a, package);
    aml_end(a, dev);
}

/* A generic event device, 5.6.9: its interrupt runs _EVT, which makes the driver of VGEN look. */
static void add_event(struct aml *a)
{
    struct aml_scope dev = aml_device(a, "GED_"), method;
    struct aml_crs crs;

    aml_name_string(a, "_HID", "ACPI0013");
    aml_name_int(a, "_UID", 0);
    crs = aml_crs(a);
    aml_crs_irq(a, MEMMAP_GSI_EVENT);
    aml_crs_end(a, crs);
    method = aml_method(a, "_EVT", 1);
    aml_notify(a, "VGEN", 0x80);
    aml_end(a, method);
    aml_end(a, dev);
}

static void add_cpus(struct aml *a, unsigned cpus)
{
    for (unsigned i = 0; i < cpus; i++) {
        struct aml_scope dev;
        char name[8];

        snprintf(name, sizeof(name), "C%03u", i % 1000);
        dev = aml_device(a, name);
        aml_name_string(a, "_HID", "ACPI0007");
        aml_name_int(a, "_UID", i);
        aml_end(a, dev);
    }
}

void acpi_dsdt_body(struct aml *a, const struct board *b)
{
    struct aml_scope sb, s5;

    aml_name(a, "_S5_");
    s5 = aml_package(a, 4);
    aml_int(a, ACPI_PM_SLP_TYP_S5);
    aml_int(a, ACPI_PM_SLP_TYP_S5);
    aml_int(a, 0);
    aml_int(a, 0);
    aml_end(a, s5);
    sb = aml_root_scope(a, "_SB_");
    add_pci(a, b);
    add_board_resources(a);
    add_com1(a);
    add_rtc(a);
    add_pvpanic(a);
    add_vmgenid(a);
    add_event(a);
    add_cpus(a, b->config.cpus);
    aml_end(a, sb);
}
