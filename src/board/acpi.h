/* The ACPI tables of the board. */
#ifndef BOARD_ACPI_H
#define BOARD_ACPI_H

#include "board/aml.h"
#include "board/parts.h"

#define ACPI_VMGENID (MEMMAP_ACPI + MEMMAP_ACPI_LEN - 4 * KiB) /* 16 bytes, in guest memory */

/* Writes all tables into guest memory at MEMMAP_ACPI; the RSDP comes first. -ENOSPC if they do not
 * fit. */
int acpi_write_tables(struct board *b, struct err *err);
/* The definition block without its header. */
void acpi_dsdt_body(struct aml *a, const struct board *b);

#endif
