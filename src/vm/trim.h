/*
 * Giving back memory that only the start of a machine needed.
 */
#ifndef VM_TRIM_H
#define VM_TRIM_H

/* Pages of program and libraries, and free pages of the heap. What turns out to be needed comes back by itself. */
void trim_memory(void);

#endif
