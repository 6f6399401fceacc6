/*
 * `trapeze run`: reads the options into a configuration, builds the machine, runs it, and turns the
 * way it ended into an exit status.
 */
#include "cmd/launch.h"
#include "cmd/status.h"
#include "cmd/verb.h"
#include "vm/option.h"
#include "vm/trace.h"
#include "vm/vm.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define RUN_OPTIONS 32

enum { OWN_DETACH, OWN_DUMP_CONFIG, OWN_HELP, OWN_REPORT, OWN_COUNT };

/* The options of the verb itself, in front of the machine's; sorted into them for the help text. */
static const struct args_spec own[OWN_COUNT] = {
    [OWN_DETACH] = {"detach", 'd', NULL,
                    "run in the background: print the guest's id when it runs"},
    [OWN_DUMP_CONFIG] = {"dump-config", 0, NULL,
                         "print the configuration as options, one a line, and end"},
    [OWN_HELP] = {"help", 'h', NULL, "show this help"},
    [OWN_REPORT] = {"report", 0, NULL,
                    "at the end, say which accelerator ran, why, and how long booting took"},
};

static const struct args_spec *options(void)
{
    static struct args_spec all[RUN_OPTIONS]; /* filled the same way every time */
    unsigned n = OWN_COUNT;

    memcpy(all, own, sizeof(own));
    for (const struct vm_option *o = vm_options; o->name && n + 1 < ARRAY_LEN(all); o++)
        all[n++] = (struct args_spec){o->name, o->letter, o->arg, o->help};
    return all;
}

struct request {
    struct vm_config config;
    bool background, dump, help, report, list_traces;
    bool named;
};

static int read_option(struct request *r, int index, const char *value, struct err *err)
{
    if (index == OWN_DETACH) {
        r->background = true;
        return 0;
    }
    if (index == OWN_DUMP_CONFIG) {
        r->dump = true;
        return 0;
    }
    if (index == OWN_HELP) {
        r->help = true;
        return 0;
    }
    if (index == OWN_REPORT) {
        r->report = true;
        return 0;
    }
    const struct vm_option *o = &vm_options[index - OWN_COUNT];
    if (o->parse(&r->config, value, err))
        return err_wrap(err, "--%s", o->name);
    r->named |= !strcmp(o->name, "name");
    return 0;
}

/* One operand is the kernel: `trapeze run vmlinuz` is what people try first. */
static int read_operand(struct request *r, const char *value, struct err *err)
{
    if (r->config.kernel)
        return err_set(err, EINVAL, "'%s' is too many: the kernel is already '%s'", value,
                       r->config.kernel);
    r->config.kernel = strdup(value);
    return r->config.kernel ? 0 : err_sys(err, ENOMEM, "cannot keep the kernel's name");
}

static int read_request(struct request *r, char **argv, struct err *err)
{
    struct args args;

    vm_config_init(&r->config);
    args_init(&args, options(), argv);
    for (int i; (i = args_next(&args, err)) != ARGS_END;) {
        if (i == ARGS_BAD)
            return -err->code;
        int rc = i == ARGS_OPERAND ? read_operand(r, args.value, err)
                                   : read_option(r, i, args.value, err);
        if (rc)
            return rc;
    }
    const char *root = getenv("TRAPEZE_ROOT");
    if (!r->config.root && root && *root && !(r->config.root = strdup(root)))
        return err_sys(err, ENOMEM, "cannot keep the folder's name");
    r->list_traces = r->config.trace && !strcmp(r->config.trace, "help");
    vm_config_consoles(&r->config, r->background);
    if (r->help || r->dump || r->list_traces)
        return 0;
    if (r->config.trace && trace_enable(vm_traces, r->config.trace, err))
        return err_wrap(err, "--trace ('--trace help' lists them)");
    bool stdio =
        r->config.serial.kind == VM_SERIAL_STDIO || r->config.console.kind == VM_SERIAL_STDIO;
    if (r->background && stdio)
        return err_set(
            err, EINVAL,
            "--%s stdio: a machine in the background has no terminal; with log, the default, "
            "'trapeze logs' and 'trapeze attach' show what it says",
            r->config.serial.kind == VM_SERIAL_STDIO ? "serial" : "console");
    return vm_config_check(&r->config, err);
}

static int run_machine(struct request *r)
{
    struct launch l = {.verb = "run",
                       .config = &r->config,
                       .named = r->named,
                       .background = r->background,
                       .report = r->report};

    return launch(&l);
}

static int run(const struct verb *self, char **argv)
{
    struct request r = {0};
    struct err err = ERR_INIT;
    int status = STATUS_OK;

    if (read_request(&r, argv, &err)) {
        status = verb_usage_error(self, &err);
    } else if (r.help) {
        verb_print_help(self, stdout);
    } else if (r.dump) {
        vm_options_print(&r.config, stdout);
    } else if (r.list_traces) {
        trace_print_names(vm_traces, stdout);
    } else {
        status = run_machine(&r);
    }
    vm_config_fini(&r.config);
    return status;
}

const struct verb verb_run = {
    .name = "run",
    .operands = "[KERNEL]",
    .summary = "Run a machine, in the foreground or in the background",
    .options = options,
    .notes = "On a terminal, Ctrl-A X stops the machine and Ctrl-A H shows the other keys.\n"
             "SIGTERM presses the machine's power button; a second one stops it.\n\n"
             "Exit status: 0 powered off, 2 wrong command line, 4 the host failed, 6 the guest\n"
             "panicked, 8 triple fault, 10 stopped from outside; odd: the guest's own, through\n"
             "--debug-exit.\n",
    .run = run,
};
