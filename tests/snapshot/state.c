/*
 * A machine's description and state: what is saved and loaded is saved the same again, what is wrong is refused.
 * usage: state KERNEL
 */
#include "unit.h"

#include "vm/state.h"
#include "x86/cpu_state.h"
#include "x86/cpu.h"
#include <unistd.h>

static const char *kernel;

static void make_config(struct vm_config *c)
{
    vm_config_init(c);
    c->kernel = strdup(kernel);
    c->append = strdup("a b=c");
    snprintf(c->name, sizeof(c->name), "origin");
    snprintf(c->accel, sizeof(c->accel), "bt");
    c->serial.kind = VM_SERIAL_NULL;
    c->memory_bytes = 64 * MiB;
    c->cpus = 2;
    c->net[0].kind = VM_NET_NONE;
    c->nnets = 1;
    c->no_reboot = true;
}

/* A new machine with its description and state. */
static void save_new(struct state_buf *config, struct state_buf *machine)
{
    struct state_sink to_config = state_buf_sink(config), to_machine = state_buf_sink(machine);
    struct err err = ERR_INIT;
    struct vm_config c;
    struct vm *vm;

    make_config(&c);
    if (vm_new(&c, &vm, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(vm_config_save(&c, vm_identity(vm), &to_config, &err), 0);
    assert_int_equal(vm_pause(vm), 0);
    assert_int_equal(vm_state_save(vm, &to_machine, &err), 0);
    vm_free(vm);
    vm_config_fini(&c);
}

static int load_config(struct state_buf *b, struct vm_config *c, struct vm_identity *id,
                       struct err *err)
{
    struct state_source from = state_buf_source(b);

    b->at = 0;
    return vm_config_load(&from, c, id, err);
}

/* The text of a machine without its times, which differ from one reading to the next. */
static char *text_of(struct vm *vm)
{
    static const char *const times[] = {"_ns", "tsc", "wall", "offset_s"};
    char *all = NULL, *kept = NULL, *save = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&all, &len);

    vm_state_print(vm, out);
    fclose(out);
    out = open_memstream(&kept, &len);
    for (char *line = strtok_r(all, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        bool is_time = false;

        for (size_t i = 0; i < ARRAY_LEN(times); i++)
            is_time |= strstr(line, times[i]) != NULL;
        if (!is_time)
            fprintf(out, "%s\n", line);
    }
    fclose(out);
    free(all);
    return kept;
}

static void test_round_trip(void **state)
{
    struct state_buf config = {0}, machine = {0}, again = {0};
    struct state_source from = state_buf_source(&machine);
    struct state_sink to = state_buf_sink(&again);
    struct err err = ERR_INIT;
    struct vm_identity id;
    struct vm_config c;
    struct vm *vm;

    save_new(&config, &machine);
    if (load_config(&config, &c, &id, &err))
        fail_msg("%s", err.msg);
    assert_string_equal(c.name, "origin");
    assert_string_equal(c.append, "a b=c");
    assert_null(c.kernel);
    assert_int_equal(c.cpus, 2);
    assert_true(c.no_reboot);
    if (vm_new_from(&c, &id, &vm, &err) || vm_state_load(vm, &from, VM_CLOCK_FROZEN, &err))
        fail_msg("%s", err.msg);
    auto_free char *loaded = text_of(vm);
    assert_int_equal(vm_state_save(vm, &to, &err), 0);
    auto_free char *saved = text_of(vm);
    assert_string_equal(loaded, saved);
    assert_int_equal(machine.len, again.len);
    assert_non_null(strstr(saved, "cpu 1"));
    assert_non_null(strstr(saved, "lapic 1"));
    assert_non_null(strstr(saved, "virtio"));
    vm_free(vm);
    vm_config_fini(&c);
    state_buf_fini(&config);
    state_buf_fini(&machine);
    state_buf_fini(&again);
}

/* Whatever byte is altered, wherever a stream ends: refused with a reason, and nothing is leaked. */
static void test_damaged_config(void **state)
{
    struct state_buf config = {0}, machine = {0};
    struct vm_identity id;
    struct vm_config c;

    save_new(&config, &machine);
    size_t len = config.len;
    for (size_t i = 0; i < len; i += 1 + i / 64) {
        struct err err = ERR_INIT;

        config.data[i] ^= 0x40;
        assert_true(load_config(&config, &c, &id, &err) < 0);
        assert_true(*err.msg);
        config.data[i] ^= 0x40;
        config.len = i;
        assert_true(load_config(&config, &c, &id, &err) < 0);
        config.len = len;
    }
    state_buf_fini(&config);
    state_buf_fini(&machine);
}

/* A processor model that no host built, or that this one cannot be. */
static void test_fit(void **state)
{
    struct state_buf config = {0}, machine = {0};
    struct err err = ERR_INIT;
    struct vm_identity good, bad;
    struct vm_config c;

    save_new(&config, &machine);
    assert_int_equal(load_config(&config, &c, &good, &err), 0);
    assert_int_equal(vm_identity_fits(&good, &err), 0);
    bad = good;
    bad.model.tsc_khz *= 2;
    assert_int_equal(vm_identity_fits(&bad, &err), -ENOTSUP);
    assert_non_null(strstr(err.msg, "time stamp counter"));
    bad = good;
    for (unsigned i = 0; i < bad.model.nleaves; i++)
        if (bad.model.leaf[i].leaf == 7 && bad.model.leaf[i].subleaf == 0)
            bad.model.leaf[i].ebx |= (u32)BIT(14); /* MPX, which no model of ours has */
    assert_int_equal(vm_identity_fits(&bad, &err), -ENOTSUP);
    assert_non_null(strstr(err.msg, "0x4000 of CPUID leaf 0x7"));
    bad = good;
    bad.model.xcr0_mask |= BIT(9);
    assert_int_equal(vm_identity_fits(&bad, &err), -EBADMSG);
    bad = good;
    bad.model.nleaves = CPUID_LEAVES + 1;
    assert_int_equal(vm_identity_fits(&bad, &err), -EBADMSG);
    vm_config_fini(&c);
    state_buf_fini(&config);
    state_buf_fini(&machine);
}

static void test_fork(void **state)
{
    struct state_buf config = {0}, machine = {0};
    struct vm_identity origin, clone;
    struct err err = ERR_INIT;
    struct vm_config c;

    save_new(&config, &machine);
    assert_int_equal(load_config(&config, &c, &origin, &err), 0);
    clone = origin;
    vm_identity_fork(&clone, false);
    assert_memory_not_equal(clone.generation, origin.generation, 16);
    assert_memory_not_equal(clone.uuid, origin.uuid, 16);
    assert_memory_equal(clone.mac, origin.mac, sizeof(clone.mac));
    vm_identity_fork(&clone, true);
    assert_memory_not_equal(clone.mac, origin.mac, 6);
    assert_int_equal(clone.mac[0], 0x52);
    vm_config_fini(&c);
    state_buf_fini(&config);
    state_buf_fini(&machine);
}

/* Each is something that a file could say and no processor could be. */
static void test_impossible_cpu(void **state)
{
    struct state_buf config = {0}, machine = {0};
    struct vm_identity id;
    struct err err = ERR_INIT;
    struct vm_config c;
    struct x86_cpu *cpu = aligned_alloc(64, sizeof(*cpu));

    save_new(&config, &machine);
    assert_int_equal(load_config(&config, &c, &id, &err), 0);
    for (unsigned i = 0; i < 11; i++) {
        x86_cpu_reset(cpu, true);
        assert_int_equal(x86_cpu_check(&id.model, cpu, &err), 0);
        switch (i) {
        case 0:
            cpu->activity = 3;
            break;
        case 1:
            cpu->cr0 |= BIT(32);
            break;
        case 2:
            cpu->cr0 |= CR0_PG;
            break;
        case 3:
            cpu->cr4 |= BIT(13);
            break;
        case 4:
            cpu->msr.efer = EFER_LMA;
            break;
        case 5:
            cpu->xcr0 = BIT(2);
            break;
        case 6:
            cpu->xsave[519] = 1;
            break;
        case 7:
            cpu->rflags |= BIT(40);
            break;
        case 8:
            cpu->dr7 = BIT(32);
            break;
        case 9:
            cpu->event_valid = 2;
            break;
        case 10:
            cpu->xsave[27] = 1;
            break;
        }
        assert_int_equal(x86_cpu_check(&id.model, cpu, &err), -EINVAL);
    }
    free(cpu);
    vm_config_fini(&c);
    state_buf_fini(&config);
    state_buf_fini(&machine);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_damaged_config),
        cmocka_unit_test(test_fit),
        cmocka_unit_test(test_fork),
        cmocka_unit_test(test_impossible_cpu),
    };

    if (argc != 2)
        return 2;
    kernel = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
