/* The drop-in program alone, for the golden cases; not installed. */
#include "perf/compat/compat.h"

int main(int argc, char **argv)
{
    return hypersio_perf_main(argc, argv);
}
