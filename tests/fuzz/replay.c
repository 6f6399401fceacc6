/* Runs a fuzz target over every file of a folder, in the order of their names; one TAP line each.
 */
#include "fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

static void replay(const char *folder, const char *name, int number)
{
    char path[1024];
    auto_free u8 *data = NULL;
    long size;
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    f = fopen(path, "rb");
    if (!f || fseek(f, 0, SEEK_END) || (size = ftell(f)) < 0 || fseek(f, 0, SEEK_SET)) {
        printf("not ok %d - %s # cannot be read\n", number, name);
        if (f)
            fclose(f);
        return;
    }
    /* Exactly as large as the input, so that a sanitizer sees one byte too many. */
    data = malloc((size_t)MAX(size, 1));
    size = data ? (long)fread(data, 1, (size_t)size, f) : 0;
    fclose(f);
    LLVMFuzzerTestOneInput(data, (size_t)size);
    printf("ok %d - %s\n", number, name);
}

int main(int argc, char **argv)
{
    struct dirent **entries;
    int n, count = 0;

    if (argc != 2 || (n = scandir(argv[1], &entries, NULL, alphasort)) < 0) {
        fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 0; i < n; i++) {
        if (entries[i]->d_name[0] != '.')
            replay(argv[1], entries[i]->d_name, ++count);
        free(entries[i]);
    }
    free(entries);
    printf("1..%d\n", count);
    return 0;
}
