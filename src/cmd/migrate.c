/*
 * `trapeze migrate`: connects to where a machine shall go, hands the connections to the machine, and
 * shows how it gets on. If the line breaks exactly at the hand-over, asks the receiver whether it has the
 * machine, and tells the machine.
 */
#include "cmd/migrate.h"

#include "cmd/guests.h"
#include "cmd/memory.h"
#include "cmd/target.h"
#include "cmd/tls.h"
#include "host/guest.h"
#include "vm/migrate/wire.h"
#include "vm/value.h"
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define DELTA_MAX (512ull * MiB)

/* clang-format off */
enum {
    OWN_AGAIN = GUEST_OWN, OWN_BANDWIDTH, OWN_CA, OWN_CANCEL, OWN_CERT, OWN_CLAIM, OWN_COMPRESS, OWN_CONNECTIONS, OWN_COPY_DISKS,
    OWN_DELTA,
    OWN_DRY_RUN, OWN_FORMAT, OWN_HYBRID, OWN_INSECURE, OWN_KEY, OWN_MAX_DOWNTIME, OWN_ON_TIMEOUT, OWN_POSTCOPY,
    OWN_PRECOPY, OWN_PSK,
    OWN_QUIET, OWN_THROTTLE, OWN_TIME_LIMIT,
};

static const struct args_spec specs[] = {
    GUEST_OPTIONS,
    {"again", 0, NULL, "go on with a post-copy whose line broke"},
    {"bandwidth", 0, "SIZE", "bytes a second at most, while the guest runs here"},
    {"ca", 0, "FILE", "who may have signed the receiver's certificate (PEM)"},
    {"cancel", 0, NULL, "end a migration that is under way; the guest stays"},
    {"cert", 0, "FILE", "this host's certificate (PEM): TLS is used"},
    {"claim", 0, NULL, "undecided guest: vouch that it does not run there, let it run here"},
    {"compress", 0, "HOW", "none, zstd, or auto (default): where it makes a slow line quicker"},
    {"connections", 0, "N", "for pages, 1 to 15; beside one for what must not wait"},
    {"copy-disks", 0, NULL, "storage is not shared: the disks go over, too"},
    {"delta", 0, "SIZE", "memory to remember sent pages, so that only changes go over again"},
    {"dry-run", 0, NULL, "only say whether it can go there, and how long it would take"},
    {"format", 0, "HOW", "text or json; default: text on a terminal"},
    {"hybrid", 0, NULL, "with --throttle: turn to post-copy when that does not help"},
    {"insecure", 0, NULL, "plain TCP to another host"},
    {"key", 0, "FILE", "the certificate's key (PEM)"},
    {"max-downtime", 0, "MS", "how long the guest may stand still (default: 300)"},
    {"on-timeout", 0, "WHAT", "cancel (default), continue, stop or postcopy"},
    {"postcopy", 0, NULL, "hand over at once, memory follows"},
    {"precopy", 0, NULL, "never turn to post-copy"},
    {"psk", 0, "FILE", "a key that both sides know, in hexadecimal: TLS is used"},
    {"quiet", 'q', NULL, "no progress and no summary"},
    {"throttle", 0, "PERCENT", "slow the guest down, by that much at most, before anything else"},
    {"time-limit", 0, "SECONDS", "for all of it, see --on-timeout"},
    {NULL, 0, NULL, NULL},
};
/* clang-format on */

struct request {
    struct migrate_display display;
    struct tls_options tls;
    struct target target;
    const char *place; /* as it was written */
    u64 bandwidth, delta, downtime_ms, limit_s, throttle, connections;
    const char *on_timeout, *compress;
    bool again, cancel, claim, copy_disks, dry, hybrid, insecure, postcopy, precopy;
    bool delta_given;
    u8 token[MIGRATE_TOKEN_BYTES];
};

static const struct args_spec *options(void)
{
    return specs;
}

static int choose(const char *value, const char *const *choices, unsigned *ret, struct err *err)
{
    return value_choice(value, choices, ret, err);
}

static int read_file_option(struct request *r, int index, const char *value)
{
    const char **to = index == OWN_CA     ? &r->tls.ca
                      : index == OWN_CERT ? &r->tls.cert
                      : index == OWN_KEY  ? &r->tls.key
                                          : &r->tls.psk;

    *to = value;
    return 0;
}

