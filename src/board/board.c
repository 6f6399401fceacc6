/*
 * A PC put together: which device sits where, and where its interrupt goes.
 *
 * ISA interrupt n reaches input n of the 8259s and pin n of the I/O APIC, except that interrupt 0
 * (PIT) is pin 2, as the MADT's override says. PCI's lines INTA-INTD reach pins 16-23 only.
 * Messages go to the local APICs. When the accelerator has the controllers, all of this is handed
 * over to it.
 *
 * Threads: see board.h; the interrupt functions here run in any.
 */
#include "board/acpi.h"
#include "board/parts.h"
#include "board/trace.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

_Static_assert(KICK_INTR == (int)VCPU_EV_INTR && KICK_NMI == (int)VCPU_EV_NMI, "kick bits");
_Static_assert(KICK_INIT == (int)VCPU_EV_INIT && KICK_SIPI == (int)VCPU_EV_SIPI, "kick bits");
_Static_assert(MEMMAP_CPUS <= LAPIC_CPUS && MEMMAP_GSIS == IOAPIC_PINS, "limits");

enum { ISA_PIT = 0, ISA_KEYBOARD = 1, ISA_COM1 = 4, ISA_RTC = 8, ISA_SCI = MEMMAP_GSI_SCI };

/* Only changes go out: each is a system call, and before the accelerator exists all lines are low. */
static void set_irqchip_line(struct board *b, unsigned gsi, bool level)
{
    u32 bit = 1u << gsi, old;

    if (level)
        old = atomic_fetch_or(&b->irqchip_lines, bit);
    else
        old = atomic_fetch_and(&b->irqchip_lines, ~bit);
    if (level != ((old & bit) != 0))
        b->config.irqchip.irq_line(b->config.irqchip.opaque, gsi, level);
}

static void set_gsi(void *opaque, unsigned gsi, bool level)
{
    struct board *b = opaque;

    if (!b->has_intc) {
        set_irqchip_line(b, gsi, level);
        return;
    }
    if (gsi < 16)
        pic_set(&b->pic, gsi, level);
    ioapic_set(&b->ioapic, gsi == ISA_PIT ? MEMMAP_GSI_PIT : gsi, level);
}

static void send_msi(void *opaque, u64 addr, u32 data)
{
    struct board *b = opaque;

    if (b->has_intc)
        lapic_bus_msi(&b->lapic, addr, data);
    else
        b->config.irqchip.msi(b->config.irqchip.opaque, addr, data);
}

static void pic_output(void *opaque, unsigned pin, bool level)
{
    struct board *b = opaque;

    lapic_bus_extint(&b->lapic, level);
}

struct irq board_irq(struct board *b, unsigned gsi)
{
    return (struct irq){.set = set_gsi, .opaque = b, .pin = gsi};
}

struct msi_sink board_msi(struct board *b)
{
    return (struct msi_sink){.send = send_msi, .opaque = b};
}

static int check_config(const struct board_config *c, struct err *err)
{
    if (c->cpus < 1 || c->cpus > MEMMAP_CPUS)
        return err_set(err, EINVAL, "%s: %u processors; there can be 1 to %d", c->name, c->cpus,
                       MEMMAP_CPUS);
    if (!c->ram || !c->model || !c->timers)
        return err_set(err, EINVAL, "%s: the board needs memory, a processor model and timers",
                       c->name);
    return 0;
}

static void place_mmio64(struct board *b)
{
    u64 ram_end = b->config.ram->size > GMEM_LOW_MAX
                      ? GMEM_HIGH_BASE + (b->config.ram->size - GMEM_LOW_MAX)
                      : GMEM_HIGH_BASE;
    u64 limit = BIT(b->config.model->phys_bits ? MIN(b->config.model->phys_bits, 46) : 36);

    b->mmio64_base = ALIGN_UP(ram_end, MEMMAP_MMIO64_LEN);
    b->mmio64_len = range_fits(b->mmio64_base, MEMMAP_MMIO64_LEN, limit) ? MEMMAP_MMIO64_LEN : 0;
}

