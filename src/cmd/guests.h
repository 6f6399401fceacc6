/* What the verbs share that are about guests: their command line, finding guests, speaking to them, error messages. */
#ifndef CMD_GUESTS_H
#define CMD_GUESTS_H

#include "cmd/status.h"
#include "cmd/verb.h"
#include "host/client.h"
#include "host/guest.h"

/* The first options of such verbs; their own follow from GUEST_OWN on. */
enum { GUEST_HELP, GUEST_ROOT, GUEST_OWN };
/* clang-format off */
#define GUEST_OPTIONS                               \
    {"help", 'h', NULL, "show this help"},          \
    {"root", 0, "DIR", "where records of this host's guests live (or $TRAPEZE_ROOT)"}
/* clang-format on */

struct guest_args {
    const char *root; /* NULL: not given */
    char **guests;    /* what was typed, NULL at the end */
    size_t count;
    size_t min, max; /* set before: how many there may be */
    /* The verb's own options; NULL: it has none. */
    int (*own)(void *opaque, int index, const char *value, struct err *err);
    void *opaque;
};

/* Reads argv. Returns -1 to go on, or an exit status. */
int guest_args_read(struct guest_args *a, const struct verb *self, char **argv);
/* The options of verbs without own ones. */
const struct args_spec *guest_only_options(void);

/* Opens the host; says why not. Returns an exit status. */
int guest_host_open(struct host *h, const struct guest_args *a, const struct verb *self);
/* Does fn for each guest that was named; failures are said, and the others still get their turn. Returns STATUS_OK or
 * STATUS_HOST. */
int guest_each(struct host *h, const struct guest_args *a, const struct verb *self,
               int (*fn)(void *opaque, struct host *h, struct record *record, struct err *err),
               void *opaque);
/* All of it, for verbs that do one thing to each guest: fn gets a->opaque. Returns an exit status. */
int guest_verb(const struct verb *self, char **argv, struct guest_args *a,
               int (*fn)(void *opaque, struct host *h, struct record *record, struct err *err));
/* guest_args.own of verbs that have one option, a flag: opaque is its bool. */
int guest_flag(void *opaque, int index, const char *value, struct err *err);

/* "trapeze VERB: message" */
void guest_complain(const struct verb *self, const struct err *err);

/* A connection to a guest that runs. -ESRCH: it does not. */
int guest_connect(const struct host *h, const struct record *record, struct client *ret_client,
                  struct err *err);
/* One request without arguments, answered within GUEST_ANSWER_MS. */
int guest_ask(const struct host *h, const struct record *record, const char *verb, json_t *fields,
              json_t **ret_answer, struct err *err);
#define GUEST_ANSWER_MS 10000
/* Ends a running guest at once: asked to, it closes its disks; if it does not answer, the kernel ends it. What the record
 * says is new then; it still says "running" if it is gone altogether. -EBUSY: it has something that another host needs, or
 * may be the only one of two, and `force` is not set. */
int guest_end_now(struct host *h, struct record *record, bool force, struct err *err);

/* "3 minutes", for people. */
const char *guest_age(s64 seconds, char buf[32]);

#endif
