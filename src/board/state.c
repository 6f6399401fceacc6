/*
 * Which parts of the board have saved state. Interrupt controllers of an accelerator are saved as ours (irqchip.c): by
 * the same tables and checks, but they are not ours to set going.
 *
 * Order matters when loading: whoever receives lines comes before those that drive them.
 */
#include "board/parts.h"
#include "device/pc_state.h"

static int add(struct board *b, struct state_set *set, const struct pc_state *s, u32 instance,
               void *device, struct err *err)
{
    struct state_entry *e = &b->state[b->nstates];
    int rc;

    *e = (struct state_entry){.name = s->name,
                              .instance = instance,
                              .table = s->table,
                              .object = (u8 *)device + s->object,
                              .opaque = device,
                              .check = s->check,
                              .pre_save = s->pre_save,
                              .post_load = s->post_load};
    if (!b->has_intc && (device == &b->ioapic || device == &b->pic || device == &b->pit || s == &lapic_pc_state))
        e->pre_save = NULL, e->post_load = NULL;
    rc = state_set_add(set, e, err);
    if (!rc)
        b->nstates++;
    return rc;
}

static int add_controllers(struct board *b, struct state_set *set, struct err *err)
{
    int rc = 0;

    for (unsigned i = 0; i < b->config.cpus && !rc; i++)
        rc = add(b, set, &lapic_pc_state, i, &b->lapic.cpu[i], err);
    rc = rc ? rc : add(b, set, &ioapic_pc_state, 0, &b->ioapic, err);
    rc = rc ? rc : add(b, set, &pic_pc_state, 0, &b->pic, err);
    rc = rc ? rc : add(b, set, &pit_pc_state, 0, &b->pit, err);
    if (!rc && b->has_hpet)
        rc = add(b, set, &hpet_pc_state, 0, &b->hpet, err);
    return rc;
}

int board_add_state(struct board *b, struct state_set *set, struct err *err)
{
    int rc = add_controllers(b, set, err);

    rc = rc ? rc : add(b, set, &rtc_pc_state, 0, &b->rtc, err);
    rc = rc ? rc : add(b, set, &serial_pc_state, 0, &b->com1, err);
    rc = rc ? rc : add(b, set, &acpi_pm_pc_state, 0, &b->pm, err);
    rc = rc ? rc : add(b, set, &i8042_pc_state, 0, &b->i8042, err);
    rc = rc ? rc : add(b, set, &fw_cfg_pc_state, 0, &b->fw_cfg, err);
    if (rc)
        board_remove_state(b, set);
    return rc;
}

void board_remove_state(struct board *b, struct state_set *set)
{
    while (b->nstates)
        state_set_remove(set, &b->state[--b->nstates]);
}
