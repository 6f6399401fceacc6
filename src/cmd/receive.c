/* `trapeze receive`: waits for machines that migrate to this host. */
#include "cmd/receive.h"

#include "cmd/pump.h"
#include "cmd/status.h"
#include "cmd/target.h"
#include "cmd/verb.h"
#include "host/host.h"
#include "vm/option.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OPTIONS_MAX 64

enum { OWN_CA, OWN_CERT, OWN_HELP, OWN_INSECURE, OWN_KEY, OWN_PSK, OWN_COUNT };

static const struct args_spec own[OWN_COUNT] = {
    [OWN_CA] = {"ca", 0, "FILE", "who may have signed the source's certificate (PEM)"},
    [OWN_CERT] = {"cert", 0, "FILE", "this host's certificate (PEM): TLS is used"},
    [OWN_HELP] = {"help", 'h', NULL, "show this help"},
    [OWN_INSECURE] = {"insecure", 0, NULL, "take machines over plain TCP from other hosts"},
    [OWN_KEY] = {"key", 0, "FILE", "the certificate's key (PEM)"},
    [OWN_PSK] = {"psk", 0, "FILE", "a key that both sides know, in hexadecimal: TLS is used"},
};

/* What of a machine may be other on this host. */
static const char *const changeable[] = {"accel", "debug-console", "disk", "net",
                                         "root",  "serial",        NULL};

static bool is_changeable(const char *name)
{
    for (unsigned i = 0; changeable[i]; i++)
        if (!strcmp(changeable[i], name))
            return true;
    return false;
}

/* Which of vm_options the i-th option after our own is. */
static unsigned option_index(unsigned i)
{
    unsigned at = 0;

    for (;; at++)
        if (is_changeable(vm_options[at].name) && i-- == 0)
            return at;
}

static const struct args_spec *options(void)
{
    static struct args_spec all[OPTIONS_MAX];
    unsigned n = OWN_COUNT;

    memcpy(all, own, sizeof(own));
    for (const struct vm_option *o = vm_options; o->name && n + 1 < ARRAY_LEN(all); o++)
        if (is_changeable(o->name))
            all[n++] = (struct args_spec){o->name, o->letter, o->arg, o->help};
    return all;
}

static int keep_override(struct receive_options *o, unsigned index, const char *value,
                         struct err *err)
{
    struct vm_config scratch;

    if (!strcmp(vm_options[index].name, "root")) {
        o->root = value;
        return 0;
    }
    if (o->noverrides == RECEIVE_OVERRIDES)
        return err_set(err, E2BIG, "too many options");
    /* Wrong values are said now, not when a machine comes. */
    vm_config_init(&scratch);
    int rc = vm_options[index].parse(&scratch, value, err);
    vm_config_fini(&scratch);
    if (rc)
        return err_wrap(err, "--%s", vm_options[index].name);
    o->override[o->noverrides].option = index;
    o->override[o->noverrides++].value = value;
    return 0;
}

static int read_option(struct receive_options *o, int i, const char *value, bool *ret_help,
                       struct err *err)
{
    switch (i) {
    case ARGS_OPERAND:
        if (o->target)
            return err_set(err, EINVAL, "'%s' is too many", value);
        o->target = value;
        return 0;
    case OWN_CA:
        o->tls.ca = value;
        return 0;
    case OWN_CERT:
        o->tls.cert = value;
        return 0;
    case OWN_HELP:
        *ret_help = true;
        return 0;
    case OWN_INSECURE:
        o->insecure = true;
        return 0;
    case OWN_KEY:
        o->tls.key = value;
        return 0;
    case OWN_PSK:
        o->tls.psk = value;
        return 0;
    default:
        return keep_override(o, option_index((unsigned)(i - OWN_COUNT)), value, err);
    }
}

/* ssh's pipes as one descriptor; who carries the bytes lives on when ssh wants to end us. */
static int serve_stdio(const struct receive_options *o, struct err *err)
{
    int fd, rc = pump_start(STDIN_FILENO, STDOUT_FILENO, &fd, err);

    if (rc)
        return rc;
    /* The id of what arrives is not for the source's line. */
    dup2(STDERR_FILENO, STDOUT_FILENO);
    signal(SIGHUP, SIG_IGN);
    return receive_serve(o, -1, fd, err);
}

/* Where machines will be recorded: what is wrong with it is said before the first one comes, and what there is to make is made.
 * One that is there already, as through ssh, finds out for itself. */
static int check_host(const struct receive_options *o, struct err *err)
{
    struct host h;
    int rc = host_open(&h, o->root, err);

    if (!rc)
        host_close(&h);
    return rc;
}

static int serve(const struct receive_options *o, struct err *err)
{
    bool tls = tls_wanted(&o->tls);
    struct target target;
    int listener, rc;

    if (!strcmp(o->target, "-"))
        return serve_stdio(o, err);
    rc = check_host(o, err);
    if (!rc)
        rc = target_parse(o->target, &target, err);
    if (!rc && tls)
        rc = tls_check(&o->tls, err);
    if (!rc)
        rc = target_listen(&target, !tls, o->insecure, &listener, err);
    if (rc)
        return rc;
    rc = receive_serve(o, listener, -1, err);
    close(listener);
    return rc;
}

static int run(const struct verb *self, char **argv)
{
    struct receive_options o = {0};
    struct err err = ERR_INIT;
    struct args args;
    bool help = false;

    args_init(&args, options(), argv);
    for (int i; (i = args_next(&args, &err)) != ARGS_END;)
        if (i == ARGS_BAD || read_option(&o, i, args.value, &help, &err))
            return verb_usage_error(self, &err);
    if (help) {
        verb_print_help(self, stdout);
        return STATUS_OK;
    }
    if (!o.target) {
        err_set(&err, EINVAL, "where to listen? tcp://[ADDRESS]:PORT or unix:PATH");
        return verb_usage_error(self, &err);
    }
    signal(SIGPIPE, SIG_IGN);
    if (!serve(&o, &err))
        return STATUS_OK;
    fprintf(stderr, "trapeze receive: %s\n", err.msg);
    return STATUS_HOST;
}

const struct verb verb_receive = {
    .name = "receive",
    .operands = "tcp://[ADDRESS]:PORT|unix:PATH",
    .summary = "Wait for machines that migrate to this host",
    .options = options,
    .notes =
        "Each machine that arrives runs in the background, see 'trapeze ps'; its id is printed.\n"
        "The machine's options say what is other on this host than where it came from.\n"
        "'trapeze migrate' with ssh://HOST needs no receiver started.\n",
    .run = run,
};
