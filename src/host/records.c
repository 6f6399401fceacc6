/*
 * The records in SQLite.
 *
 * Write-ahead log: readers never wait for writers, and a process that is killed in the middle of a change leaves nothing
 * of it. Whoever finds the file locked waits up to BUSY_MS. The version of the schema is SQLite's user_version; a file of
 * a newer one is refused. A change survives the death of any process; one that happened right before a power failure may
 * be lost (synchronous=NORMAL), together with every guest it could have been about.
 *
 * Thread: one at a time per `struct records`.
 */
#include "host/records.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUSY_MS 30000
#define LOG_PAGES 100
#define SCHEMA_VERSION 1

static const char schema[] = "BEGIN IMMEDIATE;"
                             "CREATE TABLE IF NOT EXISTS guests (id TEXT PRIMARY KEY, name TEXT "
                             "NOT NULL UNIQUE, config TEXT NOT NULL,"
                             " transient INTEGER NOT NULL, state INTEGER NOT NULL, pid INTEGER NOT "
                             "NULL, status INTEGER NOT NULL, reason TEXT,"
                             " created_s INTEGER NOT NULL, started_s INTEGER NOT NULL, ended_s "
                             "INTEGER NOT NULL) WITHOUT ROWID;"
                             "PRAGMA user_version = 1;"
                             "COMMIT;";

/* The columns, in the order that read_row() and bind() know. */
#define COLUMNS \
    "id, name, config, transient, state, pid, status, reason, created_s, started_s, ended_s"

struct records {
    sqlite3 *db;
    char *path;
    bool begun;
};

void record_fini(struct record *r)
{
    free(r->config);
    free(r->reason);
    *r = (struct record){0};
}

/* What SQLite says, as an error. */
static int fail(struct records *r, int code, struct err *err)
{
    const char *why = r->db ? sqlite3_errmsg(r->db) : sqlite3_errstr(code);

    switch (code & 0xff) {
    case SQLITE_CONSTRAINT:
        return err_set(err, EEXIST, "records '%s': %s", r->path, why);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return err_set(err, EBUSY, "records '%s': another process holds them for too long",
                       r->path);
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
        return err_set(err, EUCLEAN,
                       "records '%s' are damaged: %s; move the file away to begin anew", r->path,
                       why);
    case SQLITE_FULL:
        return err_set(err, ENOSPC, "records '%s': %s", r->path, why);
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
        return err_set(err, EACCES, "records '%s': %s", r->path, why);
    case SQLITE_NOMEM:
        return err_set(err, ENOMEM, "records '%s': no memory", r->path);
    default:
        return err_set(err, EIO, "records '%s': %s", r->path, why);
    }
}

static int run(struct records *r, const char *sql, struct err *err)
{
    int code = sqlite3_exec(r->db, sql, NULL, NULL, NULL);

    return code ? fail(r, code, err) : 0;
}

static int read_version(struct records *r, int *ret_version, struct err *err)
{
    sqlite3_stmt *s;
    int code = sqlite3_prepare_v2(r->db, "PRAGMA user_version", -1, &s, NULL);

    if (!code)
        code = sqlite3_step(s);
    if (code == SQLITE_ROW)
        *ret_version = sqlite3_column_int(s, 0);
    sqlite3_finalize(s);
    return code == SQLITE_ROW ? 0 : fail(r, code, err);
}

/* One process at a time: switching to the write-ahead log does not wait for others by itself. */
static int make_schema(struct records *r, struct err *err)
{
    auto_free char *name = NULL;
    int version = 0;

    if (asprintf(&name, "%s-making", r->path) < 0)
        return err_set(err, ENOMEM, "records: no memory");
    auto_close int lock = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (lock < 0 || flock(lock, LOCK_EX))
        return err_sys(err, errno, "records '%s'", name);
    int rc = read_version(r, &version, err);
    if (!rc && !version)
        rc = run(r, "PRAGMA journal_mode=WAL", err);
    if (!rc && !version)
        rc = run(r, schema, err);
    unlink(name);
    return rc;
}

/* After a change, with the length of the log. What SQLite does by itself never makes it shorter here: a process alone
 * reads the log anew and no longer knows what of it has been copied, so each adds its changes behind those of all before. */
