/*
 * Small ports. pvpanic: the QEMU project's specification "pvpanic device"; debug console: port 0xe9
 * of Bochs, which reads as its own number; debug exit: QEMU's isa-debug-exit.
 */
#include "device/ports.h"
#include <string.h>

#define PVPANIC_PANICKED 1
#define PVPANIC_CRASH_LOADED 2

static u64 pvpanic_read(void *opaque, u64 offset, unsigned size)
{
    return PVPANIC_PANICKED | PVPANIC_CRASH_LOADED; /* the events it understands */
}

static void pvpanic_write(void *opaque, u64 offset, unsigned size, u64 value)
{
    struct ports *p = opaque;

    if (value & PVPANIC_PANICKED)
        event_send(&p->config.sink, MACHINE_PANIC, 0);
    else if (value & PVPANIC_CRASH_LOADED)
        event_send(&p->config.sink, MACHINE_CRASH_KERNEL, 0);
}

static u64 console_read(void *opaque, u64 offset, unsigned size)
{
    struct ports *p = opaque;

    return p->config.debug_console & 0xff;
}

static void console_write(void *opaque, u64 offset, unsigned size, u64 value)
{
    struct ports *p = opaque;

    for (unsigned i = 0; i < size; i++) {
        if (p->config.console_write)
            p->config.console_write(p->config.console_opaque, (u8)(value >> 8 * i));
    }
}

static u64 exit_read(void *opaque, u64 offset, unsigned size)
{
    return 0;
}

static void exit_write(void *opaque, u64 offset, unsigned size, u64 value)
{
    struct ports *p = opaque;

    event_send(&p->config.sink, MACHINE_DEBUG_EXIT, (int)((value << 1 | 1) & 0xff));
}

static u64 ignored_read(void *opaque, u64 offset, unsigned size)
{
    return ~0ull;
}

static void ignored_write(void *opaque, u64 offset, unsigned size, u64 value)
{
}

static const struct io_ops pvpanic_ops = {.read = pvpanic_read, .write = pvpanic_write};
static const struct io_ops console_ops = {.read = console_read, .write = console_write};
static const struct io_ops exit_ops = {.read = exit_read, .write = exit_write};
static const struct io_ops ignored_ops = {.read = ignored_read, .write = ignored_write};

void ports_init(struct ports *p, const struct ports_config *config)
{
    static const u16 ignored[PORTS_IGNORED] = {0x80, 0xed};

    memset(p, 0, sizeof(*p));
    p->config = *config;
    p->pvpanic = (struct io_region){
        .name = "pvpanic", .base = config->pvpanic, .len = 1, .ops = &pvpanic_ops, .opaque = p};
    p->console = (struct io_region){.name = "debug-console",
                                    .base = config->debug_console,
                                    .len = 1,
                                    .ops = &console_ops,
                                    .opaque = p};
    /* four bytes, as in QEMU, so that a guest may write it at any width */
    p->exit = (struct io_region){
        .name = "debug-exit", .base = config->debug_exit, .len = 4, .ops = &exit_ops, .opaque = p};
    for (unsigned i = 0; i < PORTS_IGNORED; i++) {
        p->ignored[i] = (struct io_region){
            .name = "delay", .base = ignored[i], .len = 1, .ops = &ignored_ops, .opaque = p};
    }
}

int ports_map(struct ports *p, struct aspace *pio, struct err *err)
{
    struct io_region *wanted[] = {&p->pvpanic, &p->console, &p->exit};
    int rc = 0;

    for (unsigned i = 0; i < ARRAY_LEN(wanted) && !rc; i++) {
        if (wanted[i]->base != PORTS_NONE)
            rc = aspace_map(pio, wanted[i], err);
    }
    /* a debug port may sit on one of these: then they are its */
    for (unsigned i = 0; i < PORTS_IGNORED && !rc; i++)
        aspace_map(pio, &p->ignored[i], NULL);
    return rc;
}
