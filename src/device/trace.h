/* Trace points of devices: what a driver's author or a debugger of devices wants to see pass by. */
#ifndef DEVICE_TRACE_H
#define DEVICE_TRACE_H

#include "base/trace.h"

#define DEVICE_TRACE(X)                                                                                             \
    X(device, ioapic_pin, (unsigned pin, bool level), "pin %u %s", pin, level ? "up" : "down")                      \
    X(device, lapic_accept, (unsigned cpu, u8 vector, bool level), "cpu%u: vector 0x%x, %s", cpu, vector,           \
      level ? "level" : "edge")                                                                                     \
    X(device, lapic_ack, (unsigned cpu, int vector), "cpu%u: takes vector 0x%x", cpu, (unsigned)vector)             \
    X(device, lapic_eoi, (unsigned cpu, unsigned vector), "cpu%u: vector 0x%x is done", cpu, vector)                \
    X(device, lapic_ipi, (unsigned cpu, u64 icr), "cpu%u: ICR 0x%" PRIx64, cpu, icr)                                \
    X(device, lapic_timer, (unsigned cpu, s64 in_ns), "cpu%u: in %" PRId64 " ns", cpu, in_ns)                       \
    X(device, msi, (u64 addr, u32 data), "0x%" PRIx64 ", data 0x%x", addr, data)                                    \
    X(device, msix, (const char *name, unsigned vector), "%s: vector %u", name, vector)                             \
    X(device, pci_write, (const char *name, unsigned offset, unsigned size, u64 value), "%s: [0x%x]/%u = 0x%" PRIx64, \
      name, offset, size, value)                                                                                    \
    X(device, virtio_status, (const char *name, unsigned status), "%s: status 0x%x", name, status)                  \
    X(device, virtio_features, (const char *name, u64 offered, u64 taken),                                          \
      "%s: offered 0x%" PRIx64 ", taken 0x%" PRIx64, name, offered, taken)                                          \
    X(device, virtio_queue, (const char *name, unsigned queue, unsigned size, u64 desc, u64 avail, u64 used),       \
      "%s: queue %u of %u, descriptors at 0x%" PRIx64 ", available 0x%" PRIx64 ", used 0x%" PRIx64, name, queue,    \
      size, desc, avail, used)                                                                                      \
    X(device, virtio_kick, (const char *name, unsigned queue), "%s: queue %u", name, queue)                         \
    X(device, virtio_interrupt, (const char *name, unsigned queue, unsigned used),                                  \
      "%s: queue %u, used index %u", name, queue, used)                                                             \
    X(device, virtio_fail, (const char *name, const char *why), "%s: %s", name, why)                                \
    X(device, blk_request, (const char *name, unsigned type, u64 sector, u64 bytes),                                \
      "%s: type %u, sector %" PRIu64 ", %" PRIu64 " bytes", name, type, sector, bytes)                              \
    X(device, blk_done, (const char *name, int result), "%s: after waiting: %d", name, result)                      \
    X(device, net_send, (const char *name, u64 bytes), "%s: %" PRIu64 " bytes", name, bytes)                        \
    X(device, net_receive, (const char *name, u64 bytes, int buffers), "%s: %" PRIu64 " bytes into %d buffers",     \
      name, bytes, buffers)                                                                                         \
    X(device, acpi_sleep, (unsigned control), "PM1 control 0x%x", control)

TRACE_PROBES(DEVICE_TRACE)
extern const struct trace_list device_trace;

#endif