static int read_flag(struct request *r, int index)
{
    bool *const flags[] = {
        [OWN_AGAIN] = &r->again,       [OWN_CANCEL] = &r->cancel,
        [OWN_CLAIM] = &r->claim,       [OWN_COPY_DISKS] = &r->copy_disks,
        [OWN_DRY_RUN] = &r->dry,       [OWN_HYBRID] = &r->hybrid,
        [OWN_INSECURE] = &r->insecure, [OWN_POSTCOPY] = &r->postcopy,
        [OWN_PRECOPY] = &r->precopy,   [OWN_QUIET] = &r->display.quiet,
    };

    *flags[index] = true;
    return 0;
}

static int read_word(struct request *r, int index, const char *value, struct err *err)
{
    static const char *const compress[] = {"auto", "none", "zstd", NULL};
    static const char *const format[] = {"text", "json", NULL};
    static const char *const timeout[] = {"cancel", "continue", "stop", "postcopy", NULL};
    unsigned i = 0;
    int rc;

    if (index == OWN_COMPRESS) {
        rc = choose(value, compress, &i, err);
        r->compress = compress[i];
    } else if (index == OWN_FORMAT) {
        rc = choose(value, format, &i, err);
        r->display.format = i ? MIGRATE_FORMAT_JSON : MIGRATE_FORMAT_TEXT;
    } else {
        rc = choose(value, timeout, &i, err);
        r->on_timeout = timeout[i];
    }
    return rc;
}

static int read_option(void *opaque, int index, const char *value, struct err *err)
{
    struct request *r = opaque;
    int rc;

    switch (index) {
    case OWN_BANDWIDTH:
        rc = value_size(value, &r->bandwidth, err);
        break;
    case OWN_DELTA:
        rc = value_size(value, &r->delta, err);
        r->delta_given = true;
        break;
    case OWN_CONNECTIONS:
        rc = value_number(value, 1, MIGRATE_CONNECTIONS - 1, &r->connections, err);
        break;
    case OWN_MAX_DOWNTIME:
        rc = value_number(value, 1, 3600000, &r->downtime_ms, err);
        break;
    case OWN_THROTTLE:
        rc = value_number(value, 1, 99, &r->throttle, err);
        break;
    case OWN_TIME_LIMIT:
        rc = value_number(value, 1, 1000000, &r->limit_s, err);
        break;
    case OWN_COMPRESS:
    case OWN_FORMAT:
    case OWN_ON_TIMEOUT:
        rc = read_word(r, index, value, err);
        break;
    case OWN_CA:
    case OWN_CERT:
    case OWN_KEY:
    case OWN_PSK:
        return read_file_option(r, index, value);
    default:
        return read_flag(r, index);
    }
    return rc ? err_wrap(err, "--%s", specs[index].name) : 0;
}

static int connect_one(const struct request *r, int *ret_fd, struct err *err)
{
    bool tls = tls_wanted(&r->tls) && r->target.kind != TARGET_SSH;
    int fd, rc = target_connect(&r->target, !tls, r->insecure, &fd, err);

    if (!rc && tls) {
        rc = tls_connect(&r->tls, fd, r->target.kind == TARGET_TCP ? r->target.host : NULL, ret_fd,
                         err);
        close(fd);
    } else if (!rc) {
        *ret_fd = fd;
    }
    return rc;
}

/* Asks the receiver, for a minute: 1 it ran there, 0 it never will, 2 nobody knows. */
static u8 ask_receiver(const struct request *r)
{
    struct migrate_head head = {.type = MIGRATE_QUERY, .len = MIGRATE_TOKEN_BYTES};
    u8 message[MIGRATE_HEAD_BYTES + MIGRATE_TOKEN_BYTES], answer[MIGRATE_HEAD_BYTES + 1];

    migrate_head_put(&head, message);
    memcpy(message + MIGRATE_HEAD_BYTES, r->token, MIGRATE_TOKEN_BYTES);
    for (unsigned tries = 0; tries < 6; tries++) {
        int fd;

        if (tries)
            sleep(2);
        if (connect_one(r, &fd, NULL))
            continue;
        struct pollfd p = {.fd = fd, .events = POLLIN};
        size_t len = 0;
        if (write(fd, message, sizeof(message)) == sizeof(message))
            for (ssize_t n = 1; n > 0 && len < sizeof(answer) && poll(&p, 1, 10000) > 0;) {
                n = read(fd, answer + len, sizeof(answer) - len);
                len += (size_t)MAX(n, 0);
            }
        close(fd);
        if (len == sizeof(answer) && !migrate_head_get(answer, MIGRATE_TO_SOURCE, 0, &head, NULL) &&
            head.type == MIGRATE_ANSWER)
            return answer[MIGRATE_HEAD_BYTES];
    }
    return 2;
}

