/*
 * The table of machine options: reading and printing each. Longer values have their own file
 * (option_net.c). Any thread; no state.
 */
#include "vm/option.h"

#include "vm/option_net.h"
#include "vm/value.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int set_text(char **field, const char *value, const char *what, struct err *err)
{
    if (!*value)
        return err_set(err, EINVAL, "%s is empty", what);
    char *copy = strdup(value);
    if (!copy)
        return err_sys(err, ENOMEM, "cannot keep %s", what);
    free(*field);
    *field = copy;
    return 0;
}

static void print_text(FILE *out, const char *name, const char *value)
{
    if (value)
        fprintf(out, "%s=%s\n", name, value);
}

static int parse_accel(struct vm_config *c, const char *value, struct err *err)
{
    static const char *const names[] = {"auto", "bt", "kvm", NULL};
    unsigned index;

    if (value_choice(value, names, &index, err))
        return -err->code;
    snprintf(c->accel, sizeof(c->accel), "%s", value);
    return 0;
}

static void print_accel(const struct vm_config *c, FILE *out)
{
    print_text(out, "accel", c->accel);
}

static int parse_append(struct vm_config *c, const char *value, struct err *err)
{
    char *copy = strdup(value); /* may be empty: that clears it */

    if (!copy)
        return err_sys(err, ENOMEM, "cannot keep the kernel command line");
    free(c->append);
    c->append = copy;
    return 0;
}

static void print_append(const struct vm_config *c, FILE *out)
{
    print_text(out, "append", c->append);
}

static int parse_cpu(struct vm_config *c, const char *value, struct err *err)
{
    static const char *const models[] = {"x86-64-v2", "x86-64-v3", "host", NULL};
    unsigned index;

    if (value_choice(value, models, &index, err))
        return -err->code;
    snprintf(c->cpu, sizeof(c->cpu), "%s", value);
    return 0;
}

static void print_cpu(const struct vm_config *c, FILE *out)
{
    print_text(out, "cpu", c->cpu);
}

static int parse_cpus(struct vm_config *c, const char *value, struct err *err)
{
    u64 cpus;

    if (value_number(value, 1, VM_CPUS_MAX, &cpus, err))
        return -err->code;
    c->cpus = (unsigned)cpus;
    return 0;
}

static void print_cpus(const struct vm_config *c, FILE *out)
{
    fprintf(out, "cpus=%u\n", c->cpus);
}

/* PORT[,file=PATH] */
static int parse_debug_console(struct vm_config *c, const char *value, struct err *err)
{
    auto_free char *copy = strdup(value);
    char *cursor = copy;
    u64 port;

    if (!copy)
        return err_sys(err, ENOMEM, "cannot keep the port");
    if (value_number(value_item(&cursor), 0, UINT16_MAX, &port, err))
        return err_wrap(err, "the port");
    for (char *item; (item = value_item(&cursor));) {
        if (strncmp(item, "file=", 5))
            return err_set(err, EINVAL, "'%s' is not known after the port; allowed: file=PATH",
                           item);
        if (set_text(&c->debug_console_path, item + 5, "the path after file=", err))
            return -err->code;
    }
    c->has_debug_console = true;
    c->debug_console_port = (u16)port;
    return 0;
}

static void print_debug_console(const struct vm_config *c, FILE *out)
{
    char path[2 * 4096 + 1] = "";

    if (!c->has_debug_console)
        return;
    if (c->debug_console_path)
        value_quote(c->debug_console_path, path, sizeof(path));
    fprintf(out, "debug-console=0x%x%s%s\n", c->debug_console_port, *path ? ",file=" : "", path);
}

static int parse_debug_exit(struct vm_config *c, const char *value, struct err *err)
{
    u64 port;

    if (value_number(value, 0, UINT16_MAX, &port, err))
        return -err->code;
    c->has_debug_exit = true;
    c->debug_exit_port = (u16)port;
    return 0;
}

static void print_debug_exit(const struct vm_config *c, FILE *out)
{
    if (c->has_debug_exit)
        fprintf(out, "debug-exit=0x%x\n", c->debug_exit_port);
}

static const char *const disk_errors[] = {
    [VM_DISK_ENOSPC] = "enospc", [VM_DISK_REPORT] = "report", [VM_DISK_STOP] = "stop"};

