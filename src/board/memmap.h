/*
 * Where things are in the PC's address spaces. RAM is [0, 3 GiB) and from 4 GiB on (mem/gmem.h);
 * everything of the machine that is not RAM lies between, except the 64-bit PCI window above RAM.
 */
#ifndef BOARD_MEMMAP_H
#define BOARD_MEMMAP_H

#include "base/types.h"

#define MEMMAP_CPUS 32 /* the most processors a board takes */

/* PCI host bridge. Firmware and kernels find BARs assigned here or assign them themselves. */
#define MEMMAP_MMIO32_BASE 0xc0000000ull
#define MEMMAP_MMIO32_LEN 0x20000000ull
#define MEMMAP_ECAM_BASE 0xe0000000ull /* 1 MiB for each bus */
#define MEMMAP_ECAM_BUSES 1
#define MEMMAP_ECAM_LEN (MEMMAP_ECAM_BUSES * MiB)
#define MEMMAP_MMIO64_LEN (16 * GiB) /* its base depends on RAM: board_mmio64_base() */
#define MEMMAP_PCI_IO_BASE 0xc000    /* I/O BARs: [0xc000, 0x10000) */
#define MEMMAP_PCI_IO_LEN 0x4000

#define MEMMAP_IOAPIC 0xfec00000ull
#define MEMMAP_HPET 0xfed00000ull
#define MEMMAP_LAPIC 0xfee00000ull

/* Interrupt pins of the I/O APIC ("gsi"). INTA# of PCI slot n is MEMMAP_GSI_PCI + n % MEMMAP_PCI_PINS. */
#define MEMMAP_GSIS 24
#define MEMMAP_GSI_PIT 2 /* ISA interrupt 0 arrives here */
#define MEMMAP_GSI_EVENT 5 /* edge-triggered: the VM generation id has changed */
#define MEMMAP_GSI_SCI 9
#define MEMMAP_GSI_PCI 16
#define MEMMAP_PCI_PINS 8

/* Ports */
#define MEMMAP_PORT_FW_CFG 0x510
#define MEMMAP_PORT_PVPANIC 0x505
#define MEMMAP_PORT_PM 0x600 /* device/acpi_pm.h says what is where */

/* Low memory of boot protocols, all below 640 KiB, and the tables for the guest at the top of the
 * first MiB. */
#define MEMMAP_EBDA 0x9fc00ull
#define MEMMAP_ACPI 0xe0000ull
#define MEMMAP_ACPI_LEN 0x10000ull

#endif
