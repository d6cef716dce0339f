/* Inside of client.c and file.c. */
#pragma once
#include "proto/bulk/bulk.h"
#include "proto/client/client.h"
#include "proto/link/link.h"
#include "proto/xfer/drive.h"

enum { SLICE_MS = 100 };

struct client {
    struct link *link;
    struct xfers *xfers; /* while a file moves */
    struct bulk *bulk;   /* made with the first file; NULL = none */
    uint64_t features;   /* of the coordinator, as of its last welcome */
    uint64_t heard_ms;   /* when it last said something about the file that moves */
    const volatile sig_atomic_t *stop;
    char *ep;
    uint64_t last_req, hello_req;
    bool ready; /* the hello of this connection is answered */
    char refusal[65];
    unsigned connect_ms;
};

/* -ECANCELED when the user wants to end. */
int client_stopped(const struct client *c, struct err *e);
/* Work for at most wait_ms or until something happens. want: the req whose answer goes to *ret (then 1 is returned),
 * 0 = none. Sets *ret_up when a hello was answered, after which questions must be asked again. */
int client_work(struct client *c, int64_t wait_ms, uint64_t want, struct msg *ret, bool *ret_up,
                struct err *e);
/* For transfers: -EHOSTUNREACH while the hello is not answered. */
int client_send_xfer(struct client *c, uint64_t peer, const struct msg *m);