/* "werror=WHAT" or "rerror=WHAT"; a read cannot fail for want of space. */
static int parse_disk_error(struct vm_disk_config *d, const char *item, struct err *err)
{
    bool write = item[0] == 'w';

    for (unsigned i = write ? 0 : 1; i < ARRAY_LEN(disk_errors); i++)
        if (!strcmp(item + 7, disk_errors[i])) {
            *(write ? &d->werror : &d->rerror) = i;
            return 0;
        }
    return err_set(err, EINVAL, "'%s' is not known; there are %sreport and stop", item,
                   write ? "enospc, " : "");
}

static int parse_disk_item(struct vm_disk_config *d, const char *item, struct err *err)
{
    if (!strncmp(item, "werror=", 7) || !strncmp(item, "rerror=", 7))
        return parse_disk_error(d, item, err);
    if (!strncmp(item, "bps=", 4))
        return value_size(item + 4, &d->bytes_per_s, err) ? err_wrap(err, "bps") : 0;
    if (!strncmp(item, "iops=", 5))
        return value_number(item + 5, 1, 1000000000, &d->requests_per_s, err) ? err_wrap(err, "iops") : 0;
    if (!strcmp(item, "ro")) {
        d->readonly = true;
        return 0;
    }
    if (!strcmp(item, "trust")) {
        d->trust = true;
        return 0;
    }
    if (!strcmp(item, "format=raw") || !strcmp(item, "format=qcow2")) {
        snprintf(d->format, sizeof(d->format), "%s", item + 7);
        return 0;
    }
    if (strncmp(item, "serial=", 7))
        return err_set(err, EINVAL,
                       "'%s' is not known after the file; allowed: ro, format=raw, format=qcow2, trust, serial=TEXT, "
                       "bps=SIZE, iops=N, werror=WHAT, rerror=WHAT "
                       "(a comma in a file name is written twice)",
                       item);
    if (!item[7] || strlen(item + 7) > VM_DISK_SERIAL_LEN)
        return err_set(err, EINVAL, "the serial '%s' must have 1 to %d characters", item + 7,
                       VM_DISK_SERIAL_LEN);
    for (const char *p = item + 7; *p; p++)
        if (*p <= ' ' || *p > '~')
            return err_set(err, EINVAL, "the serial must be made of visible ASCII characters");
    snprintf(d->serial, sizeof(d->serial), "%s", item + 7);
    return 0;
}

/* FILE[,ro][,format=FORMAT][,trust][,serial=TEXT][,bps=SIZE][,iops=N][,werror=WHAT][,rerror=WHAT] */
static int parse_disk(struct vm_config *c, const char *value, struct err *err)
{
    auto_free char *copy = strdup(value);
    struct vm_disk_config d = {.rerror = VM_DISK_REPORT};
    char *cursor = copy;

    if (!copy)
        return err_sys(err, ENOMEM, "cannot keep the disk");
    if (c->ndisks == VM_DISKS)
        return err_set(err, ENOSPC, "a machine takes at most %d disks", VM_DISKS);
    const char *path = value_item(&cursor);
    for (char *item; (item = value_item(&cursor));)
        if (parse_disk_item(&d, item, err))
            return -err->code;
    if (set_text(&d.path, path, "the file name", err))
        return -err->code;
    c->disk[c->ndisks++] = d;
    return 0;
}

static void print_disk(const struct vm_config *c, FILE *out)
{
    for (unsigned i = 0; i < c->ndisks; i++) {
        const struct vm_disk_config *d = &c->disk[i];
        char path[2 * 4096 + 1], serial[2 * VM_DISK_SERIAL_LEN + 2];

        value_quote(d->path, path, sizeof(path));
        value_quote(d->serial, serial, sizeof(serial));
        fprintf(out, "disk=%s%s%s%s%s%s%s", path, d->readonly ? ",ro" : "", *d->format ? ",format=" : "",
                d->format, d->trust ? ",trust" : "", *serial ? ",serial=" : "", serial);
        if (d->bytes_per_s) {
            value_size_print(d->bytes_per_s, path, sizeof(path));
            fprintf(out, ",bps=%s", path);
        }
        if (d->requests_per_s)
            fprintf(out, ",iops=%llu", (unsigned long long)d->requests_per_s);
        if (d->werror != VM_DISK_ENOSPC)
            fprintf(out, ",werror=%s", disk_errors[d->werror]);
        if (d->rerror != VM_DISK_REPORT)
            fprintf(out, ",rerror=%s", disk_errors[d->rerror]);
        fputc('\n', out);
    }
}