/* 8259s, PIT, I/O APIC and local APICs: what an accelerator may bring itself. */
static int add_controllers(struct board *b, struct err *err)
{
    int rc;

    lapic_bus_init(&b->lapic, b->config.cpus, b->config.model->tsc_khz);
    b->lapic.kicker = b->config.kicker;
    ioapic_init(&b->ioapic, MEMMAP_IOAPIC, &b->lapic);
    b->lapic.eoi = ioapic_eoi;
    b->lapic.eoi_opaque = &b->ioapic;
    pic_init(&b->pic, (struct irq){.set = pic_output, .opaque = b});
    b->lapic.pic_ack = pic_acknowledge;
    b->lapic.pic_opaque = &b->pic;
    pit_init(&b->pit, b->config.timers, board_irq(b, ISA_PIT));
    rc = lapic_bus_map(&b->lapic, &b->mmio, err);
    rc = rc ? rc : ioapic_map(&b->ioapic, &b->mmio, err);
    rc = rc ? rc : pic_map(&b->pic, &b->pio, err);
    return rc ? rc : pit_map(&b->pit, &b->pio, err);
}

/* In legacy replacement mode the HPET has the interrupts of PIT and RTC. */
static void hpet_legacy(void *opaque, bool on)
{
    struct board *b = opaque;

    pit_enable_irq(&b->pit, !on);
    rtc_enable_irq(&b->rtc, !on);
}

static int add_hpet(struct board *b, struct err *err)
{
    b->has_hpet = true;
    hpet_init(&b->hpet, MEMMAP_HPET, b->config.timers, board_irq(b, 0));
    b->hpet.legacy = hpet_legacy;
    b->hpet.legacy_opaque = b;
    return hpet_map(&b->hpet, &b->mmio, err);
}

static int add_devices(struct board *b, struct err *err)
{
    const struct board_config *c = &b->config;
    struct ports_config ports = {
        .pvpanic = MEMMAP_PORT_PVPANIC,
        .debug_console = c->debug_console,
        .debug_exit = c->debug_exit,
        .console_write = c->debug_write,
        .console_opaque = c->debug_opaque,
        .sink = c->sink,
    };
    u64 ram = c->ram->size;
    int rc;

    rtc_init(&b->rtc, c->timers, board_irq(b, ISA_RTC));
    rtc_set_memory(&b->rtc, MIN(ram, GMEM_LOW_MAX), ram - MIN(ram, GMEM_LOW_MAX), c->cpus);
    serial_init(&b->com1, 0x3f8, board_irq(b, ISA_COM1), c->timers, c->console);
    acpi_pm_init(&b->pm, MEMMAP_PORT_PM, c->timers, board_irq(b, ISA_SCI), c->sink);
    i8042_init(&b->i8042, board_irq(b, ISA_KEYBOARD), c->sink);
    ports_init(&b->ports, &ports);
    rc = rtc_map(&b->rtc, &b->pio, err);
    rc = rc ? rc : serial_map(&b->com1, &b->pio, err);
    rc = rc ? rc : acpi_pm_map(&b->pm, &b->pio, err);
    rc = rc ? rc : i8042_map(&b->i8042, &b->pio, err);
    return rc ? rc : ports_map(&b->ports, &b->pio, err);
}

/* What firmware asks for first; more comes when there is firmware. */
static int add_fw_cfg(struct board *b, struct err *err)
{
    u64 ram = b->config.ram->size;
    u16 cpus = (u16)b->config.cpus;
    int rc;

    fw_cfg_init(&b->fw_cfg, MEMMAP_PORT_FW_CFG, b->config.ram);
    rc = fw_cfg_add(&b->fw_cfg, FW_CFG_RAM_SIZE, &ram, sizeof(ram), err);
    rc = rc ? rc : fw_cfg_add(&b->fw_cfg, FW_CFG_CPUS, &cpus, sizeof(cpus), err);
    rc = rc ? rc : fw_cfg_add(&b->fw_cfg, FW_CFG_MAX_CPUS, &cpus, sizeof(cpus), err);
    return rc ? rc : fw_cfg_map(&b->fw_cfg, &b->pio, err);
}

static int add_pci(struct board *b, struct err *err)
{
    struct pci_host_config c = {
        .mmio = &b->mmio,
        .pio = &b->pio,
        .msi = board_msi(b),
        .intx_gsi = MEMMAP_GSI_PCI,
        .ecam_base = MEMMAP_ECAM_BASE,
        .mmio32_base = MEMMAP_MMIO32_BASE,
        .mmio32_len = MEMMAP_MMIO32_LEN,
        .mmio64_base = b->mmio64_base,
        .mmio64_len = b->mmio64_len,
        .sink = b->config.sink,
    };

    for (unsigned i = 0; i < PCI_INTX_LINES; i++)
        c.intx[i] = board_irq(b, MEMMAP_GSI_PCI + i);
    return pci_host_new(&c, &b->pci, err);
}

