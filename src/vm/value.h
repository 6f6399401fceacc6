/*
 * Values as people type them: sizes, numbers, choices, comma lists; and what was probably meant by
 * a wrong word. Every function leaves its output untouched on failure; messages say what was wrong
 * and what is allowed.
 */
#ifndef VM_VALUE_H
#define VM_VALUE_H

#include "base/err.h"

/* Decimal or 0x-hexadecimal, all of `text`, within [min, max]. */
int value_number(const char *text, u64 min, u64 max, u64 *ret_number, struct err *err);
/* Bytes: a number with K, M, G or T (powers of 1024, an "iB" or "B" may follow); without a letter
 * it counts MiB. */
int value_size(const char *text, u64 *ret_bytes, struct err *err);
/* Writes bytes as value_size() reads it, with the largest letter that loses nothing. */
void value_size_print(u64 bytes, char *buf, size_t len);
/* The index of `text` in `choices` (NULL at the end), or -EINVAL with the choices in the message.
 */
int value_choice(const char *text, const char *const *choices, unsigned *ret_index,
                 struct err *err);

/* The entry of `words` (NULL at the end) nearest to `text`, or NULL when none is near enough to be
 * a slip. */
const char *value_nearest(const char *text, const char *const *words);

/*
 * Comma lists: "path,ro,serial=x". A comma that belongs to an item is written twice. value_item()
 * cuts the next item off *cursor in place and undoes the doubling; NULL at the end.
 */
char *value_item(char **cursor);
/* Writes `text` with its commas doubled. */
void value_quote(const char *text, char *buf, size_t len);

#endif
