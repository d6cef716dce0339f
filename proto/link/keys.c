#include "proto/link/keys.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/base/log.h"

enum { KEY_FILE_MAX = 512, KEYS_MAX = 65536 };

static bool name_ok(const char *s)
{
    size_t n = strlen(s);
    if (!n || n >= KEY_NAME_LEN || s[0] == '.' || s[0] == '-')
        return false;
    for (; *s; s++)
        if (!((*s >= 'A' && *s <= 'Z') || (*s >= 'a' && *s <= 'z') || (*s >= '0' && *s <= '9') ||
              *s == '.' || *s == '_' || *s == '-'))
            return false;
    return true;
}

/* zmq_z85_decode() does not check characters in 4.3.4 the way a hostile file needs it. */
static bool z85_ok(const char *s)
{
    static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz"
                                 "ABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";
    if (strlen(s) != KEY_Z85_LEN - 1 || strspn(s, digits) != KEY_Z85_LEN - 1)
        return false;
    uint8_t raw[32];
    bool ok = zmq_z85_decode(raw, s) != NULL;
    explicit_bzero(raw, sizeof(raw));
    return ok;
}

void key_clear(struct key_pair *k)
{
    explicit_bzero(k, sizeof(*k));
}

/* Words of a line, separated by single blanks. Returns their number, 0 when the text is not one clean line. */
static size_t split(const char *text, size_t n, char *copy, size_t room, char *word[], size_t max)
{
    if (n && text[n - 1] == '\n')
        n--;
    if (n && text[n - 1] == '\r')
        n--;
    if (!n || n >= room)
        return 0;
    for (size_t i = 0; i < n; i++)
        if (text[i] <= ' ' && text[i] != ' ')
            return 0;
    memcpy(copy, text, n);
    copy[n] = 0;
    size_t k = 0;
    for (char *p = copy;;) {
        if (k == max || !*p || *p == ' ')
            return 0;
        word[k++] = p;
        p = strchr(p, ' ');
        if (!p)
            return k;
        *p++ = 0;
    }
}

static int parse(const char *text, size_t n, const char *place, const char *magic, size_t words,
                 struct key_pub *pub, char secret[KEY_Z85_LEN], struct err *e)
{
    char copy[KEY_FILE_MAX], *w[6];
    int r = 0;
    size_t k = split(text, n, copy, sizeof(copy), w, words);
    if (k != words || strcmp(w[0], magic))
        r = err_set(e, SF_EFORMAT, "%s: not a file of the form '%s 1 ROLE NAME KEY%s'", place,
                    magic, secret ? " SECRET" : "");
    else if (strcmp(w[1], "1"))
        r = err_set(e, SF_EFORMAT, "%s: key format %s, this program knows 1", place, w[1]);
    else if (role_parse(w[2], &pub->role) < 0)
        r = err_set(e, SF_EFORMAT, "%s: unknown role '%s'", place, w[2]);
    else if (!name_ok(w[3]))
        r = err_set(e, SF_EFORMAT, "%s: '%s' is no name of a key", place, w[3]);
    else if (!z85_ok(w[4]) || (secret && !z85_ok(w[5])))
        r = err_set(e, SF_EFORMAT, "%s: a key is 40 characters of Z85", place);
    else {
        snprintf(pub->name, sizeof(pub->name), "%s", w[3]);
        snprintf(pub->z85, sizeof(pub->z85), "%s", w[4]);
        if (secret)
            snprintf(secret, KEY_Z85_LEN, "%s", w[5]);
    }
    explicit_bzero(copy, sizeof(copy));
    return r;
}

int key_parse_pub(const char *text, size_t n, const char *place, struct key_pub *ret, struct err *e)
{
    memset(ret, 0, sizeof(*ret));
    return parse(text, n, place, "siofleet-key", 5, ret, NULL, e);
}

int key_parse(const char *text, size_t n, const char *place, struct key_pair *ret, struct err *e)
{
    memset(ret, 0, sizeof(*ret));
    return parse(text, n, place, "siofleet-secret", 6, &ret->pub, ret->secret, e);
}

static void secret_bufp(struct buf *b)
{
    if (b->data)
        explicit_bzero(b->data, b->room);
    buf_clear(b);
}