static int build(struct board *b, struct err *err)
{
    int rc = 0;

    b->has_intc = !b->config.irqchip.irq_line;
    place_mmio64(b);
    if (b->has_intc)
        rc = add_controllers(b, err);
    else /* their state only */
        lapic_bus_init(&b->lapic, b->config.cpus, b->config.model->tsc_khz);
    rc = rc ? rc : add_devices(b, err);
    if (!rc && b->has_intc && b->config.hpet)
        rc = add_hpet(b, err);
    rc = rc ? rc : add_fw_cfg(b, err);
    rc = rc ? rc : add_pci(b, err);
    return rc;
}

int board_new(const struct board_config *config, struct board **ret_board, struct err *err)
{
    struct board *b;
    int rc = check_config(config, err);

    if (rc)
        return rc;
    b = calloc(1, sizeof(*b));
    if (!b)
        return err_set(err, ENOMEM, "%s: no memory for the board", config->name);
    b->config = *config;
    if (config->generation)
        memcpy(b->generation, config->generation, sizeof(b->generation));
    else if (getrandom(b->generation, sizeof(b->generation), 0) != sizeof(b->generation))
        b->generation[0] = 1; /* the host gives no randomness; it must not be zero all the same */
    aspace_init(&b->mmio, 1ull << 52);
    aspace_init(&b->pio, 65536);
    rc = build(b, err);
    if (rc) {
        board_free(b);
        return rc;
    }
    *ret_board = b;
    return 0;
}

void board_free(struct board *b)
{
    if (!b)
        return;
    boot_close(b);
    pci_host_free(b->pci);
    hpet_fini(&b->hpet);
    fw_cfg_fini(&b->fw_cfg);
    i8042_fini(&b->i8042);
    acpi_pm_fini(&b->pm);
    serial_fini(&b->com1);
    rtc_fini(&b->rtc);
    pit_fini(&b->pit);
    pic_fini(&b->pic);
    ioapic_fini(&b->ioapic);
    lapic_bus_fini(&b->lapic);
    aspace_fini(&b->mmio);
    aspace_fini(&b->pio);
    free(b);
}

void board_reset(struct board *b)
{
    trace_board_reset(b->config.name);
    pci_host_reset(b->pci);
    if (b->has_hpet)
        hpet_reset(&b->hpet);
    fw_cfg_reset(&b->fw_cfg);
    i8042_reset(&b->i8042);
    acpi_pm_reset(&b->pm);
    serial_reset(&b->com1);
    rtc_reset(&b->rtc);
    if (!b->has_intc)
        return;
    pit_reset(&b->pit);
    pic_reset(&b->pic);
    ioapic_reset(&b->ioapic);
    lapic_bus_reset(&b->lapic);
}

struct accel_machine board_accel_machine(struct board *b)
{
    return (struct accel_machine){
        .ram = b->config.ram,
        .mmio = &b->mmio,
        .pio = &b->pio,
        .model = b->config.model,
        .cpus = b->config.cpus,
        .intc = board_intc(b),
        .name = b->config.name,
    };
}

void board_set_cpu_timers(struct board *b, unsigned cpu, struct timerq *q)
{
    if (b->has_intc && cpu < b->config.cpus && q)
        lapic_set_timers(&b->lapic, cpu, q);
}

void board_enter_cpu(struct board *b, unsigned cpu)
{
    lapic_set_thread_cpu(cpu);
}

void board_set_tsc_offset(struct board *b, unsigned cpu, s64 offset)
{
    if (b->has_intc && cpu < b->config.cpus)
        lapic_set_tsc_offset(&b->lapic, cpu, offset);
}

struct pci_host *board_pci(struct board *b)
{
    return b->pci;
}

struct aspace *board_mmio(struct board *b)
{
    return &b->mmio;
}

struct aspace *board_pio(struct board *b)
{
    return &b->pio;
}

u64 board_mmio64_base(const struct board *b)
{
    return b->mmio64_base;
}

u64 board_mmio64_len(const struct board *b)
{
    return b->mmio64_len;
}

void board_announce_generation(struct board *b)
{
    struct irq irq = board_irq(b, MEMMAP_GSI_EVENT);

    /* A machine without RAM there has no tables either. */
    if (gmem_write(b->config.ram, ACPI_VMGENID, b->generation, sizeof(b->generation)))
        return;
    irq_set(&irq, true);
    irq_set(&irq, false);
}

void board_power_button(struct board *b)
{
    trace_board_power_button(b->config.name);
    acpi_pm_power_button(&b->pm);
}

void board_nmi(struct board *b)
{
    if (b->has_intc)
        lapic_bus_nmi(&b->lapic);
}