static int parse_initrd(struct vm_config *c, const char *value, struct err *err)
{
    return set_text(&c->initrd, value, "the file name", err);
}

static void print_initrd(const struct vm_config *c, FILE *out)
{
    print_text(out, "initrd", c->initrd);
}

static int parse_kernel(struct vm_config *c, const char *value, struct err *err)
{
    return set_text(&c->kernel, value, "the file name", err);
}

static void print_kernel(const struct vm_config *c, FILE *out)
{
    print_text(out, "kernel", c->kernel);
}

static int parse_memory(struct vm_config *c, const char *value, struct err *err)
{
    u64 bytes;

    if (value_size(value, &bytes, err))
        return -err->code;
    if (bytes < VM_MEMORY_MIN || bytes > VM_MEMORY_MAX || bytes % (2 * MiB))
        return err_set(err, ERANGE, "'%s' cannot be had; allowed is 2M to 64G in steps of 2M",
                       value);
    c->memory_bytes = bytes;
    return 0;
}

static void print_memory(const struct vm_config *c, FILE *out)
{
    char size[32];

    value_size_print(c->memory_bytes, size, sizeof(size));
    print_text(out, "memory", size);
}

static int parse_name(struct vm_config *c, const char *value, struct err *err)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    size_t len = strlen(value);

    for (size_t i = 0; i < len; i++)
        if (!strchr(letters, value[i]) && (i == 0 || !strchr("-_.", value[i])))
            len = 0;
    if (!len || len >= sizeof(c->name))
        return err_set(
            err, EINVAL,
            "'%s' cannot be a name; allowed are 1 to %zu letters, digits and, past the first, "
            "any of -_.",
            value, sizeof(c->name) - 1);
    snprintf(c->name, sizeof(c->name), "%s", value);
    return 0;
}

static void print_name(const struct vm_config *c, FILE *out)
{
    print_text(out, "name", c->name);
}

static int parse_no_reboot(struct vm_config *c, const char *value, struct err *err)
{
    c->no_reboot = true;
    return 0;
}

static void print_no_reboot(const struct vm_config *c, FILE *out)
{
    if (c->no_reboot)
        fputs("no-reboot\n", out);
}

static int parse_root(struct vm_config *c, const char *value, struct err *err)
{
    return set_text(&c->root, value, "the folder's name", err);
}

static void print_root(const struct vm_config *c, FILE *out)
{
    print_text(out, "root", c->root);
}

static const char *const serial_kinds[] = {
    [VM_SERIAL_STDIO] = "stdio",
    [VM_SERIAL_FILE] = "file",
    [VM_SERIAL_UNIX] = "unix",
    [VM_SERIAL_NULL] = "null",
    [VM_SERIAL_LOG] = "log",
    NULL,
};

/* stdio | log | null | file:PATH | unix:PATH */
static int read_serial(struct vm_serial_config *to, const char *value, struct err *err)
{
    char kind[16];
    const char *colon = strchr(value, ':');
    unsigned index;

    snprintf(kind, sizeof(kind), "%.*s", colon ? (int)(colon - value) : (int)strlen(value), value);
    if (value_choice(kind, serial_kinds, &index, err))
        return err_set(err, EINVAL, "'%s' is not known; allowed: stdio, log, null, file:PATH, unix:PATH",
                       value);
    bool takes_path = index == VM_SERIAL_FILE || index == VM_SERIAL_UNIX;
    if (takes_path && !colon)
        return err_set(err, EINVAL, "'%s' needs a path: %s:PATH", value, value);
    if (!takes_path && colon)
        return err_set(err, EINVAL, "'%s' takes nothing after a colon", kind);
    if (takes_path && set_text(&to->path, colon + 1, "the path after the colon", err))
        return -err->code;
    to->kind = (enum vm_serial_kind)index;
    return 0;
}

static void print_place(const char *name, const struct vm_serial_config *s, FILE *out)
{
    bool takes_path = s->kind == VM_SERIAL_FILE || s->kind == VM_SERIAL_UNIX;

    fprintf(out, "%s=%s%s%s\n", name, serial_kinds[s->kind], takes_path ? ":" : "", takes_path ? s->path : "");
}