int key_load(const char *path, struct key_pair *ret, struct err *e)
{
    CLEANUP(secret_bufp) struct buf b = BUF_INIT(KEY_FILE_MAX);
    struct stat st;
    memset(ret, 0, sizeof(*ret));
    if (stat(path, &st) < 0)
        return err_sys(e, errno, "%s", path);
    if (!S_ISREG(st.st_mode))
        return err_set(e, SF_EFORMAT, "%s: not a key file", path);
    if (st.st_mode & 077)
        return err_set(e, SF_EREFUSED, "%s: a secret key that others may read, try: chmod 600 %s",
                       path, path);
    int r = file_read(path, &b, e);
    if (r == -EFBIG)
        return err_set(e, SF_EFORMAT, "%s: not a key file", path);
    if (r < 0)
        return r;
    r = key_parse((const char *)b.data, b.len, path, ret, e);
    if (r < 0)
        return r;
    char pub[KEY_Z85_LEN];
    if (zmq_curve_public(pub, ret->secret) < 0 || strcmp(pub, ret->pub.z85)) {
        key_clear(ret);
        return err_set(e, SF_EFORMAT, "%s: secret and public key do not fit together", path);
    }
    return 0;
}

int key_load_pub(const char *path, struct key_pub *ret, struct err *e)
{
    CLEANUP(buf_clear) struct buf b = BUF_INIT(KEY_FILE_MAX);
    int r = file_read(path, &b, e);
    if (r == -EFBIG)
        return err_set(e, SF_EFORMAT, "%s: not a public key file", path);
    if (r < 0)
        return r;
    return key_parse_pub(b.len ? (const char *)b.data : "", b.len, path, ret, e);
}

static int write_pub(const char *path, const struct key_pub *pub, bool force, struct err *e)
{
    char line[KEY_FILE_MAX];
    int n = snprintf(line, sizeof(line), "siofleet-key 1 %s %s %s\n", role_name(pub->role),
                     pub->name, pub->z85);
    return file_write(path, line, (size_t)n, 0644, force, e);
}

int key_new(const char *path, enum role role, const char *name, struct key_pair *ret, struct err *e)
{
    struct key_pair k = { .pub.role = role };
    if (!name_ok(name))
        return err_set(e, SF_EUSAGE, "--name: '%s' is not 1..64 of A-Z a-z 0-9 . _ -", name);
    CLEANUP(freep) char *pub = path_fmt("%s.pub", path);
    if (!pub)
        return err_sys(e, ENOMEM, "%s", path);
    /* Look before writing: of a pair, one half must not be left behind when the other is in the way. */
    if (access(pub, F_OK) == 0)
        return err_sys(e, EEXIST, "%s", pub);
    if (access(path, F_OK) == 0)
        return err_sys(e, EEXIST, "%s", path);
    snprintf(k.pub.name, sizeof(k.pub.name), "%s", name);
    if (zmq_curve_keypair(k.pub.z85, k.secret) < 0)
        return err_sys(e, errno, "%s: cannot make a key pair", path);
    char line[KEY_FILE_MAX];
    int n = snprintf(line, sizeof(line), "siofleet-secret 1 %s %s %s %s\n", role_name(role), name,
                     k.pub.z85, k.secret);
    int r = file_write(path, line, (size_t)n, 0600, false, e);
    explicit_bzero(line, sizeof(line));
    if (r >= 0) {
        r = write_pub(pub, &k.pub, false, e);
        if (r < 0)
            unlink(path);
    }
    if (r >= 0 && ret)
        *ret = k;
    key_clear(&k);
    return r < 0 ? r : 0;
}

char *keys_dir(const char *data)
{
    return path_fmt("%s/keys/allowed", data);
}