static void take_event(void *opaque, const json_t *event)
{
    struct request *r = opaque;

    migrate_show(&r->display, event);
}

static json_t *arguments(const struct request *r)
{
    char token[2 * MIGRATE_TOKEN_BYTES + 1];

    for (unsigned i = 0; i < MIGRATE_TOKEN_BYTES; i++)
        snprintf(token + 2 * i, 3, "%02x", r->token[i]);
    return json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:s,s:s,s:b,s:b,s:b,s:b,s:b}", "token", token,
                     "place", r->place, "bandwidth", (json_int_t)r->bandwidth, "cache",
                     (json_int_t)r->delta, "max_downtime_us", (json_int_t)r->downtime_ms * 1000,
                     "time_limit_ms", (json_int_t)r->limit_s * 1000, "throttle",
                     (json_int_t)r->throttle, "on_timeout", r->on_timeout, "compress", r->compress,
                     "postcopy", r->postcopy, "hybrid", r->hybrid, "dry", r->dry, "again", r->again,
                     "disks", r->copy_disks);
}

static int go(struct request *r, struct host *h, struct record *record, struct err *err);

/* The hand-over was cut: what the receiver knows decides. */
static int settle(struct request *r, struct host *h, struct record *record, struct err *err)
{
    static const char *const answers[] = {"never", "ran"};
    struct err why = *err;
    json_t *answer = NULL;

    migrate_show_end(&r->display);
    fprintf(stderr, "trapeze migrate: %s: %s; asking the receiver\n", record->name, why.msg);
    u8 said = ask_receiver(r);
    if (said > 1)
        return err_set(err, EREMOTEIO,
                       "nobody can say whether the machine is there, so it stands still here. "
                       "'trapeze migrate --again %s PLACE' asks once more. If nobody can be asked, "
                       "look there: if it is not there, 'trapeze migrate --claim %s' lets it go on "
                       "here; if it is, 'trapeze kill --force %s', unless it waits for memory",
                       record->name, record->name, record->name);
    *err = ERR_INIT;
    int rc = guest_ask(h, record, "migrate-decide", json_pack("{s:s}", "answer", answers[said]),
                       &answer, err);
    const char *owner = json_string_value(json_object_get(answer, "owner"));
    bool serving = owner && !strcmp(owner, "serving pages");
    json_decref(answer);
    if (rc || (said && !serving))
        return rc;
    /* It runs there, and waits for the rest of its memory. */
    if (said) {
        r->again = true;
        return go(r, h, record, err);
    }
    return err_set(err, why.code, "%s; the receiver never ran it, so it goes on here", why.msg);
}

/* Ctrl-C cancels the migration, not this program: the guest must not be left half way. */
struct canceller {
    const struct host *host;
    const struct record *record;
};

static void *cancel_on_signal(void *opaque)
{
    struct canceller *c = opaque;
    sigset_t set;
    int sig;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    while (!sigwait(&set, &sig))
        guest_ask(c->host, c->record, "migrate-cancel", NULL, NULL, NULL);
    return NULL;
}

static void watch_signals(struct canceller *c)
{
    pthread_t thread;
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    if (!pthread_create(&thread, NULL, cancel_on_signal, c))
        pthread_detach(thread);
}

static int connect_all(const struct request *r, int *fds, unsigned *ret_n, struct err *err)
{
    /* ssh is one connection for all. */
    unsigned want = r->target.kind == TARGET_SSH ? 1 : (unsigned)r->connections + 1, n = 0;
    int rc = 0;

    while (n < want && !rc)
        if (!(rc = connect_one(r, &fds[n], err)))
            n++;
    *ret_n = n;
    return rc;
}

