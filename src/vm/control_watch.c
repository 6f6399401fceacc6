/*
 * Verbs of the control socket for those who watch: what the machine is made of, and what it uses. Main loop; counters are
 * read while others count.
 */
#include "vm/control.h"

#include "device/virtio.h"
#include "vm/parts.h"
#include <sys/stat.h>
#include <time.h>

static json_int_t load(const atomic_ullong *counter)
{
    return (json_int_t)atomic_load_explicit(counter, memory_order_relaxed);
}

/* Guest memory that has been touched takes blocks of its memfd. */
static json_int_t touched_bytes(const struct vm *vm)
{
    struct stat st;

    return fstat(vm->ram.memfd, &st) ? 0 : (json_int_t)st.st_blocks * 512;
}

static json_t *disk_stats(const struct virtio *v)
{
    const struct traffic *t = &v->traffic;

    return json_pack("{s:I,s:I,s:I,s:I}", "read_bytes", load(&t->in_bytes), "reads",
                     load(&t->in_count), "written_bytes", load(&t->out_bytes), "writes",
                     load(&t->out_count));
}

static json_t *net_stats(const struct virtio *v)
{
    const struct traffic *t = &v->traffic;

    return json_pack("{s:I,s:I,s:I,s:I}", "received_bytes", load(&t->in_bytes), "received_packets",
                     load(&t->in_count), "sent_bytes", load(&t->out_bytes), "sent_packets",
                     load(&t->out_count));
}

static json_t *all_stats(const struct vm *vm)
{
    json_t *disks = json_array(), *nets = json_array();
    struct timespec cpu = {0};

    for (unsigned i = 0; i < VM_DISKS; i++)
        if (vm->disk_device[i])
            json_array_append_new(disks, disk_stats(vm->disk_device[i]));
    for (unsigned i = 0; i < VM_NETS; i++)
        if (vm->net_device[i])
            json_array_append_new(nets, net_stats(vm->net_device[i]));
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    return json_pack("{s:I,s:I,s:I,s:I,s:o,s:o}", "time_ns", (json_int_t)vm_now_ns(), "cpu_ns",
                     (json_int_t)(cpu.tv_sec * NS_PER_S + cpu.tv_nsec), "memory",
                     (json_int_t)vm->config->memory_bytes, "memory_touched", touched_bytes(vm),
                     "disks", disks, "nets", nets);
}

void control_do_stats(struct control_call *call)
{
    control_reply(call, all_stats(call->vm));
}

static json_t *describe_disk(const struct vm *vm, unsigned i)
{
    const struct block *b = vm->disk[i];

    return json_pack("{s:s,s:s,s:b,s:I}", "path", block_layer_path(b, 0), "format",
                     block_layer_format(b, 0), "readonly", vm->config->disk[i].readonly, "size",
                     (json_int_t)block_size(b));
}

void control_do_inspect(struct control_call *call)
{
    const struct vm *vm = call->vm;
    json_t *disks = json_array();

    for (unsigned i = 0; i < vm->config->ndisks; i++)
        json_array_append_new(disks, describe_disk(vm, i));
    control_reply(call, json_pack("{s:s,s:s,s:s,s:s,s:i,s:I,s:I,s:o,s:o}", "state",
                                  control_state(vm), "name", vm->config->name, "accel",
                                  vm->report.accel, "accel_reason", vm->report.why, "cpus",
                                  (int)vm->ncpus, "memory", (json_int_t)vm->config->memory_bytes,
                                  "uptime_ns", (json_int_t)(vm_now_ns() - vm->start_ns), "disks",
                                  disks, "stats", all_stats(vm)));
}