int keys_allow(const char *data, const struct key_pub *pub, struct err *e)
{
    CLEANUP(freep) char *dir = keys_dir(data);
    CLEANUP(freep) char *keys = path_fmt("%s/keys", data);
    CLEANUP(freep) char *path = path_fmt("%s/keys/allowed/%s.pub", data, pub->name);
    CLEANUP(freep) struct key_pub *list = NULL;
    size_t n = 0;
    if (!dir || !path || !keys)
        return err_sys(e, ENOMEM, "%s", data);
    if (!name_ok(pub->name))
        return err_set(e, SF_EUSAGE, "'%s' is no name of a key", pub->name);
    if (pub->role == ROLE_COORDINATOR)
        return err_set(e, SF_EUSAGE, "key '%s': a coordinator's key is not allowed as a peer's",
                       pub->name);
    int r = dir_make(dir, 0700, e);
    if (r < 0)
        return r;
    r = keys_list(dir, &list, &n, e);
    if (r < 0)
        return r;
    for (size_t i = 0; i < n; i++) {
        bool same_name = !strcmp(list[i].name, pub->name),
             same_key = !strcmp(list[i].z85, pub->z85);
        if (same_name && same_key && list[i].role == pub->role)
            return 0;
        if (same_name)
            return err_set(e, EEXIST,
                           "key '%s': another %s is allowed under this name, revoke it first",
                           pub->name, same_key ? "role" : "key");
        if (same_key)
            return err_set(e, EEXIST, "key '%s': is allowed already, as '%s'", pub->name,
                           list[i].name);
    }
    return write_pub(path, pub, true, e);
}

int keys_revoke(const char *data, const char *name, struct err *e)
{
    CLEANUP(freep) char *dir = keys_dir(data);
    CLEANUP(freep) char *path = path_fmt("%s/keys/allowed/%s.pub", data, name);
    if (!dir || !path)
        return err_sys(e, ENOMEM, "%s", data);
    if (!name_ok(name))
        return err_set(e, SF_EUSAGE, "'%s' is no name of a key", name);
    if (unlink(path) < 0) {
        if (errno == ENOENT)
            return err_set(e, ENOENT, "key '%s': is not allowed in '%s'", name, data);
        return err_sys(e, errno, "%s", path);
    }
    int r = dir_sync(dir);
    return r < 0 ? err_sys(e, -r, "%s", dir) : 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct key_pub *)a)->name, ((const struct key_pub *)b)->name);
}

static void closedirp(DIR **d)
{
    if (*d)
        closedir(*d);
}

int keys_list(const char *dir, struct key_pub **ret, size_t *ret_n, struct err *e)
{
    CLEANUP(closedirp) DIR *d = opendir(dir);
    CLEANUP(freep) struct key_pub *list = NULL;
    size_t n = 0, room = 0;
    *ret = NULL;
    *ret_n = 0;
    if (!d)
        return errno == ENOENT ? 0 : err_sys(e, errno, "%s", dir);
    for (struct dirent *de; (de = readdir(d));) {
        size_t len = strlen(de->d_name);
        if (len < 5 || strcmp(de->d_name + len - 4, ".pub") || de->d_name[0] == '.')
            continue;
        CLEANUP(freep) char *path = path_fmt("%s/%s", dir, de->d_name);
        struct key_pub k = { 0 };
        struct err why;
        if (!path)
            return err_sys(e, ENOMEM, "%s", dir);
        int r = key_load_pub(path, &k, &why);
        if (r == -ENOENT)
            continue; /* revoked meanwhile */
        if (r >= 0 && (strlen(k.name) != len - 4 || strncmp(k.name, de->d_name, len - 4)))
            r = err_set(&why, SF_EFORMAT, "%s: holds the key of '%s'", path, k.name);
        /* its messages would pass for our own */
        if (r >= 0 && k.role == ROLE_COORDINATOR)
            r = err_set(&why, SF_EFORMAT, "%s: holds a coordinator's key", path);
        if (r < 0) {
            log_warn("%s, the file is ignored", why.text);
            continue;
        }
        if (n == room) {
            room = room ? room * 2 : 16;
            void *p = room > KEYS_MAX ? NULL : realloc(list, room * sizeof(*list));
            if (!p)
                return err_sys(e, room > KEYS_MAX ? E2BIG : ENOMEM, "%s", dir);
            list = p;
        }
        list[n++] = k;
    }
    if (n)
        qsort(list, n, sizeof(*list), by_name);
    *ret = TAKE(list);
    *ret_n = n;
    return 0;
}
