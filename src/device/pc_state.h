/*
 * The saved state of the PC's fixed devices: field tables, what hostile files are checked for, and how loaded state
 * is taken over. The board registers them.
 *
 * Threads: with all vCPUs and the main loop's timers quiet.
 */
#ifndef DEVICE_PC_STATE_H
#define DEVICE_PC_STATE_H

#include "state/set.h"

/* The hooks get the device (struct pic, struct lapic, ...) as opaque; the object is its member `s`. */
struct pc_state {
    const char *name; /* of the section */
    const struct state_table *table;
    size_t object; /* offset of the state in the device */
    int (*check)(void *opaque, const void *scratch, struct err *err);
    void (*pre_save)(void *opaque);
    int (*post_load)(void *opaque, struct err *err);
};

extern const struct pc_state pic_pc_state, pit_pc_state, ioapic_pc_state, lapic_pc_state;
extern const struct pc_state rtc_pc_state, hpet_pc_state, serial_pc_state, acpi_pm_pc_state,
    i8042_pc_state, fw_cfg_pc_state;

#endif
