/* Signals by name or number. */
#ifndef CONTAINER_SIGNAME_H
#define CONTAINER_SIGNAME_H

/* "9", "KILL", "SIGKILL", "RTMIN+1"; -1 when it is none. */
int signal_number(const char *text);

#endif
