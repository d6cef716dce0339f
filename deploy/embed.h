/* Scripts of deploy/remote/ inside the program; made by deploy/CMakeLists.txt. Each ends with a 0 that _n does not count. */
#pragma once
#include <stddef.h>

extern const char embed_host[], embed_run_agent[], embed_supervise[];
extern const size_t embed_host_n, embed_run_agent_n, embed_supervise_n;
