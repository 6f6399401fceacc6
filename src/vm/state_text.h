/*
 * A saved state as text, without the machine it is of: each value of each section, by the tables of everything a machine
 * can have. Any thread; no state.
 */
#ifndef VM_STATE_TEXT_H
#define VM_STATE_TEXT_H

#include "state/field.h"
#include "state/stream.h"

/* section: "lapic 1"; field and value as state_table_print() has them. Borrowed. */
typedef void state_text_fn(void *opaque, const char *section, const char *field, const char *value);

/* Calls fn for each value of a stream. Hostile input: -errno with the section named. */
int state_text_walk(const struct state_source *from, state_text_fn *fn, void *opaque,
                    struct err *err);
/* The same for one object. */
int state_text_object(const struct state_table *t, const void *object, const char *section,
                      state_text_fn *fn, void *opaque, struct err *err);

#endif