/* A migration that goes on has the token of the one that began it. */
static int find_token(struct request *r, struct host *h, struct record *record, bool *ret_undecided,
                      struct err *err)
{
    json_t *answer = NULL;
    int rc = 0;

    *ret_undecided = false;
    if (!r->again)
        return getrandom(r->token, sizeof(r->token), 0) == sizeof(r->token)
                   ? 0
                   : err_set(err, EIO, "no random numbers");
    rc = guest_ask(h, record, "migrate-status", NULL, &answer, err);
    const char *hex = json_string_value(json_object_get(answer, "token"));
    for (unsigned i = 0; i < MIGRATE_TOKEN_BYTES && !rc; i++)
        if (!hex || sscanf(hex + 2 * i, "%2hhx", &r->token[i]) != 1)
            rc = err_set(err, EINVAL, "there is no broken post-copy to go on with");
    const char *owner = json_string_value(json_object_get(answer, "owner"));
    *ret_undecided = owner && !strcmp(owner, "undecided");
    json_decref(answer);
    return rc;
}

/* Without --net, or with a kind of user: its sockets are this process's. */
static void warn_of_nat(const struct request *r, const struct record *record)
{
    const char *config = record->config ? record->config : "";

    if (!r->dry && !r->again && !r->display.quiet &&
        (strstr(config, "net=user") || !strstr(config, "net=")))
        fprintf(stderr,
                "trapeze migrate: %s: its connections through the user-mode network will end; only "
                "those of a tap go on\n",
                record->name);
}

/* What to do comes last. */
static void say_again(struct err *err, const char *name)
{
    size_t len = strlen(err->msg);

    snprintf(err->msg + len, sizeof(err->msg) - len,
             "; when there is a line again, 'trapeze migrate --again %s PLACE' goes on", name);
}

/* A line that ends before a word was said has reasons of its kind. */
static void say_why(const struct request *r, struct err *err)
{
    size_t len = strlen(err->msg);
    const char *why = r->target.kind == TARGET_SSH ? "ssh says why above, or is there no 'trapeze' "
                                                     "on the other host? See TRAPEZE_SSH_COMMAND"
                      : tls_wanted(&r->tls)
                          ? "another key or another certificate? The receiver's messages say so"
                          : "does it want TLS, --psk or --cert? The receiver's messages say so";

    snprintf(err->msg + len, sizeof(err->msg) - len, " (%s)", why);
}

/* What everybody wants to know when it failed. */
static void say_here(const struct request *r, struct err *err)
{
    if (err->code == EREMOTEIO)
        err_wrap(err, "%s", r->place);
    size_t len = strlen(err->msg);
    if (!strstr(err->msg, "here") && !strchr(err->msg, '\n'))
        snprintf(err->msg + len, sizeof(err->msg) - len, "; the guest goes on here");
}

/* The machine's process ended without a word: whose the guest is, it cannot say any more. */
static void say_died(const struct request *r, struct err *err, const char *name)
{
    if (!strcmp(r->display.owner, "serving pages"))
        err_set(err, EPIPE,
                "the machine's process here has died, and with it memory that the guest still "
                "waits for on the other host: it is lost. 'trapeze kill --force' ends it there");
    else
        err_set(err, EPIPE,
                "the machine's process here has died, perhaps killed. Look at the other host: if "
                "'trapeze ps' shows the guest there, it goes on there; if not, it died with the "
                "process, and 'trapeze start %s' starts it anew",
                name);
}

