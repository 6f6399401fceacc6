/*
 * OpenSSL, loaded when somebody wants TLS. Linked in, it would cost every start of the program some 1.4 ms: half of
 * what the dynamic linker does is for its tables.
 *
 * Its functions are members of `openssl` with their own names and types; macros of its headers that call functions are
 * not usable.
 */
#ifndef CMD_OPENSSL_H
#define CMD_OPENSSL_H

#include "base/err.h"
#include <openssl/err.h>
#include <openssl/ssl.h>

#define OPENSSL_FUNCTIONS(X)                 \
    X(ERR_error_string_n)                    \
    X(ERR_get_error)                         \
    X(OPENSSL_cleanse)                       \
    X(SSL_accept)                            \
    X(SSL_CIPHER_find)                       \
    X(SSL_connect)                           \
    X(SSL_CTX_check_private_key)             \
    X(SSL_CTX_ctrl)                          \
    X(SSL_CTX_free)                          \
    X(SSL_CTX_get_ex_data)                   \
    X(SSL_CTX_load_verify_file)              \
    X(SSL_CTX_new)                           \
    X(SSL_CTX_set_ciphersuites)              \
    X(SSL_CTX_set_ex_data)                   \
    X(SSL_CTX_set_num_tickets)               \
    X(SSL_CTX_set_psk_find_session_callback) \
    X(SSL_CTX_set_psk_use_session_callback)  \
    X(SSL_CTX_set_verify)                    \
    X(SSL_CTX_use_certificate_chain_file)    \
    X(SSL_CTX_use_PrivateKey_file)           \
    X(SSL_free)                              \
    X(SSL_get_error)                         \
    X(SSL_get_fd)                            \
    X(SSL_get_SSL_CTX)                       \
    X(SSL_get_verify_mode)                   \
    X(SSL_get_verify_result)                 \
    X(SSL_new)                               \
    X(SSL_pending)                           \
    X(SSL_read)                              \
    X(SSL_SESSION_free)                      \
    X(SSL_SESSION_new)                       \
    X(SSL_SESSION_set1_master_key)           \
    X(SSL_SESSION_set_cipher)                \
    X(SSL_SESSION_set_protocol_version)      \
    X(SSL_session_reused)                    \
    X(SSL_set1_host)                         \
    X(SSL_set_fd)                            \
    X(SSL_shutdown)                          \
    X(SSL_write)                             \
    X(TLS_client_method)                     \
    X(TLS_server_method)                     \
    X(X509_verify_cert_error_string)

struct openssl {
#define OPENSSL_MEMBER(name) __typeof__(name) *name;
    OPENSSL_FUNCTIONS(OPENSSL_MEMBER)
#undef OPENSSL_MEMBER
};

extern struct openssl openssl;

/* Before the first use; again: nothing. -ENOENT: it is not installed, or lacks something. */
int openssl_load(struct err *err);

#endif
