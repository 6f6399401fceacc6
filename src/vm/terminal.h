/*
 * The terminal on standard input: raw while a machine uses it, restored whatever happens. A small process of our own
 * watches over that: it restores the terminal when this process is gone, however it went.
 */
#ifndef VM_TERMINAL_H
#define VM_TERMINAL_H

#include "base/err.h"
#include <termios.h>

struct terminal {
    bool raw;
    int watcher;          /* pipe to the watcher, -1: none */
    struct termios saved; /* as we found it */
};

#define TERMINAL_INIT ((struct terminal){.watcher = -1})

/* Remembers the terminal's modes and starts the watcher; nothing happens when standard input is no terminal. Early:
 * the watcher is a copy of this process. */
int terminal_watch(struct terminal *t, struct err *err);
/* Makes it raw, if it is watched. */
int terminal_start(struct terminal *t, struct err *err);
/* After the process was stopped and continued: the shell has set its own modes. */
void terminal_again(struct terminal *t);
/* Restores it and dismisses the watcher. A zeroed or stopped one is fine. */
void terminal_stop(struct terminal *t);
/* Standard output's size in characters; 0 when unknown. */
void terminal_size(u16 *ret_cols, u16 *ret_rows);

#endif
