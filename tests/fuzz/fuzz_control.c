/*
 * Any bytes from a caller of the control socket, in pieces: the first byte says how large they are. Verbs are harmless
 * ones: what is tried is the way from bytes to calls and back.
 */
#include "fuzz.h"

#include "vm/control.h"
#include "vm/parts.h"
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void do_answer(struct control_call *call)
{
    const char *text;
    struct err err = ERR_INIT;
    u64 number;
    bool flag;

    if (control_text(call, "text", "none", &text, &err) ||
        control_number(call, "number", 1000, 1, &number, &err) ||
        control_flag(call, "flag", &flag, &err)) {
        control_fail(call, &err);
        return;
    }
    control_event(call, "seen", NULL);
    control_reply(
        call, json_pack("{s:s,s:I,s:b}", "text", text, "number", (json_int_t)number, "flag", flag));
}

static void do_become(struct control_call *call)
{
    u8 rest[16];
    size_t len;
    int fd = control_take_link(call, rest, sizeof(rest), &len);

    if (fd >= 0)
        close(fd);
}

static const struct control_verb verbs[] = {
    {"answer", do_answer}, {"become", do_become}, {NULL, NULL}};

static void rounds(struct loop *loop)
{
    for (int i = 0; i < 4; i++)
        loop_once(loop, 0);
}

static void talk(struct loop *loop, int fd, const u8 *data, size_t size)
{
    size_t piece = size ? 1 + data[0] * 16u : 1;
    char sink[65536];

    for (size_t at = 1; at < size; at += piece) {
        if (send(fd, data + at, MIN(piece, size - at), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
            break;
        rounds(loop);
        while (recv(fd, sink, sizeof(sink), MSG_DONTWAIT) > 0)
            ;
    }
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    struct vm_config config = {.name = "fuzz"};
    struct vm *vm = calloc(1, sizeof(*vm));
    struct sockaddr_un address;
    socklen_t len = sizeof(address);
    sa_family_t family = AF_UNIX;
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0),
        fd = socket(AF_UNIX, SOCK_STREAM, 0);

    vm->config = &config;
    /* unix(7), autobind: an abstract name that nobody has. */
    if (loop_new(&vm->loop, NULL) || bind(listener, (struct sockaddr *)&family, sizeof(family)) ||
        listen(listener, 1) || getsockname(listener, (struct sockaddr *)&address, &len) ||
        control_new(vm, listener, &vm->control, NULL))
        abort();
    control_set_verbs(vm->control, verbs);
    if (connect(fd, (struct sockaddr *)&address, len))
        abort();
    rounds(vm->loop);
    talk(vm->loop, fd, data, size);
    close(fd);
    rounds(vm->loop);
    control_free(vm->control);
    loop_free(vm->loop);
    free(vm);
    return 0;
}
