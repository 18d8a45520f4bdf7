/* small.c - a program as a user would write it: sums over two processes, with a work, and no handle left over.
 *
 *   small TRANSPORT
 */
#define _POSIX_C_SOURCE 200809L
#include "ranks.h"

enum { LENGTH = 20000 };

static void sums(struct ubccl_comm *comm, uint32_t rank, uint32_t ranks)
{
    float *gradients = malloc(LENGTH * sizeof *gradients);
    double loss = rank + 1, total = 0;
    struct ubccl_work *work = NULL;
    CHECK(gradients != NULL);
    for (int i = 0; i < LENGTH; i++)
        gradients[i] = (float)(i % 10) + (float)rank;
    OK(ubccl_comm_all_reduce_async(comm, gradients, gradients, LENGTH, UBCCL_F32, UBCCL_SUM, &work));
    OK(ubccl_comm_all_reduce(comm, &loss, &total, 1, UBCCL_F64, UBCCL_SUM));
    OK(ubccl_work_wait(work));
    OK(ubccl_work_free(work));
    CHECK(total == ranks * (ranks + 1) / 2.0);
    for (int i = 0; i < LENGTH; i++)
        CHECK(gradients[i] == (float)(ranks * (uint32_t)(i % 10) + ranks * (ranks - 1) / 2));
    free(gradients);
    OK(ubccl_comm_destroy(comm));
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    alarm(250);
    run_ranks(argv[1], 2, sums);
    return 0;
}
