/* deploy/known: lines of known_hosts. */
#include <criterion/criterion.h>
#include <string.h>

#include "deploy/known.h"
#include "proto/base/clean.h"

#define KEY " ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI comment, with more"

Test(known, a_line_names_a_host_by_its_patterns)
{
    static const struct {
        const char *line;
        bool named;
    } t[] = {
        { "10.0.0.7" KEY, true },
        { "10.0.0.7\tssh-ed25519\tAAAA", true },
        { "other,10.0.0.7,third" KEY, true },
        { "10.0.0.70" KEY, false },
        { "10.0.0" KEY, false },
        { "10.0.*" KEY, true },
        { "10.0.0.?" KEY, true },
        { "10.0.0.7?" KEY, false },
        { "*" KEY, true },
        { "**0*7" KEY, true },
        { "*,!10.0.0.7" KEY, false },
        { "!10.0.0.8,*" KEY, true },
        { "!10.0.0.8" KEY, false },
        { "[10.0.0.7]:2222" KEY, true },
        { "[10.0.0.7]:22" KEY, false },
        { "[10.0.0.*]:2222" KEY, true },
        { "," KEY, false },
    };
    for (size_t i = 0; i < ARRAY_LEN(t); i++) {
        struct known_line k;
        cr_assert(known_parse(t[i].line, &k), "case %zu", i);
        cr_expect_eq(known_names(&k, "10.0.0.7", 2222), t[i].named, "case %zu", i);
        cr_expect_not(known_hashed(&k));
    }
    struct known_line k;
    cr_assert(known_parse("Head.LAB" KEY, &k));
    cr_assert(known_names(&k, "hEAD.lab", 22), "names have no case");
}

Test(known, marks_are_no_names)
{
    static const struct {
        const char *line;
        int mark;
    } t[] = {
        { "@revoked *" KEY, KNOWN_REVOKED },
        { " \t@revoked  10.0.0.7" KEY, KNOWN_REVOKED },
        { "@cert-authority *.lab" KEY, KNOWN_AUTHORITY },
        { "|1|c2FsdA==|aGFzaA==" KEY, KNOWN_KEY },
        { "@revokedx *" KEY, -1 },
        { "@revoked", -1 },
        { "@revoked *", -1 },
        { "# 10.0.0.7" KEY, -1 },
        { "10.0.0.7", -1 },
        { "10.0.0.7 ", -1 },
        { "  ", -1 },
        { "", -1 },
    };
    for (size_t i = 0; i < ARRAY_LEN(t); i++) {
        struct known_line k;
        cr_expect_eq(known_parse(t[i].line, &k), t[i].mark >= 0, "case %zu", i);
        cr_expect(t[i].mark < 0 || (int)k.mark == t[i].mark, "case %zu", i);
    }
    struct known_line k;
    cr_assert(known_parse("|1|c2FsdA==|aGFzaA==" KEY, &k) && known_hashed(&k));
}

Test(known, keys_are_of_a_kind)
{
    static const char raw[] = "\0\0\0\013ssh-ed25519\0\0\0\040";
    struct known_line k;
    cr_assert(known_parse("a" KEY, &k));
    cr_assert(known_same_kind(&k, raw, sizeof(raw) - 1));
    cr_assert_not(known_same_kind(&k, raw, 14));
    cr_assert_not(known_same_kind(&k, raw, 0));
    cr_assert(known_parse("a ssh-rsa AAAA", &k));
    cr_assert_not(known_same_kind(&k, raw, sizeof(raw) - 1));
}
