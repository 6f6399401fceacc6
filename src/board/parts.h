/* The board's inside, for the files of this folder. */
#ifndef BOARD_PARTS_H
#define BOARD_PARTS_H

#include "board/board.h"
#include "device/acpi_pm.h"
#include "device/fw_cfg.h"
#include "device/hpet.h"
#include "device/i8042.h"
#include "device/ioapic.h"
#include "device/lapic.h"
#include "device/pic.h"
#include "device/pit.h"
#include "device/ports.h"
#include "device/rtc.h"
#include "device/serial.h"

#define BOARD_STATES (10 + MEMMAP_CPUS)

struct board {
    struct board_config config;
    struct aspace mmio, pio;
    bool has_intc;             /* pic, pit, ioapic and lapic are ours */
    atomic_uint irqchip_lines; /* levels of the accelerator's lines, when it has the controllers */
    struct pic pic;
    struct pit pit;
    struct ioapic ioapic;
    struct lapic_bus lapic;
    struct hpet hpet;
    bool has_hpet;
    struct rtc rtc;
    struct serial com1;
    struct acpi_pm pm;
    struct i8042 i8042;
    struct ports ports;
    struct fw_cfg fw_cfg;
    struct pci_host *pci;
    u64 mmio64_base, mmio64_len;
    struct state_entry state[BOARD_STATES];
    unsigned nstates;
    u8 generation[16];        /* VM generation id: this machine's and no clone's */
    struct boot_image *image; /* NULL: nothing opened */
    const char *boot_way;
    bool boot_kaslr; /* the board has randomized addresses */
};

/* Forgets the opened kernel. */
void boot_close(struct board *b);
/* The interrupt controllers as an accelerator without its own sees them. */
struct accel_intc board_intc(struct board *b);
/* An accelerator's interrupt controllers as state of our devices, and back (irqchip.c). */
void irqchip_from_registers(struct board *b, const struct x86_irqchip *k, s64 now_ns);
void irqchip_to_registers(struct board *b, struct x86_irqchip *k, s64 now_ns);

#endif
