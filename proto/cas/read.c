/* See cas.h: whole artefacts, read and verified. */
#include <endian.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/cas/in.h"

int cas_hashes(const struct cas *c, const struct id *id, struct id **ret, size_t *ret_n,
               uint64_t *ret_size, struct err *e)
{
    char hex[ID_HEX_LEN];
    const struct cas_item *it = cas_find(c, id);
    id_hex(id, hex);
    if (!it)
        return err_set(e, ENOENT, "artefact %.12s: not here", hex);
    uint64_t n = chunks_of(it->size_b);
    CLEANUP(freep) char *path = cas_item_path(c, id, ".hashes");
    CLEANUP(buf_clear) struct buf b = BUF_INIT(16 + n * ID_LEN);
    if (!path)
        return err_sys(e, ENOMEM, "artefact %.12s", hex);
    int r = file_read(path, &b, e);
    if (r < 0 && r != -EFBIG)
        return r;
    uint64_t size = 0;
    if (r < 0 || b.len != 16 + n * ID_LEN || memcmp(b.data, "SFH1\0\0\0\0", 8))
        return err_set(e, SF_EINTEGRITY, "%s: damaged", path);
    memcpy(&size, b.data + 8, 8);
    if (le64toh(size) != it->size_b)
        return err_set(e, SF_EINTEGRITY, "%s: damaged", path);
    struct id got, *list = malloc(n ? n * ID_LEN : 1);
    if (!list)
        return err_sys(e, ENOMEM, "artefact %.12s", hex);
    memcpy(list, b.data + 16, n * ID_LEN);
    cid_of_chunks(it->size_b, list, n, &got);
    if (!id_eq(&got, id)) {
        free(list);
        return err_set(e, SF_EINTEGRITY, "%s: damaged", path);
    }
    *ret = list;
    *ret_n = n;
    *ret_size = it->size_b;
    return 0;
}

ssize_t cas_read(const struct cas *c, const struct id *id, uint64_t index, void *p, size_t room,
                 struct err *e)
{
    char hex[ID_HEX_LEN];
    const struct cas_item *it = cas_find(c, id);
    id_hex(id, hex);
    if (!it)
        return err_set(e, ENOENT, "artefact %.12s: not here", hex);
    if (index >= chunks_of(it->size_b) || room < chunk_len(it->size_b, index))
        return err_set(e, EINVAL, "artefact %.12s: no chunk %llu", hex, (unsigned long long)index);
    uint64_t size;
    CLEANUP(closep) int fd = cas_open_item(c, id, &size, e);
    if (fd < 0)
        return fd;
    size_t n = chunk_len(it->size_b, index);
    ssize_t got = pread_full(fd, p, n, (off_t)(index * CID_CHUNK));
    if (got < 0)
        return err_sys(e, (int)-got, "artefact %.12s", hex);
    if ((size_t)got < n)
        return err_set(e, SF_EINTEGRITY, "artefact %.12s: truncated in chunk %llu", hex,
                       (unsigned long long)index);
    return got;
}

int cas_open_item(const struct cas *c, const struct id *id, uint64_t *ret_size, struct err *e)
{
    char hex[ID_HEX_LEN];
    const struct cas_item *it = cas_find(c, id);
    id_hex(id, hex);
    if (!it)
        return err_set(e, ENOENT, "artefact %.12s: not here", hex);
    CLEANUP(freep) char *path = cas_item_path(c, id, "");
    if (!path)
        return err_sys(e, ENOMEM, "artefact %.12s", hex);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    *ret_size = it->size_b;
    return fd < 0 ? err_sys(e, errno, "%s", path) : fd;
}

int cas_verify_part(const struct cas *c, const struct id *id, uint64_t from, uint64_t count,
                    uint64_t *ret_chunk, struct err *e)
{
    CLEANUP(freep) struct id *hashes = NULL;
    CLEANUP(freep) char *path = cas_item_path(c, id, "");
    struct stat st;
    size_t n;
    uint64_t size;
    *ret_chunk = UINT64_MAX;
    int r = cas_hashes(c, id, &hashes, &n, &size, e);
    if (r < 0)
        return r;
    size_t lanes = n < HASH_LANES ? n + !n : HASH_LANES;
    CLEANUP(freep) uint8_t *block = malloc(lanes * CID_CHUNK);
    if (!block || !path)
        return err_sys(e, ENOMEM, "%s", c->dir);
    CLEANUP(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_sys(e, errno, "%s", path);
    uint64_t end = from < n && count < n - from ? from + count : n;
    for (uint64_t i = from; i < end;) {
        struct id is[HASH_LANES];
        size_t m = end - i < lanes ? (size_t)(end - i) : lanes;
        ssize_t got = hash_chunks(fd, size, i, m, block, is);
        if (got < 0)
            return err_sys(e, (int)-got, "%s", path);
        for (size_t k = 0; k < m; k++, i++)
            if ((ssize_t)k >= got || !id_eq(&is[k], &hashes[i])) {
                *ret_chunk = i;
                return err_set(e, SF_EINTEGRITY, "%s: chunk %llu is damaged", path,
                               (unsigned long long)i);
            }
    }
    if ((uint64_t)st.st_size != size)
        return err_set(e, SF_EINTEGRITY, "%s: is %llu bytes long, not %llu", path,
                       (unsigned long long)st.st_size, (unsigned long long)size);
    return end == n;
}

int cas_verify(const struct cas *c, const struct id *id, uint64_t *ret_chunk, struct err *e)
{
    int r = cas_verify_part(c, id, 0, UINT64_MAX, ret_chunk, e);
    return r < 0 ? r : 0;
}
