#include "proto/lib/gcm.h"

#ifdef SIOFLEET_IPSEC_MB
#include <dlfcn.h>
#include <intel-ipsec-mb.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static IMB_MGR *mgr; /* its functions for this processor; for the life of the process */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void look(void)
{
    unsigned (*version)(void);
    IMB_MGR *(*alloc)(uint64_t);
    void (*init)(IMB_MGR *, IMB_ARCH *);
    void (*drop)(IMB_MGR *);
    void *so = dlopen("libIPSec_MB.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!so)
        return;
    *(void **)&version = dlsym(so, "imb_get_version");
    *(void **)&alloc = dlsym(so, "alloc_mb_mgr");
    *(void **)&init = dlsym(so, "init_mb_mgr_auto");
    *(void **)&drop = dlsym(so, "free_mb_mgr");
    /* another version may have its table in another order */
    if (!version || !alloc || !init || !drop || version() != IMB_VERSION_NUM)
        return;
    IMB_MGR *m = alloc(0);
    if (!m)
        return;
    init(m, NULL);
    if (m->used_arch == (uint32_t)IMB_ARCH_AVX512 &&
        (m->features & IMB_CPUFLAGS_AVX512_T2) == IMB_CPUFLAGS_AVX512_T2)
        mgr = m;
    else
        drop(m);
}

bool gcm_has(void)
{
    const char *want = getenv("SIOFLEET_ISA");
    pthread_once(&once, look);
    return mgr && (!want || !strcmp(want, "avx512"));
}

struct gcm_key_data *gcm_new(const uint8_t key[GCM_KEY])
{
    struct gcm_key_data *k = aligned_alloc(64, (sizeof(*k) + 63) / 64 * 64);
    if (k)
        IMB_AES256_GCM_PRE(mgr, key, k);
    return k;
}

void gcm_free(struct gcm_key_data **k)
{
    if (*k) {
        explicit_bzero(*k, sizeof(**k));
        free(*k);
    }
    *k = NULL;
}

void gcm_seal(const struct gcm_key_data *k, const uint8_t nonce[GCM_NONCE], const uint8_t *p,
              size_t n, uint8_t *out, uint8_t *tag)
{
    struct gcm_context_data c;
    IMB_AES256_GCM_ENC(mgr, k, &c, out, p, n, nonce, NULL, 0, tag, GCM_TAG);
    explicit_bzero(&c, sizeof(c));
}

void gcm_open(const struct gcm_key_data *k, const uint8_t nonce[GCM_NONCE], const uint8_t *p,
              size_t n, uint8_t *out, uint8_t *tag)
{
    struct gcm_context_data c;
    IMB_AES256_GCM_DEC(mgr, k, &c, out, p, n, nonce, NULL, 0, tag, GCM_TAG);
    explicit_bzero(&c, sizeof(c));
}

#else /* built without its header */

bool gcm_has(void)
{
    return false;
}

struct gcm_key_data *gcm_new(const uint8_t key[GCM_KEY])
{
    (void)key;
    return NULL;
}

void gcm_free(struct gcm_key_data **k)
{
    *k = NULL;
}

void gcm_seal(const struct gcm_key_data *k, const uint8_t nonce[GCM_NONCE], const uint8_t *p,
              size_t n, uint8_t *out, uint8_t *tag)
{
    (void)k, (void)nonce, (void)p, (void)n, (void)out, (void)tag;
}

void gcm_open(const struct gcm_key_data *k, const uint8_t nonce[GCM_NONCE], const uint8_t *p,
              size_t n, uint8_t *out, uint8_t *tag)
{
    gcm_seal(k, nonce, p, n, out, tag);
}
#endif
