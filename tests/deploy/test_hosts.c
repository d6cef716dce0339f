/* deploy/hosts: HOSTS.ini. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "deploy/hosts.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"

static int load(const char *text, struct hosts **h, struct err *e)
{
    CLEANUP(freep)
    char *path = path_fmt("%s/hosts-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write_all(fd, text, strlen(text)), 0);
    close(fd);
    int r = hosts_load(path, h, e);
    unlink(path);
    /* the scratch name is noise in what the tests compare */
    char *cut = strstr(e->text, ".ini") ? NULL : strchr(e->text, ':');
    if (r < 0 && cut)
        memmove(e->text, cut, strlen(cut) + 1);
    return r;
}

Test(hosts, a_range_keeps_its_width_and_classes_give_their_settings)
{
    CLEANUP(hosts_free) struct hosts *h = NULL;
    struct err e = { 0 };
    int r = load("[fleet]\ncoordinator=tcp://head:7000\nserver_key=/k.pub\nuser=lab\nport=2222\n"
                 "[class big]\nlabels=disk=nvme\ncores=8\nmemory=2G\nbulk_rate=100M\nclass_rate=1G\ncollect=yes\n"
                 "setup.mods = modprobe kvm\nsetup.mods.sudo = yes\nsetup.boot = "
                 "true\nsetup.boot.reboot=yes\n"
                 "[host kvm[08-11].lab]\nclass=big\n[host odd]\nport=23\naddress=10.0.0.9\n"
                 "hostkey=SHA256:0123456789012345678901234567890123456789012\n",
                 &h, &e);
    cr_assert_eq(r, 0, "%s", e.text);
    cr_assert_eq(h->n, 5);
    cr_assert_str_eq(h->host[0].name, "kvm08.lab");
    cr_assert_str_eq(h->host[3].address, "kvm11.lab");
    cr_assert_eq(h->host[0].port, 2222);
    cr_assert_str_eq(h->host[0].user, "lab");
    cr_assert_eq(h->host[0].class->memory_mib, 2048);
    cr_assert_eq(h->host[0].class->bulk_rate_b, 100u << 20);
    cr_assert_eq(h->host[0].class->class_rate_b, 1u << 30);
    cr_assert_eq(h->host[0].class->n_steps, 2);
    cr_assert(h->host[0].class->steps[0].sudo && !h->host[0].class->steps[0].reboot);
    cr_assert(h->host[0].class->steps[1].reboot);
    cr_assert_eq(h->host[4].port, 23);
    cr_assert_str_eq(h->host[4].address, "10.0.0.9");
    cr_assert_eq(h->host[4].class->cores, 0);
}

