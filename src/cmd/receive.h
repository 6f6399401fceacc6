/* What the files of `trapeze receive` share. */
#ifndef CMD_RECEIVE_H
#define CMD_RECEIVE_H

#include "cmd/arrival.h"
#include "cmd/tls.h"
#include "vm/config.h"
#include "vm/migrate/wire.h"

#define RECEIVE_OVERRIDES 64

struct receive_options {
    const char *root;
    struct tls_options tls;
    bool insecure;
    const char *target; /* where to listen, or "-" */
    /* Options of the machine that are other here: pairs of an index into vm_options and a value. */
    struct {
        unsigned option;
        const char *value;
    } override[RECEIVE_OVERRIDES];
    unsigned noverrides;
    u64 disk_format;
};

/* A machine whose connections are all there: fds[0] brought HELLO. In a process of its own (forked for it); returns its
 * exit status. Takes the descriptors over. */
int receive_machine(const struct receive_options *o, const struct migrate_hello *hello,
                    const u8 *config, const int *fds, unsigned nfds);
/* A post-copy goes on: hands the connections to the machine that waits. 0 or -errno with the reason. */
int receive_again(const struct receive_options *o, const struct migrate_hello *hello,
                  const int *fds, unsigned nfds, struct err *err);
/* QUERY: what to answer about this token. */
u8 receive_answer(const struct receive_options *o, const u8 *token);
/* Sends one message as the first of this side. */
void receive_say(int fd, enum migrate_type type, const void *bytes, u32 len);

/* Takes connections from the listener for ever, or the only one (listener -1, first >= 0) until it is served. */
int receive_serve(const struct receive_options *o, int listener, int first, struct err *err);

#endif
