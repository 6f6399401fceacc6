/*
 * Loading OpenSSL. The library whose headers we were built with, no other version. It is never unloaded.
 */
#include "cmd/openssl.h"

#include <dlfcn.h>
#include <errno.h>

#define TEXT(x) #x
#define LIBRARY_OF(version) "libssl.so." TEXT(version)
#define LIBRARY LIBRARY_OF(OPENSSL_SHLIB_VERSION)

struct openssl openssl;

int openssl_load(struct err *err)
{
    static void *library;
    static const struct {
        const char *name;
        void *at; /* of the member, a pointer to a function */
    } function[] = {
#define ENTRY(name) {#name, &openssl.name},
        OPENSSL_FUNCTIONS(ENTRY)
#undef ENTRY
    };

    if (library)
        return 0;
    void *found = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!found)
        return err_set(err, ENOENT, "TLS needs the library " LIBRARY ": %s", dlerror());
    for (size_t i = 0; i < ARRAY_LEN(function); i++) {
        void *address = dlsym(found, function[i].name);

        if (!address)
            return err_set(err, ENOENT, "TLS: %s", dlerror());
        *(void **)function[i].at = address;
    }
    library = found;
    return 0;
}