static int go(struct request *r, struct host *h, struct record *record, struct err *err)
{
    struct client_listener listener = {take_event, r};
    struct canceller canceller = {h, record};
    int fds[MIGRATE_CONNECTIONS];
    unsigned n = 0;
    struct client c = {.wire.fd = -1};
    json_t *answer = NULL;
    bool undecided;
    int rc = find_token(r, h, record, &undecided, err);

    r->display.guest = record->name;
    r->display.bandwidth = r->bandwidth;
    if (!rc && undecided) {
        err_set(err, EREMOTEIO, "the hand-over was cut");
        return settle(r, h, record, err);
    }
    warn_of_nat(r, record);
    if (!rc)
        rc = guest_connect(h, record, &c, err);
    c.timeout_ms = CLIENT_WAIT_FOREVER;
    if (!rc)
        rc = connect_all(r, fds, &n, err);
    if (!rc)
        rc = client_send(&c, "migrate", arguments(r), fds, n, err);
    for (unsigned i = 0; i < n; i++)
        close(fds[i]);
    watch_signals(&canceller);
    if (!rc)
        rc = client_wait(&c, &listener, &answer, err);
    bool died = rc == -EPIPE && (c.wire.ended || !guest_wait(h, record->id, 0));
    client_close(&c);
    migrate_show_end(&r->display);
    if (died)
        say_died(r, err, record->name);
    else if (rc && !strcmp(r->display.owner, "undecided"))
        rc = settle(r, h, record, err);
    else if (rc && !strcmp(r->display.owner, "serving pages"))
        say_again(err, record->name);
    else if (rc == -EPIPE && r->display.connecting)
        say_why(r, err);
    else if (rc && !strcmp(r->display.owner, "here") && !r->dry)
        say_here(r, err);
    else if (!rc && r->dry)
        migrate_show_fit(&r->display, answer);
    else if (!rc)
        migrate_show_summary(&r->display, answer);
    json_decref(answer);
    /* It has gone for whoever looks next, too. */
    if (!rc && !r->dry)
        guest_wait(h, record->id, GUEST_ANSWER_MS);
    return rc;
}

static int ask(const struct request *r, struct host *h, struct record *record, struct err *err)
{
    return r->cancel ? guest_ask(h, record, "migrate-cancel", NULL, NULL, err)
                     : guest_ask(h, record, "migrate-decide", json_pack("{s:s}", "answer", "claim"),
                                 NULL, err);
}

static int act(void *opaque, struct host *h, struct record *record, struct err *err)
{
    struct request *r = opaque;

    return r->cancel || r->claim ? ask(r, h, record, err) : go(r, h, record, err);
}

/* What was left to us: that the guest moves without notice, whatever it does and whatever the line is. */
static void choose_rest(struct request *r)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);

    r->hybrid = r->hybrid || (!r->precopy && !r->throttle);
    if (!r->connections)
        r->connections = processors >= 8 ? 4 : processors >= 4 ? 2 : 1;
    if (!r->delta_given)
        r->delta = MIN(memory_available() / 4, DELTA_MAX);
}

static int run(const struct verb *self, char **argv)
{
    struct request r = {.downtime_ms = 300, .on_timeout = "cancel", .compress = "auto"};
    struct guest_args a = {.min = 1, .max = 2, .own = read_option, .opaque = &r};
    int status = guest_args_read(&a, self, argv);
    struct err err = ERR_INIT;
    struct host h;

    if (status >= 0)
        return status;
    bool goes = !r.cancel && !r.claim;
    if (goes != (a.count == 2)) {
        err_set(&err, EINVAL,
                goes ? "where to? tcp://HOST:PORT, unix:PATH or ssh://HOST"
                     : "it takes one guest, and no place");
        return verb_usage_error(self, &err);
    }
    if (goes && target_parse(a.guests[1], &r.target, &err))
        return verb_usage_error(self, &err);
    if (tls_wanted(&r.tls) && tls_check(&r.tls, &err))
        return verb_usage_error(self, &err);
    if (r.precopy && (r.hybrid || r.postcopy)) {
        err_set(&err, EINVAL, "--precopy excludes --hybrid and --postcopy");
        return verb_usage_error(self, &err);
    }
    choose_rest(&r);
    r.place = a.guests[1];
    a.count = 1;
    status = guest_host_open(&h, &a, self);
    if (status == STATUS_OK) {
        status = guest_each(&h, &a, self, act, &r);
        host_close(&h);
    }
    return status;
}

const struct verb verb_migrate = {
    .name = "migrate",
    .operands = "GUEST tcp://HOST:PORT|ssh://HOST|unix:PATH",
    .summary = "Move a running guest to another host",
    .options = options,
    .notes =
        "At the other end 'trapeze receive' waits, or ssh starts it. Ctrl-C cancels: until the\n"
        "hand-over the guest simply goes on here.\n\n"
        "Exit status: 0 the guest runs there, 4 it did not move or nobody can say; 2 wrong\n"
        "command line.\n",
    .run = run,
};
