/*
 * The options that make up a machine's configuration: one table for the command line, its help and
 * --dump-config. What print() writes, parse() reads back to the same configuration.
 */
#ifndef VM_OPTION_H
#define VM_OPTION_H

#include "vm/config.h"
#include <stdio.h>

struct vm_option {
    const char *name;
    char letter;      /* short form, 0: none */
    const char *arg;  /* what its value is called, NULL: takes none */
    const char *help; /* one line */
    int (*parse)(struct vm_config *c, const char *value,
                 struct err *err);                       /* value NULL when arg is */
    void (*print)(const struct vm_config *c, FILE *out); /* lines "name=value", none when unset */
};

extern const struct vm_option vm_options[]; /* sorted by name; name NULL at the end */

/* All that is set, defaults too, as lines which are options again when "--" is put in front. */
void vm_options_print(const struct vm_config *c, FILE *out);
/* Reads such lines into a configuration. */
int vm_options_read(struct vm_config *c, const char *text, struct err *err);

#endif
