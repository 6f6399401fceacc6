/*
 * Reads command-line arguments against a table. Our own instead of getopt_long: that abbreviates
 * names, prints by itself and cannot suggest. Main thread.
 */
#include "cmd/args.h"

#include "vm/value.h"
#include <errno.h>
#include <string.h>

#define SPECS_MAX 64

void args_init(struct args *a, const struct args_spec *specs, char **argv)
{
    *a = (struct args){.specs = specs, .argv = argv};
}

static int unknown(const struct args *a, const char *name, size_t len, struct err *err)
{
    const char *words[SPECS_MAX + 1] = {0};
    char text[64];

    for (unsigned i = 0; i < SPECS_MAX && a->specs[i].name; i++)
        words[i] = a->specs[i].name;
    snprintf(text, sizeof(text), "%.*s", (int)len, name);
    const char *near = value_nearest(text, words);
    if (near)
        err_set(err, EINVAL, "there is no option --%s, did you mean --%s?", text, near);
    else
        err_set(err, EINVAL, "there is no option --%s", text);
    return ARGS_BAD;
}

/* Takes the following argument as the value of spec i, unless `attached` already is it. */
static int take_value(struct args *a, int i, const char *attached, struct err *err)
{
    const struct args_spec *s = &a->specs[i];

    a->value = attached ? attached : *a->argv;
    if (!a->value) {
        err_set(err, EINVAL, "--%s needs a value: --%s %s", s->name, s->name, s->arg);
        return ARGS_BAD;
    }
    if (!attached)
        a->argv++;
    return i;
}

static int long_option(struct args *a, const char *name, struct err *err)
{
    size_t len = strcspn(name, "=");
    const char *attached = name[len] ? name + len + 1 : NULL;

    for (int i = 0; a->specs[i].name; i++) {
        const struct args_spec *s = &a->specs[i];

        if (strlen(s->name) != len || strncmp(s->name, name, len))
            continue;
        if (s->arg)
            return take_value(a, i, attached, err);
        if (attached) {
            err_set(err, EINVAL, "--%s takes no value", s->name);
            return ARGS_BAD;
        }
        return i;
    }
    return unknown(a, name, len, err);
}

static int short_option(struct args *a, struct err *err)
{
    char letter = *a->letters++;

    for (int i = 0; a->specs[i].name; i++) {
        if (a->specs[i].letter != letter)
            continue;
        if (!a->specs[i].arg)
            return i;
        const char *attached = *a->letters ? a->letters : NULL;
        a->letters = NULL;
        return take_value(a, i, attached, err);
    }
    err_set(err, EINVAL, "there is no option -%c", letter);
    return ARGS_BAD;
}

int args_next(struct args *a, struct err *err)
{
    a->value = NULL;
    if (a->letters && *a->letters)
        return short_option(a, err);
    const char *word = *a->argv;
    if (!word)
        return ARGS_END;
    a->argv++;
    if (!a->no_more_options && !strcmp(word, "--")) {
        a->no_more_options = true;
        return args_next(a, err);
    }
    /* A number below zero is no option: none is a digit. */
    if (a->no_more_options || word[0] != '-' || !word[1] || (word[1] >= '0' && word[1] <= '9')) {
        a->value = word;
        return ARGS_OPERAND;
    }
    if (word[1] == '-')
        return long_option(a, word + 2, err);
    a->letters = word + 1;
    return short_option(a, err);
}

void args_print(const struct args_spec *specs, FILE *out)
{
    for (const struct args_spec *s = specs; s->name; s++) {
        char left[80];

        if (!s->help)
            continue;
        if (s->letter)
            snprintf(left, sizeof(left), "-%c, --%s %s", s->letter, s->name, s->arg ? s->arg : "");
        else
            snprintf(left, sizeof(left), "    --%s %s", s->name, s->arg ? s->arg : "");
        if (strlen(left) > 31)
            fprintf(out, "  %s\n  %-31s %s\n", left, "", s->help);
        else
            fprintf(out, "  %-31s %s\n", left, s->help);
    }
}
