#include "proto/lib/json.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/clean.h"
#include "proto/base/num.h"

json_t *json_u64(uint64_t v)
{
    if (v <= (UINT64_C(1) << 53) - 1)
        return json_integer((json_int_t)v);
    char s[24];
    snprintf(s, sizeof(s), "%" PRIu64, v);
    return json_string(s);
}

json_t *json_id(const struct id *id)
{
    char hex[ID_HEX_LEN];
    id_hex(id, hex);
    return json_string(hex);
}

json_t *json_str(const char *s)
{
    if (!s)
        return json_null();
    return json_bytes(s, strlen(s));
}

json_t *json_bytes(const void *s, size_t n)
{
    json_t *j = json_stringn(n ? s : "", n);
    if (j)
        return j;
    char *clean = malloc(n);
    if (!clean)
        return json_null();
    memcpy(clean, s, n);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)clean[i] >= 0x80)
            clean[i] = '?';
    j = json_stringn(clean, n);
    free(clean);
    return j;
}

int json_get_u64(const json_t *obj, const char *key, uint64_t *ret, struct err *e)
{
    const json_t *j = json_object_get(obj, key);
    if (json_is_integer(j) && json_integer_value(j) >= 0) {
        *ret = (uint64_t)json_integer_value(j);
        return 0;
    }
    if (json_is_string(j) && num_u64(json_string_value(j), 0, UINT64_MAX, key, ret, NULL) == 0)
        return 0;
    return err_set(e, SF_EFORMAT, "%s: not a whole number", key);
}

char *json_canonical(const json_t *j)
{
    return json_dumps(j, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);
}

void json_hash(const json_t *j, struct id *ret)
{
    CLEANUP(freep) char *s = json_canonical(j);
    if (!s)
        abort();
    hash_bytes(s, strlen(s), ret);
}
