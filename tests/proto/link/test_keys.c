#include <fcntl.h>
#include <sys/stat.h>

#include "tests/proto/link/rig.h"

static char dir[256];

static void start(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof(dir), "%s/siofleet-keys.XXXXXX", tmp ? tmp : "/tmp");
    cr_assert(mkdtemp(dir));
}

static void stop(void)
{
    dir_remove(dir, NULL);
}

TestSuite(keys, .init = start, .fini = stop);

static const char *at(const char *name)
{
    static char path[4][400];
    static int i;
    i = (i + 1) % 4;
    snprintf(path[i], sizeof(path[i]), "%s/%s", dir, name);
    return path[i];
}

static struct key_pair make(const char *name, enum role role)
{
    struct key_pair k;
    struct err e = { 0 };
    cr_assert(key_new(at(name), role, name, &k, &e) == 0, "%s", e.text);
    return k;
}

static void put(const char *name, const char *text, mode_t mode)
{
    cr_assert_eq(file_write(at(name), text, strlen(text), mode, true, NULL), 0);
}

Test(keys, a_new_pair_is_private_and_comes_back)
{
    struct stat st;
    struct key_pair k = make("ann", ROLE_USER), back;
    struct key_pub pub;
    struct err e = { 0 };
    cr_assert(stat(at("ann"), &st) == 0 && (st.st_mode & 07777) == 0600);
    cr_assert(key_load(at("ann"), &back, &e) == 0, "%s", e.text);
    cr_assert(!strcmp(back.secret, k.secret) && !strcmp(back.pub.z85, k.pub.z85));
    cr_assert(key_load_pub(at("ann.pub"), &pub, &e) == 0, "%s", e.text);
    cr_assert(pub.role == ROLE_USER && !strcmp(pub.name, "ann") && !strcmp(pub.z85, k.pub.z85));
    struct buf b = BUF_INIT(1000);
    char want[200];
    cr_assert_eq(file_read(at("ann.pub"), &b, &e), 0);
    snprintf(want, sizeof(want), "siofleet-key 1 user ann %s\n", k.pub.z85);
    cr_assert_str_eq((char *)b.data, want);
    buf_clear(&b);
}

Test(keys, an_existing_file_is_never_overwritten)
{
    struct key_pair k = make("ann", ROLE_USER), back;
    struct err e = { 0 };
    cr_assert_eq(key_new(at("ann"), ROLE_USER, "ann", NULL, &e), -EEXIST);
    unlink(at("ann"));
    cr_assert_eq(key_new(at("ann"), ROLE_USER, "ann", NULL, &e), -EEXIST);
    cr_assert(access(at("ann"), F_OK) < 0, "half a pair was left");
    unlink(at("ann.pub"));
    cr_assert_eq(key_new(at("ann"), ROLE_USER, "ann", &back, &e), 0);
    cr_assert(strcmp(back.secret, k.secret));
    cr_assert_eq(key_new(at("no/such/folder"), ROLE_USER, "ann", NULL, &e), -ENOENT);
}

Test(keys, what_is_no_name_is_refused)
{
    static const char *const bad[] = {
        "",
        ".",
        "..",
        ".hidden",
        "-x",
        "a/b",
        "a b",
        "a\n",
        "\xc3",
        "a;b",
        "a=b",
        "~a",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    };
    struct err e = { 0 };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        cr_assert_eq(key_new(at("k"), ROLE_USER, bad[i], NULL, &e), -SF_EUSAGE, "'%s'", bad[i]);
        cr_assert_eq(keys_revoke(dir, bad[i], &e), -SF_EUSAGE, "'%s'", bad[i]);
    }
    cr_assert(access(at("k"), F_OK) < 0);
}

