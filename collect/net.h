/* Taps and bridges of a run with net = tap, in the network namespace it runs in; needs CAP_NET_ADMIN there.
 *
 * A tap lives as long as a descriptor of it is open, so it goes with its QEMU, however that ends. A bridge stays until
 * somebody removes it: its name and namespace are noted in the stack's state folder before it is made, and both the run's
 * end and the sweep of a later start remove what is noted.
 */
#pragma once
#include <netinet/in.h>
#include <stdbool.h>

#include "proto/base/err.h"

/* A bridge with two taps: fds[0] for L1's card i (from 0), fds[1] for the client VM's. vm_dir: the state folder, whose name
 * gives the links theirs. vnet_hdr: for virtio at end 0. -EPERM and the like name what is missing. */
int net_pair(const char *vm_dir, unsigned i, bool vnet_hdr, int fds[2], struct err *e);

/* A tap for card i whose host end has the address 10.0.(11+i).2/24. -EADDRINUSE when this namespace has that address
 * already: one stack at a time there. */
int net_host(const char *vm_dir, unsigned i, bool vnet_hdr, int *fd, struct err *e);
struct in_addr net_host_addr(unsigned i);

/* Remove the bridges that the folder notes. false: some belong to another namespace that still exists, so the note must
 * stay until a start there. */
bool net_sweep(const char *vm_dir);
