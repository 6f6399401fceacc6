/*
 * TLS by OpenSSL. Only version 1.3; certificates are asked of both sides and must be signed by --ca; a
 * pre-shared key is used with an ephemeral exchange, so a key that leaks later opens nothing of before.
 */
#include "cmd/tls.h"

#include "cmd/carrier.h"
#include "cmd/tls_carry.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define HANDSHAKE_MS 10000
#define KEY_MIN 16 /* bytes */
#define KEY_MAX 64
#define PSK_IDENTITY "trapeze"
#define PSK_INDEX 0 /* of the application's data at a context */

/* The key, for OpenSSL's callbacks, which find it at the context. */
struct psk {
    u8 key[KEY_MAX];
    size_t len;
};

bool tls_wanted(const struct tls_options *o)
{
    return o->psk || o->cert;
}

static int openssl_error(struct err *err, const char *what)
{
    char text[256];

    openssl.ERR_error_string_n(openssl.ERR_get_error(), text, sizeof(text));
    return err_set(err, EPROTO, "TLS: %s: %s", what, text);
}

static int hex_digit(int c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int read_psk(const char *path, struct psk *ret_psk, struct err *err)
{
    struct psk psk = {.len = 0};
    FILE *f = fopen(path, "re");
    int high, low;

    if (!f)
        return err_sys(err, errno, "--psk: '%s'", path);
    while (psk.len < KEY_MAX && (high = hex_digit(getc(f))) >= 0 && (low = hex_digit(getc(f))) >= 0)
        psk.key[psk.len++] = (u8)(high << 4 | low);
    fclose(f);
    if (psk.len < KEY_MIN)
        return err_set(err, EINVAL,
                       "--psk: '%s' must begin with at least %d hexadecimal digits, such as "
                       "'openssl rand -hex 32' makes",
                       path, 2 * KEY_MIN);
    *ret_psk = psk;
    return 0;
}

/* RFC 8446, 4.2.11: a key from outside is bound to a hash, SHA-256 for TLS_AES_128_GCM_SHA256. */
static SSL_SESSION *psk_session(SSL *ssl)
{
    static const u8 cipher_id[] = {0x13, 0x01};
    const struct psk *psk = openssl.SSL_CTX_get_ex_data(openssl.SSL_get_SSL_CTX(ssl), PSK_INDEX);
    const SSL_CIPHER *cipher = openssl.SSL_CIPHER_find(ssl, cipher_id);
    SSL_SESSION *session = openssl.SSL_SESSION_new();

    if (session && cipher && openssl.SSL_SESSION_set1_master_key(session, psk->key, psk->len) &&
        openssl.SSL_SESSION_set_cipher(session, cipher) &&
        openssl.SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION))
        return session;
    openssl.SSL_SESSION_free(session);
    return NULL;
}

static int use_psk(SSL *ssl, const EVP_MD *md, const unsigned char **ret_id, size_t *ret_len,
                   SSL_SESSION **ret_session)
{
    *ret_session = psk_session(ssl);
    *ret_id = (const unsigned char *)PSK_IDENTITY;
    *ret_len = strlen(PSK_IDENTITY);
    return *ret_session != NULL;
}

static int find_psk(SSL *ssl, const unsigned char *id, size_t len, SSL_SESSION **ret_session)
{
    bool known = len == strlen(PSK_IDENTITY) && !memcmp(id, PSK_IDENTITY, len);

    *ret_session = known ? psk_session(ssl) : NULL;
    return 1;
}

static int load_certificates(SSL_CTX *ctx, const struct tls_options *o, struct err *err)
{
    if (!o->key || !o->ca)
        return err_set(err, EINVAL, "--cert needs --key and --ca as well");
    if (openssl.SSL_CTX_use_certificate_chain_file(ctx, o->cert) != 1)
        return openssl_error(err, o->cert);
    if (openssl.SSL_CTX_use_PrivateKey_file(ctx, o->key, SSL_FILETYPE_PEM) != 1 ||
        openssl.SSL_CTX_check_private_key(ctx) != 1)
        return openssl_error(err, o->key);
    if (openssl.SSL_CTX_load_verify_file(ctx, o->ca) != 1)
        return openssl_error(err, o->ca);
    openssl.SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return 0;
}

static int make_context(const struct tls_options *o, bool server, struct psk *psk,
                        SSL_CTX **ret_ctx, struct err *err)
{
    int rc = openssl_load(err);

    if (rc)
        return rc;
    SSL_CTX *ctx =
        openssl.SSL_CTX_new(server ? openssl.TLS_server_method() : openssl.TLS_client_method());
    if (!ctx)
        return openssl_error(err, "cannot begin");
    openssl.SSL_CTX_ctrl(ctx, SSL_CTRL_SET_MIN_PROTO_VERSION, TLS1_3_VERSION, NULL);
    openssl.SSL_CTX_ctrl(ctx, SSL_CTRL_MODE,
                         SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER, NULL);
    openssl.SSL_CTX_set_num_tickets(ctx, 0);
    openssl.SSL_CTX_set_ex_data(ctx, PSK_INDEX, psk);
    if (o->psk && o->cert)
        rc = err_set(err, EINVAL, "--psk and --cert exclude each other");
    else if (o->psk)
        rc = read_psk(o->psk, psk, err);
    else
        rc = load_certificates(ctx, o, err);
    if (!rc && o->psk) {
        openssl.SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256");
        openssl.SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL);
        openssl.SSL_CTX_set_psk_use_session_callback(ctx, use_psk);
        openssl.SSL_CTX_set_psk_find_session_callback(ctx, find_psk);
    }
    if (rc)
        openssl.SSL_CTX_free(ctx);
    else
        *ret_ctx = ctx;
    return rc;
}