Test(hosts, refuses_with_line_and_reason)
{
    static const struct {
        const char *text, *cause;
    } t[] = {
        { "[host a]\n", ": no [fleet] section (siofleet deploy init prints a template)" },
        { "[fleet]\n", ": no [host NAME] section" },
        { "[fleet]\nnope=1\n[host a]\n", ":2: unknown key 'nope' in [fleet]" },
        { "[fleet]\n[host a]\nclass=x\n", ":3: no [class x]" },
        { "[fleet]\n[host a-b[3-1]]\n", ":2: range 3-1 runs backwards" },
        { "[fleet]\n[host a[1-5000]]\n", ":2: range 1-5000 has more than 4096 hosts" },
        { "[fleet]\n[host a[x]]\n", ":2: 'a[x]' is not a range like kvm[01-40].lab" },
        { "[fleet]\n[host a[1-2]]\n[host a2]\n", ":3: host 'a2' stands twice" },
        { "[fleet]\n[host -oProxy]\n", ":2: '-oProxy' is no host name" },
        { "[fleet]\n[host a]\naddress=$(id)\n", ":3: '$(id)' is no address" },
        { "[fleet]\n[host a]\nhostkey=MD5:aa\n",
          ":3: a host key looks like SHA256: and 43 more characters" },
        { "[fleet]\n[class c]\nsetup.x.sudo=yes\nsetup.x=true\n[host a]\n",
          ":3: 'setup.x.sudo' stands before setup.x itself" },
        { "[fleet]\ndata=share\n[host a]\n",
          ":2: data= is a folder of its own on the host, from / or ~/ on" },
        { "[fleet]\n[host a]\ndata=~/\n",
          ":3: data= is a folder of its own on the host, from / or ~/ on" },
        { "[fleet]\n[host a]\ndata=/.\n",
          ":3: data= is a folder of its own on the host, from / or ~/ on" },
        { "[fleet]\ncoordinator=head:7700\n[host a]\n",
          ":2: coordinator=head:7700 is not tcp://HOST:PORT, where agents connect to" },
        { "[fleet]\ncoordinator=tcp://head\n[host a]\n",
          ":2: coordinator=tcp://head is not tcp://HOST:PORT, where agents connect to" },
        { "[fleet]\ncoordinator=tcp://head:77000\n[host a]\n",
          ":2: coordinator=tcp://head:77000 is not tcp://HOST:PORT, where agents connect to" },
        { "[fleet]\ncoordinator=tcp://*:7700\n[host a]\n",
          ":2: coordinator=tcp://*:7700 is not tcp://HOST:PORT, where agents connect to" },
        { "[fleet]\nuser=\n[host a]\n", ":2: '' is no user's name" },
        { "[fleet]\n[host a]\nuser=-l root\n", ":3: '-l root' is no user's name" },
        { "[fleet]\n[class c]\nsetup.x=\n[host a]\n", ":3: 'setup.x' has no command" },
        { "[fleet]\n[class c]\nmemory=64\n[host a]\n",
          ":3: memory=64 is less than 1M (64G, 512M)" },
        { "[fleet]\n[host a[1-2]]\naddress=10.0.0.1\n",
          ":2: 'a2' is the same place as 'a1': address, port, user and data" },
        { "[fleet]\n[class c]\nlabels=a=b,;c\n[host a]\n", ":3: 'a=b,;c' is not k=v,..." },
        { "[fleet]\n[class c]\nsetup.x=true\nsetup.x.secret.T=hunter2\n[host a]\n",
          ":4: a secret is file:PATH or env:VARIABLE, never the value" },
        { "[fleet]\n[class c]\nsetup.x=true\nsetup.x.secret.9=env:T\n[host a]\n",
          ":4: '9' is no name of a variable" },
        { "[fleet]\n[class c]\nsetup.a/b=true\n[host a]\n", ":3: 'setup.a/b' names no step" },
        { "[fleet]\n[host a:b]\n", ":2: 'a:b' is no host name" },
        { "[fleet]\nport=0\n[host a]\n", ":2: 0 is not in 1..65535" },
        { "[fleet]\n[moon]\n[host a]\n", ":2: unknown section [moon]" },
    };
    for (size_t i = 0; i < ARRAY_LEN(t); i++) {
        CLEANUP(hosts_free) struct hosts *h = NULL;
        struct err e = { 0 };
        cr_expect_eq(load(t[i].text, &h, &e), -SF_EUSAGE, "case %zu", i);
        cr_expect_str_eq(e.text, t[i].cause, "case %zu: %s", i, e.text);
    }
}

Test(hosts, finds_the_coordinator_by_name_or_address)
{
    static const struct {
        const char *ep, *host, *port, *found;
    } t[] = {
        { "tcp://head:7000", "head", "7000", "head" },
        { "tcp://10.0.0.9:1", "10.0.0.9", "1", "odd" },
        { "tcp://[fe80::1]:7000", "fe80::1", "7000", "six" },
        { "tcp://elsewhere:7000", "elsewhere", "7000", NULL },
    };
    for (size_t i = 0; i < ARRAY_LEN(t); i++) {
        CLEANUP(hosts_free) struct hosts *h = NULL;
        struct err e = { 0 };
        char text[300], host[256], port[8];
        snprintf(text, sizeof(text),
                 "[fleet]\ncoordinator=%s\n[host head]\n[host odd]\naddress=10.0.0.9\n"
                 "[host six]\naddress=fe80::1\n",
                 t[i].ep);
        cr_assert_eq(load(text, &h, &e), 0, "%s", e.text);
        hosts_endpoint(h, host, port);
        cr_expect_str_eq(host, t[i].host, "case %zu", i);
        cr_expect_str_eq(port, t[i].port, "case %zu", i);
        const struct host *found = hosts_coordinator(h);
        cr_expect(found ? t[i].found && !strcmp(found->name, t[i].found) : !t[i].found, "case %zu",
                  i);
    }
}