static int shorten_log(void *opaque, sqlite3 *db, const char *name, int pages)
{
    (void)opaque;
    if (pages < LOG_PAGES)
        return SQLITE_OK;
    /* Not while others read it, and nobody waits for them: the next change tries again. */
    sqlite3_busy_timeout(db, 0);
    sqlite3_wal_checkpoint_v2(db, name, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    sqlite3_busy_timeout(db, BUSY_MS);
    return SQLITE_OK;
}

static int prepare(struct records *r, struct err *err)
{
    int version = 0, on = 1;

    sqlite3_busy_timeout(r->db, BUSY_MS);
    sqlite3_extended_result_codes(r->db, 1);
    /* Copying the log into the file would cost every process that ends a wait for the medium. */
    sqlite3_db_config(r->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, &on);
    int rc = read_version(r, &version, err);
    if (!rc && version > SCHEMA_VERSION)
        rc = err_set(err, EPROTONOSUPPORT,
                     "records '%s' have version %d, made by a newer trapeze; this one knows %d",
                     r->path, version, SCHEMA_VERSION);
    if (!rc && version == 0)
        rc = make_schema(r, err);
    if (!rc)
        rc = run(r, "PRAGMA synchronous=NORMAL", err);
    sqlite3_wal_hook(r->db, shorten_log, NULL);
    return rc;
}

int records_open(const char *path, struct records **ret_records, struct err *err)
{
    struct records *r = calloc(1, sizeof(*r));

    if (!r || !(r->path = strdup(path))) {
        free(r);
        return err_set(err, ENOMEM, "records: no memory");
    }
    /* Made by us first: SQLite would let others read it, and gives its other files the same rights. */
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd >= 0)
        close(fd);
    int code = sqlite3_open_v2(
        path, &r->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOFOLLOW, NULL);
    int rc = code ? fail(r, code, err) : prepare(r, err);
    if (rc) {
        records_close(r);
        return rc;
    }
    *ret_records = r;
    return 0;
}

void records_close(struct records *r)
{
    if (!r)
        return;
    sqlite3_close(r->db);
    free(r->path);
    free(r);
}

int records_begin(struct records *r, struct err *err)
{
    int rc = run(r, "BEGIN IMMEDIATE", err);

    r->begun = !rc;
    return rc;
}

int records_commit(struct records *r, struct err *err)
{
    int rc = run(r, "COMMIT", err);

    if (rc)
        records_rollback(r);
    r->begun = false;
    return rc;
}

void records_rollback(struct records *r)
{
    if (r->begun)
        sqlite3_exec(r->db, "ROLLBACK", NULL, NULL, NULL);
    r->begun = false;
}

static void bind(sqlite3_stmt *s, const struct record *x)
{
    sqlite3_bind_text(s, 1, x->id, -1, SQLITE_STATIC);
    sqlite3_bind_text(s, 2, x->name, -1, SQLITE_STATIC);
    sqlite3_bind_text(s, 3, x->config ? x->config : "", -1, SQLITE_STATIC);
    sqlite3_bind_int(s, 4, x->transient);
    sqlite3_bind_int(s, 5, (int)x->state);
    sqlite3_bind_int(s, 6, x->pid);
    sqlite3_bind_int(s, 7, x->status);
    sqlite3_bind_text(s, 8, x->reason, -1, SQLITE_STATIC);
    sqlite3_bind_int64(s, 9, x->created_s);
    sqlite3_bind_int64(s, 10, x->started_s);
    sqlite3_bind_int64(s, 11, x->ended_s);
}

/* Runs a statement with a record's values as ?1 to ?11. */
static int change(struct records *r, const char *sql, const struct record *x, struct err *err)
{
    sqlite3_stmt *s;
    int code = sqlite3_prepare_v2(r->db, sql, -1, &s, NULL);

    if (code)
        return fail(r, code, err);
    bind(s, x);
    code = sqlite3_step(s);
    int rc = code == SQLITE_DONE ? 0 : fail(r, code, err);
    sqlite3_finalize(s);
    return rc;
}

int records_add(struct records *r, const struct record *x, struct err *err)
{
    return change(
        r, "INSERT INTO guests (" COLUMNS ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        x, err);
}

