/*
 * Option parsing. Engines call with what Go accepts: one dash or two before a long name, the value behind
 * "=" or as the next argument, booleans with or without "=true". One letter names are ordinary names here.
 */
#include "container/option.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct option *find(const struct option *opts, size_t n, const char *name, size_t len)
{
    for (size_t i = 0; i < n; i++) {
        if (strlen(opts[i].name) == len && strncmp(opts[i].name, name, len) == 0)
            return &opts[i];
        if (opts[i].letter && len == 1 && opts[i].letter == name[0])
            return &opts[i];
    }
    return NULL;
}

static int flag_value(const struct option *o, const char *value, struct err *err)
{
    static const char *const yes[] = {"true", "1", "t", "T", "TRUE", "True"};
    static const char *const no[] = {"false", "0", "f", "F", "FALSE", "False"};

    for (size_t i = 0; i < ARRAY_LEN(yes); i++) {
        if (!value || strcmp(value, yes[i]) == 0 || strcmp(value, no[i]) == 0) {
            *(bool *)o->out = !value || strcmp(value, yes[i]) == 0;
            return 0;
        }
    }
    return err_set(err, EINVAL, "invalid boolean value \"%s\" for -%s", value, o->name);
}

int option_parse(struct pool *p, const struct option *opts, size_t n, int argc, char **argv,
                 int *at, struct err *err)
{
    int i = *at;

    for (; i < argc && argv[i][0] == '-' && argv[i][1]; i++) {
        const char *name = argv[i] + (argv[i][1] == '-' ? 2 : 1);
        size_t len = strcspn(name, "=");
        const char *value = name[len] ? name + len + 1 : NULL;
        const struct option *o;

        if (!*name) { /* "--" */
            i++;
            break;
        }
        o = find(opts, n, name, len);
        if (!o)
            return err_set(err, EINVAL, "flag provided but not defined: -%.*s", (int)len, name);
        if (o->kind == OPTION_FLAG) {
            if (flag_value(o, value, err) < 0)
                return -err->code;
            continue;
        }
        if (!value && i + 1 >= argc)
            return err_set(err, EINVAL, "flag needs an argument: -%.*s", (int)len, name);
        if (!value)
            value = argv[++i];
        if (o->kind == OPTION_VALUE)
            *(const char **)o->out = value;
        else
            pool_strv_add(p, o->out, (char *)value);
    }
    *at = i;
    return 0;
}

void option_print(const struct option *opts, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct option *o = &opts[i];
        const char *word = o->kind == OPTION_FLAG ? "" : o->word ? o->word : "value";
        char left[80];
        int len = snprintf(left, sizeof(left), "--%s%s%s", o->name, *word ? " " : "", word);

        if (o->letter && len > 0 && (size_t)len < sizeof(left))
            snprintf(left + len, sizeof(left) - (size_t)len, ", -%c%s%s", o->letter,
                     *word ? " " : "", word);
        printf("   %-28s  %s\n", left, o->help);
    }
}