Test(keys, damaged_files_say_what_is_wrong)
{
#define Z "^n+(*gp4%.mOkNB%0+=1yE}G)4[?}h9Il{^1dGY*"
    static const struct {
        const char *text, *why;
    } rows[] = {
        { "", "not a file of the form" },
        { "\n", "not a file of the form" },
        { "siofleet-key", "not a file of the form" },
        { "siofleet-key 1 agent n1", "not a file of the form" },
        { "siofleet-key 1 agent n1 " Z " more\n", "not a file of the form" },
        { "siofleet-key 1 agent n1 " Z "\n\n", "not a file of the form" },
        { "siofleet-key  1 agent n1 " Z "\n", "not a file of the form" },
        { " siofleet-key 1 agent n1 " Z "\n", "not a file of the form" },
        { "siofleet-key\t1 agent n1 " Z "\n", "not a file of the form" },
        { "siofleet-secret 1 agent n1 " Z "\n", "not a file of the form" },
        { "siofleet-key 2 agent n1 " Z "\n", "key format 2, this program knows 1" },
        { "siofleet-key 1 root n1 " Z "\n", "unknown role 'root'" },
        { "siofleet-key 1 agent ../x " Z "\n", "is no name of a key" },
        { "siofleet-key 1 agent n1 abc\n", "40 characters of Z85" },
        { "siofleet-key 1 agent n1 \"n+(*gp4%.mOkNB%0+=1yE}G)4[?}h9Il{^1dGY*\n", "40 characters" },
    };
    struct key_pub pub;
    struct key_pair k;
    struct err e = { 0 };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        put("x.pub", rows[i].text, 0644);
        cr_assert_eq(key_load_pub(at("x.pub"), &pub, &e), -SF_EFORMAT, "row %zu", i);
        cr_assert(strstr(e.text, rows[i].why) && strstr(e.text, "x.pub: "), "row %zu: %s", i,
                  e.text);
    }
    put("ok.pub", "siofleet-key 1 agent n1 " Z, 0644);
    cr_assert_eq(key_load_pub(at("ok.pub"), &pub, &e), 0);
    put("ok.pub", "siofleet-key 1 agent n1 " Z "\r\n", 0644);
    cr_assert_eq(key_load_pub(at("ok.pub"), &pub, &e), 0);
    cr_assert_eq(key_load_pub(at("none.pub"), &pub, &e), -ENOENT);
    cr_assert_eq(key_load_pub(dir, &pub, &e) < 0, 1);

    make("a", ROLE_AGENT);
    cr_assert_eq(key_load(at("a.pub"), &k, &e), -SF_EREFUSED, "a public file is not private");
    chmod(at("a.pub"), 0600);
    cr_assert_eq(key_load(at("a.pub"), &k, &e), -SF_EFORMAT);
    chmod(at("a"), 0640);
    cr_assert_eq(key_load(at("a"), &k, &e), -SF_EREFUSED);
    cr_assert(strstr(e.text, "chmod 600"), "%s", e.text);
    put("halves", "siofleet-secret 1 agent n1 " Z " " Z "\n", 0600);
    cr_assert_eq(key_load(at("halves"), &k, &e), -SF_EFORMAT);
    cr_assert(strstr(e.text, "do not fit together"), "%s", e.text);
    cr_assert_eq(key_load(dir, &k, &e), -SF_EFORMAT);
}

Test(keys, allow_and_revoke_change_the_list)
{
    struct key_pair a = make("a", ROLE_AGENT), b = make("b", ROLE_READER),
                    c = make("c", ROLE_COORDINATOR);
    CLEANUP(freep) char *folder = keys_dir(dir);
    struct key_pub *list;
    struct err e = { 0 };
    size_t n;
    cr_assert_eq(keys_list(folder, &list, &n, &e), 0);
    cr_assert(n == 0 && !list);
    cr_assert_eq(keys_revoke(dir, "a", &e), -ENOENT);
    cr_assert_eq(keys_allow(dir, &b.pub, &e), 0);
    cr_assert_eq(keys_allow(dir, &a.pub, &e), 0);
    cr_assert_eq(keys_allow(dir, &a.pub, &e), 0, "twice is once");
    cr_assert_eq(keys_allow(dir, &c.pub, &e), -SF_EUSAGE);
    struct key_pub other = b.pub;
    strcpy(other.name, "a");
    cr_assert_eq(keys_allow(dir, &other, &e), -EEXIST);
    strcpy(other.name, "z");
    cr_assert_eq(keys_allow(dir, &other, &e), -EEXIST);
    other = b.pub;
    other.role = ROLE_USER;
    cr_assert_eq(keys_allow(dir, &other, &e), -EEXIST, "a role is not changed in passing");
    cr_assert_eq(keys_list(folder, &list, &n, &e), 0);
    cr_assert(n == 2 && !strcmp(list[0].name, "a") && !strcmp(list[1].name, "b"));
    free(list);
    /* what does not belong there locks nobody out */
    put("keys/allowed/junk.pub", "junk", 0600);
    put("keys/allowed/wrong.pub", "siofleet-key 1 agent right " Z "\n", 0600);
    put("keys/allowed/boss.pub", "siofleet-key 1 coordinator boss " Z "\n", 0600);
    put("keys/allowed/notes.txt", "mine", 0600);
    cr_assert_eq(mkdir(at("keys/allowed/d.pub"), 0700), 0);
    cr_assert_eq(keys_list(folder, &list, &n, &e), 0);
    cr_assert_eq(n, 2);
    free(list);
    cr_assert_eq(keys_revoke(dir, "a", &e), 0);
    cr_assert_eq(keys_list(folder, &list, &n, &e), 0);
    cr_assert(n == 1 && !strcmp(list[0].name, "b"));
    free(list);
}
