/* RUN.ini: what one collection is. Profiles are such files, shipped in the binary; a user's file starts from one. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "proto/base/err.h"

enum { CONF_NICS_MAX = 24, CONF_GUESTS_MAX = 24, CONF_GUESTS_TRIED = 4 };

enum conf_accel { ACCEL_AUTO, ACCEL_KVM, ACCEL_TCG };
enum conf_tracer { TRACER_RING, TRACER_LOG, TRACER_STOCK, TRACER_BOTH, TRACER_OFF };
enum conf_kind { WORK_IPERF3, WORK_DISK, WORK_SCRIPT };

struct collect_conf {
    char *path;       /* of the INI, for messages */
    char profile[16]; /* quick, many, tenants, big */
    uint64_t runs;
    uint64_t nics;   /* devices behind the IOMMU (disks too); tenants: one a guest */
    char model[16];  /* e1000 e1000e virtio nvme virtio-blk */
    uint64_t guests; /* L2s; 0 outside of tenants */
    uint64_t memory_b, vcpus;
    enum conf_accel accel;
    enum conf_tracer tracer;
    int icount; /* -1 = off, else the shift */
    bool thp, caching_mode, strict, include_boot, allow_drops;
    bool ats; /* NICs with ATS behind root ports of their own, and a device-IOTLB in the IOMMU */
    bool tap; /* taps (tenants: and bridges) instead of sockets and user networks */
    uint64_t timeout_ms;                 /* 0 = by the number of guests */
    char *kernel, *initrd, *disk, *qemu; /* NULL = own */
    bool debootstrap;                    /* the disk is one that we make */
    enum conf_kind kind;
    bool udp;
    char direction[8]; /* tx rx both */
    char rate[24];     /* as iperf3 takes it, a NIC; "" = unbounded */
    uint64_t duration_ms;
    uint64_t bytes_b;  /* 0 = timed */
    uint64_t length_b; /* UDP datagram; 0 = iperf3's */
    uint64_t block_b;  /* of a disk's transfers */
    bool random;       /* disks: bursts of 16 blocks anywhere, instead of one after the other */
    char *script;
};

/* -SF_EUSAGE with file:line for anything that is not a run. conf_clear() in any case. */
int conf_load(const char *path, struct collect_conf *c, struct err *e);
int conf_parse(const char *path, const char *text, struct collect_conf *c, struct err *e);
void conf_clear(struct collect_conf *c);

/* The shipped profile as an INI with its topology as comments; NULL for an unknown name. */
const char *conf_profile(const char *name);
extern const char *const conf_profile_names[]; /* NULL-terminated */

/* Kernel module of a device model, and its QEMU device; NULL for an unknown model. */
const char *conf_module(const char *model);
bool conf_is_disk(const char *model);
const char *conf_tracer_name(enum conf_tracer t);
