/*
 * Starts a machine as a guest of this host: record, control socket, console; in this process, or in one of its own in the
 * background. What all verbs share that start machines.
 */
#ifndef CMD_LAUNCH_H
#define CMD_LAUNCH_H

#include "host/host.h"
#include "vm/vm.h"

struct launch {
    const char *verb;         /* for messages */
    struct vm_config *config; /* gets the guest's name and log */
    bool named; /* config->name was asked for; else the first free vm1, vm2, ... is taken */
    const char *name_from;      /* the option that gave it, for messages; NULL: --name */
    bool background;            /* with a record that stays; returns when it runs or has failed */
    bool report;                /* at the end, say what ran it and how long booting took */
    const struct record *again; /* a guest that has ended is started again; NULL: a new one */
    /* Open already; only in the foreground, and closed when the machine runs. NULL: that of config->root. */
    struct host *host;
    /* Makes the machine; NULL: vm_new(). The guest's folder is there by now. */
    int (*build)(void *opaque, const struct vm_config *config, const char *id, struct vm **ret_vm,
                 struct err *err);
    void *opaque;
};

/* Returns an exit status (cmd/status.h): of the machine, or in the background of its start. Prints the id of one in the
 * background. */
int launch(const struct launch *l);

#endif