int records_update(struct records *r, const struct record *x, struct err *err)
{
    int rc = change(r,
                    "UPDATE guests SET name = ?2, config = ?3, transient = ?4, state = ?5, pid = "
                    "?6, status = ?7,"
                    " reason = ?8, started_s = ?10, ended_s = ?11 WHERE id = ?1",
                    x, err);

    if (!rc && !sqlite3_changes(r->db))
        rc = err_set(err, ENOENT, "the record of %s is gone", x->id);
    return rc;
}

int records_remove(struct records *r, const char *id, struct err *err)
{
    struct record x = {0};

    snprintf(x.id, sizeof(x.id), "%s", id);
    return change(r, "DELETE FROM guests WHERE id = ?1", &x, err);
}

/* NULL: the column is, or there is no memory. */
static char *column_text(sqlite3_stmt *s, int i)
{
    const char *text = (const char *)sqlite3_column_text(s, i);

    return text ? strdup(text) : NULL;
}

/* The file may have been written by anybody with our rights: texts are cut, numbers taken as they are. */
static int read_row(sqlite3_stmt *s, struct record *x, struct err *err)
{
    const char *id = (const char *)sqlite3_column_text(s, 0),
               *name = (const char *)sqlite3_column_text(s, 1);

    *x = (struct record){
        .config = column_text(s, 2),
        .transient = sqlite3_column_int(s, 3) != 0,
        .state = sqlite3_column_int(s, 4) == RECORD_RUNNING ? RECORD_RUNNING : RECORD_ENDED,
        .pid = sqlite3_column_int(s, 5),
        .status = sqlite3_column_int(s, 6),
        .reason = column_text(s, 7),
        .created_s = sqlite3_column_int64(s, 8),
        .started_s = sqlite3_column_int64(s, 9),
        .ended_s = sqlite3_column_int64(s, 10),
    };
    snprintf(x->id, sizeof(x->id), "%s", id ? id : "");
    snprintf(x->name, sizeof(x->name), "%s", name ? name : "");
    if (x->config && (x->reason || sqlite3_column_type(s, 7) == SQLITE_NULL))
        return 0;
    record_fini(x);
    return err_set(err, ENOMEM, "records: no memory");
}

int records_get(struct records *r, const char *id, struct record *ret_record, struct err *err)
{
    sqlite3_stmt *s;
    int code =
        sqlite3_prepare_v2(r->db, "SELECT " COLUMNS " FROM guests WHERE id = ?1", -1, &s, NULL);

    if (code)
        return fail(r, code, err);
    sqlite3_bind_text(s, 1, id, -1, SQLITE_STATIC);
    code = sqlite3_step(s);
    int rc = code == SQLITE_ROW ? 0 : code == SQLITE_DONE ? -ENOENT : fail(r, code, err);
    if (!rc)
        rc = read_row(s, ret_record, err);
    else if (rc == -ENOENT)
        err_set(err, ENOENT, "there is no guest %s", id);
    sqlite3_finalize(s);
    return rc;
}

/* Room for one more. */
static int grow(struct record **list, size_t count, struct err *err)
{
    struct record *more = realloc(*list, (count + 1) * sizeof(**list));

    if (!more)
        return err_set(err, ENOMEM, "records: no memory");
    *list = more;
    return 0;
}

int records_list(struct records *r, struct record **ret_list, size_t *ret_count, struct err *err)
{
    struct record *list = NULL;
    size_t count = 0;
    sqlite3_stmt *s;
    int rc = 0;
    int code = sqlite3_prepare_v2(r->db, "SELECT " COLUMNS " FROM guests ORDER BY created_s, length(name), name",
                                  -1, &s, NULL);

    if (code)
        return fail(r, code, err);
    while (!rc && (code = sqlite3_step(s)) == SQLITE_ROW)
        if (!(rc = grow(&list, count, err)) && !(rc = read_row(s, &list[count], err)))
            count++;
    if (!rc && code != SQLITE_DONE)
        rc = fail(r, code, err);
    sqlite3_finalize(s);
    if (rc) {
        records_free_list(list, count);
        return rc;
    }
    *ret_list = list;
    *ret_count = count;
    return 0;
}

void records_free_list(struct record *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        record_fini(&list[i]);
    free(list);
}
