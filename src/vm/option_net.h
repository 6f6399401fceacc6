/* The value of --net: user-mode network with forwarded ports, a tap device, or none. */
#ifndef VM_OPTION_NET_H
#define VM_OPTION_NET_H

#include "vm/config.h"
#include <stdio.h>

int parse_net(struct vm_config *c, const char *value, struct err *err);
void print_net(const struct vm_config *c, FILE *out);

#endif
