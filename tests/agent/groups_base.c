/* Says where tasks get control groups here, and what those limit: for a guest that has nothing but a static program. */
#include <stdio.h>

#include "agent/cgroup.h"

int main(void)
{
    char base[CGROUP_PATH_MAX], why[200], limits[64];
    if (cgroup_base("/proc", base, why) < 0) {
        printf("none: %s\n", why);
        return 1;
    }
    cgroup_controllers(base, limits);
    printf("%s: %s\n", base, limits);
    return 0;
}
