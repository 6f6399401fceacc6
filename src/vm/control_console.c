/*
 * Verbs of the control socket: a connection becomes a look at the guest's console; the console has another size. Main loop.
 *
 * The console is what the guest's user reads: that of the two that has the log, else the one on standard output, else the
 * serial port unless it leads nowhere.
 */
#include "vm/control.h"

#include "device/virtio_console.h"
#include "vm/parts.h"
#include <errno.h>
#include <string.h>
#include <unistd.h>

static struct stream *main_console(const struct vm *vm)
{
    static const enum vm_serial_kind preferred[] = {VM_SERIAL_LOG, VM_SERIAL_STDIO};

    for (size_t i = 0; i < ARRAY_LEN(preferred); i++) {
        if (stream_kind(vm->serial) == preferred[i])
            return vm->serial;
        if (stream_kind(vm->console_stream) == preferred[i])
            return vm->console_stream;
    }
    if (stream_kind(vm->serial) == VM_SERIAL_NULL && vm->config->has_console &&
        stream_kind(vm->console_stream) != VM_SERIAL_NULL)
        return vm->console_stream;
    return vm->serial;
}

static int choose(const struct vm *vm, const char *port, struct stream **ret_stream,
                  struct err *err)
{
    if (!port)
        *ret_stream = main_console(vm);
    else if (!strcmp(port, "serial"))
        *ret_stream = vm->serial;
    else if (!strcmp(port, "console"))
        *ret_stream = vm->console_stream;
    else
        return err_set(err, EINVAL, "\"port\" must be serial or console");
    if (stream_kind(*ret_stream) == VM_SERIAL_UNIX)
        return err_set(err, ENOTSUP, "its console is a socket of its own: connect to '%s'",
                       *ret_stream == vm->serial ? vm->config->serial.path
                                                 : vm->config->console.path);
    return 0;
}

void control_do_attach(struct control_call *call)
{
    struct vm *vm = call->vm;
    struct stream *stream = NULL;
    struct err err = ERR_INIT;
    const char *port;
    bool readonly;
    u8 typed[64]; /* whoever types before the answer has come loses what is longer */
    size_t len;

    if (control_text(call, "port", NULL, &port, &err) ||
        control_flag(call, "readonly", &readonly, &err) || choose(vm, port, &stream, &err)) {
        control_fail(call, &err);
        return;
    }
    int fd = control_take_link(call, typed, sizeof(typed), &len);
    if (fd >= 0)
        stream_attach(stream, fd, readonly);
}

/* {"cols", "rows"}: of the terminal that looks at the virtio console. A serial port knows no size. */
void control_do_resize(struct control_call *call)
{
    struct vm *vm = call->vm;
    struct err err = ERR_INIT;
    u64 cols, rows;

    if (control_number(call, "cols", UINT16_MAX, 0, &cols, &err) ||
        control_number(call, "rows", UINT16_MAX, 0, &rows, &err)) {
        control_fail(call, &err);
        return;
    }
    if (vm->console && cols && rows)
        virtio_console_resize(vm->console, (u16)cols, (u16)rows);
    control_reply(call, NULL);
}
