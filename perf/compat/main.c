#include "perf/compat/compat.h"

int main(int argc, char **argv)
{
    return hypersio_perf_main(argc, argv);
}