static int parse_serial(struct vm_config *c, const char *value, struct err *err)
{
    int rc = read_serial(&c->serial, value, err);

    c->has_serial |= !rc;
    return rc;
}

static void print_serial(const struct vm_config *c, FILE *out)
{
    print_place("serial", &c->serial, out);
}

static int parse_console(struct vm_config *c, const char *value, struct err *err)
{
    int rc = read_serial(&c->console, value, err);

    c->has_console |= !rc;
    return rc;
}

static void print_console(const struct vm_config *c, FILE *out)
{
    print_place("console", &c->console, out);
}

static int parse_trace(struct vm_config *c, const char *value, struct err *err)
{
    return set_text(&c->trace, value, "the list of trace points", err);
}

static void print_trace(const struct vm_config *c, FILE *out)
{
    print_text(out, "trace", c->trace);
}

const struct vm_option vm_options[] = {
    {"accel", 0, "NAME", "what executes the guest: auto, bt or kvm (auto)", parse_accel,
     print_accel},
    {"append", 'a', "TEXT", "the kernel's command line", parse_append, print_append},
    {"console", 0, "WHERE", "virtio console (hvc0), as --serial (null)", parse_console, print_console},
    {"cpu", 0, "MODEL", "processor model: x86-64-v2, x86-64-v3 or host (x86-64-v3)", parse_cpu,
     print_cpu},
    {"cpus", 'c', "N", "number of processors, 1 to 32 (1)", parse_cpus, print_cpus},
    {"debug-console", 0, "PORT[,file=PATH]",
     "bytes written to this port go to a file or standard error", parse_debug_console,
     print_debug_console},
    {"debug-exit", 0, "PORT", "a value V written to this port ends the machine with status 2V+1",
     parse_debug_exit, print_debug_exit},
    {"disk", 'D', "FILE[,ro][,format=qcow2][,...]", "a disk image or block device (raw); may be repeated",
     parse_disk, print_disk},
    {"initrd", 'i', "FILE", "initial file system for the kernel", parse_initrd, print_initrd},
    {"kernel", 'k', "FILE", "kernel to boot: bzImage, ELF with a PVH note, or Multiboot",
     parse_kernel, print_kernel},
    {"memory", 'm', "SIZE", "guest memory, 2M to 64G (512M)", parse_memory, print_memory},
    {"name", 'n', "NAME", "what the machine is called (vm)", parse_name, print_name},
    {"net", 0, "KIND[,...]",
     "user[,hostfwd=RULE][,restrict=on], tap,ifname=NAME (with either: [,mac=ADDR]), or none (user)",
     parse_net, print_net},
    {"no-reboot", 0, NULL, "end instead of starting again when the guest reboots", parse_no_reboot,
     print_no_reboot},
    {"root", 0, "DIR", "where records of this host's guests live (or $TRAPEZE_ROOT)", parse_root,
     print_root},
    {"serial", 's', "WHERE", "first serial port: stdio, log, file:PATH, unix:PATH or null (stdio; log with -d)",
     parse_serial, print_serial},
    {"trace", 't', "LIST",
     "trace points to switch on, patterns with commas between; help lists them", parse_trace,
     print_trace},
    {NULL, 0, NULL, NULL, NULL, NULL},
};

/* One line, cut in place. */
static int read_line(struct vm_config *c, char *line, struct err *err)
{
    char *value = strchr(line, '=');

    if (value)
        *value++ = 0;
    for (const struct vm_option *o = vm_options; o->name; o++) {
        if (strcmp(o->name, line))
            continue;
        if (!o->arg != !value)
            return err_set(err, EINVAL, "%s: %s", line, value ? "takes no value" : "needs a value");
        return o->parse(c, value, err) ? err_wrap(err, "%s", line) : 0;
    }
    return err_set(err, EINVAL, "'%.64s' is not known", line);
}

int vm_options_read(struct vm_config *c, const char *text, struct err *err)
{
    auto_free char *copy = strdup(text);
    int rc = copy ? 0 : err_sys(err, ENOMEM, "configuration");

    for (char *line = copy, *end; !rc && *line; line = end) {
        end = line + strcspn(line, "\n");
        if (*end)
            *end++ = 0;
        rc = read_line(c, line, err);
    }
    return rc;
}

void vm_options_print(const struct vm_config *c, FILE *out)
{
    for (const struct vm_option *o = vm_options; o->name; o++)
        o->print(c, out);
}
