/* Files of deploy/ inside the program; made by deploy/CMakeLists.txt. Each ends with a 0 that _n does not count. */
#pragma once
#include <stddef.h>

extern const char embed_host[], embed_run[], embed_supervise[], embed_kvm[], embed_template[],
    embed_slurm[];
extern const size_t embed_host_n, embed_run_n, embed_supervise_n, embed_kvm_n, embed_template_n,
    embed_slurm_n;
