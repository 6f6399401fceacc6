/* What the files of `trapeze migrate` share. */
#ifndef CMD_MIGRATE_H
#define CMD_MIGRATE_H

#include "base/err.h"
#include <jansson.h>

enum migrate_format { MIGRATE_FORMAT_AUTO, MIGRATE_FORMAT_TEXT, MIGRATE_FORMAT_JSON };

/* How progress is shown: a bar that is drawn again on a terminal, lines of JSON, or nothing. */
struct migrate_display {
    enum migrate_format format;
    bool quiet;
    bool drawn;      /* a bar stands in the line */
    char owner[32];  /* from the last progress: whose the machine was */
    bool connecting; /* it said nothing yet about the machine */
    const char *guest;
    u64 bandwidth; /* that was asked for; 0: none */
};

void migrate_show(struct migrate_display *d, const json_t *progress);
/* The machine has gone. */
void migrate_show_summary(struct migrate_display *d, const json_t *summary);
/* --dry-run. */
void migrate_show_fit(struct migrate_display *d, const json_t *answer);
void migrate_show_end(struct migrate_display *d); /* before anything else is printed */

#endif