int tls_check(const struct tls_options *o, struct err *err)
{
    struct psk psk;
    SSL_CTX *ctx = NULL;
    int rc = make_context(o, true, &psk, &ctx, err);

    if (!rc)
        openssl.SSL_CTX_free(ctx);
    return rc;
}

/* Waits for what OpenSSL wants after a call that returned rc; false: it is over. */
static bool wait_for(SSL *ssl, int rc, int timeout_ms)
{
    int want = openssl.SSL_get_error(ssl, rc);
    struct pollfd p = {.fd = openssl.SSL_get_fd(ssl),
                       .events = want == SSL_ERROR_WANT_WRITE ? POLLOUT : POLLIN};

    if (want != SSL_ERROR_WANT_READ && want != SSL_ERROR_WANT_WRITE)
        return false;
    return poll(&p, 1, timeout_ms) > 0;
}

static int handshake(SSL *ssl, bool server, struct err *err)
{
    int rc;

    while ((rc = server ? openssl.SSL_accept(ssl) : openssl.SSL_connect(ssl)) != 1) {
        if (wait_for(ssl, rc, HANDSHAKE_MS))
            continue;
        long verified = openssl.SSL_get_verify_result(ssl);
        if (verified != X509_V_OK)
            return err_set(err, EPROTO, "TLS: the other side's certificate: %s",
                           openssl.X509_verify_cert_error_string(verified));
        return openssl_error(err, openssl.SSL_get_verify_mode(ssl) == SSL_VERIFY_NONE
                                      ? "no agreement with the other side (the same --psk there?)"
                                      : "no agreement with the other side (--cert there?)");
    }
    /* A server that found no key it knows would go on with a certificate, if it had one. */
    if (openssl.SSL_get_verify_mode(ssl) == SSL_VERIFY_NONE && !openssl.SSL_session_reused(ssl))
        return err_set(err, EPROTO, "TLS: the other side has another key");
    return 0;
}

static int new_ssl(SSL_CTX *ctx, int fd, const char *host, SSL **ret_ssl, struct err *err)
{
    SSL *ssl = openssl.SSL_new(ctx);

    if (!ssl || openssl.SSL_set_fd(ssl, fd) != 1)
        return openssl_error(err, "cannot begin");
    if (host && *host)
        openssl.SSL_set1_host(ssl, host);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    *ret_ssl = ssl;
    return 0;
}

struct line {
    SSL *ssl;
    bool server; /* its handshake is the carrier's first work */
};

static void run_carrier(void *opaque, int plain)
{
    const struct line *l = opaque;
    struct err err = ERR_INIT;

    if (l->server && handshake(l->ssl, true, &err)) {
        dprintf(STDERR_FILENO, "trapeze receive: %s\n", err.msg);
        return;
    }
    int why = tls_carry(l->ssl, plain);
    /* The machine's process sees the end of a socket pair: only this one knows of a cable. */
    if (why == ETIMEDOUT || why == EHOSTUNREACH || why == ENETUNREACH)
        dprintf(STDERR_FILENO, "trapeze %s: the line to the other host: %s\n",
                l->server ? "receive" : "migrate", strerror(why));
}

static int start_carrier(SSL *ssl, bool server, int *ret_fd, struct err *err)
{
    struct line l = {ssl, server};
    int fd = openssl.SSL_get_fd(ssl);

    return carrier_start(run_carrier, &l, fd, fd, ret_fd, err);
}

static int wrap(const struct tls_options *o, int fd, const char *host, bool server, int *ret_fd,
                struct err *err)
{
    struct psk psk;
    SSL_CTX *ctx = NULL;
    SSL *ssl = NULL;
    int rc = make_context(o, server, &psk, &ctx, err);

    if (rc)
        return rc;
    rc = new_ssl(ctx, fd, o->psk ? NULL : host, &ssl, err);
    if (!rc && !server)
        rc = handshake(ssl, false, err);
    if (!rc)
        rc = start_carrier(ssl, server, ret_fd, err);
    openssl.SSL_free(ssl); /* says nothing to the other side */
    openssl.SSL_CTX_free(ctx);
    openssl.OPENSSL_cleanse(&psk, sizeof(psk));
    return rc;
}

int tls_connect(const struct tls_options *o, int fd, const char *host, int *ret_fd, struct err *err)
{
    return wrap(o, fd, host, false, ret_fd, err);
}

int tls_serve(const struct tls_options *o, int fd, int *ret_fd, struct err *err)
{
    return wrap(o, fd, NULL, true, ret_fd, err);
}
