/* misuse.c - what C programs do wrong: every mistake has its code, none is undefined, and the communicator still works
 * where it was not at fault.
 *
 *   misuse TRANSPORT [without-fork]
 */
#define _POSIX_C_SOURCE 200809L
#include "ranks.h"
#include <sched.h>
#include <stdatomic.h>

enum { N = 64 };

#define WRONG(call, words) REFUSED(call, UBCCL_INVALID_ARGUMENT, words)

static void still_works(struct ubccl_comm *comm, uint32_t ranks)
{
    int32_t one = 1, sum = 0;
    ubccl_result error = -1;
    OK(ubccl_comm_all_reduce(comm, &one, &sum, 1, UBCCL_I32, UBCCL_SUM));
    CHECK(sum == (int32_t)ranks);
    OK(ubccl_comm_async_error(comm, &error));
    CHECK(error == UBCCL_SUCCESS);
}

/* Every function with a handle that is none: null, an address, another kind. */
static void handles_that_are_none(void *handle, const char *words)
{
    struct ubccl_comm *comm = (struct ubccl_comm *)handle;
    struct ubccl_work *work = NULL, *none = (struct ubccl_work *)handle;
    struct ubccl_counters counters = {.size = sizeof counters};
    struct ubccl_rendezvous *meeting = (struct ubccl_rendezvous *)handle;
    float send[N] = {0}, recv[N];
    size_t counts[2] = {1, 1};
    char text[UBCCL_RENDEZVOUS_TEXT_MAX];
    bool done = false;
    uint32_t rank = 0;
    uint64_t bytes;
    struct ubccl_comm *made = NULL;
    struct ubccl_prepared *prepared = NULL, *not_prepared = (struct ubccl_prepared *)handle;
    struct ubccl_group *group = NULL, *no_group = (struct ubccl_group *)handle;
    ubccl_result error;
    WRONG(ubccl_comm_rank(comm, &rank, &rank), words);
    WRONG(ubccl_comm_transport(comm, text, sizeof text), words);
    WRONG(ubccl_comm_algorithm(comm, "barrier", 0, 0, 0, 0, text, sizeof text), words);
    WRONG(ubccl_comm_async_error(comm, &error), words);
    WRONG(ubccl_comm_counters(comm, &counters), words);
    WRONG(ubccl_comm_set_operation_timeout(comm, 1), words);
    WRONG(ubccl_comm_memory(comm, &bytes), words);
    WRONG(ubccl_comm_split(comm, 0, 0, &made), words);
    WRONG(ubccl_comm_split_ranks(comm, &rank, 1, &made), words);
    WRONG(ubccl_comm_duplicate(comm, &made), words);
    WRONG(ubccl_comm_abort(comm), words);
    WRONG(ubccl_comm_close(comm), words);
    WRONG(ubccl_comm_destroy(comm), words);
    WRONG(ubccl_comm_all_reduce(comm, send, recv, 1, UBCCL_F32, UBCCL_SUM), words);
    WRONG(ubccl_comm_all_gather(comm, send, recv, 1, UBCCL_F32), words);
    WRONG(ubccl_comm_reduce_scatter(comm, send, recv, 1, UBCCL_F32, UBCCL_SUM), words);
    WRONG(ubccl_comm_all_to_all(comm, send, recv, 1, UBCCL_F32), words);
    WRONG(ubccl_comm_barrier(comm), words);
    WRONG(ubccl_comm_broadcast(comm, send, recv, 1, UBCCL_F32, 0), words);
    WRONG(ubccl_comm_reduce(comm, send, recv, 1, UBCCL_F32, UBCCL_SUM, 0), words);
    WRONG(ubccl_comm_gather(comm, send, recv, 1, UBCCL_F32, 0), words);
    WRONG(ubccl_comm_scatter(comm, send, recv, 1, UBCCL_F32, 0), words);
    WRONG(ubccl_comm_all_gather_v(comm, send, recv, counts, NULL, UBCCL_F32), words);
    WRONG(ubccl_comm_reduce_scatter_v(comm, send, recv, counts, UBCCL_F32, UBCCL_SUM), words);
    WRONG(ubccl_comm_gather_v(comm, send, 1, recv, counts, NULL, UBCCL_F32, 0), words);
    WRONG(ubccl_comm_scatter_v(comm, send, counts, NULL, recv, 1, UBCCL_F32, 0), words);
    WRONG(ubccl_comm_all_to_all_v(comm, send, counts, NULL, recv, counts, NULL, UBCCL_F32), words);
    WRONG(ubccl_comm_send(comm, send, 1, UBCCL_F32, 0), words);
    WRONG(ubccl_comm_receive(comm, recv, 1, UBCCL_F32, 0), words);
    WRONG(ubccl_comm_send_receive(comm, send, recv, 1, UBCCL_F32, 0, 0), words);
    WRONG(ubccl_comm_send_tagged(comm, send, 1, UBCCL_F32, 0, 1), words);
    WRONG(ubccl_comm_receive_tagged(comm, recv, 1, UBCCL_F32, 0, 1, &rank), words);
    WRONG(ubccl_comm_send_tagged_async(comm, send, 1, UBCCL_F32, 0, 1, &work), words);
    WRONG(ubccl_comm_receive_tagged_async(comm, recv, 1, UBCCL_F32, 0, 1, &work), words);
    WRONG(ubccl_group_begin(comm, &group), words);
    WRONG(ubccl_comm_all_reduce_prepare(comm, send, recv, 1, UBCCL_F32, UBCCL_SUM, &prepared), words);
    WRONG(ubccl_comm_barrier_prepare(comm, &prepared), words);
    WRONG(ubccl_comm_all_gather_v_prepare(comm, send, recv, counts, NULL, UBCCL_F32, &prepared), words);
    WRONG(ubccl_comm_all_reduce_async(comm, send, recv, 1, UBCCL_F32, UBCCL_SUM, &work), words);
    WRONG(ubccl_comm_all_gather_async(comm, send, recv, 1, UBCCL_F32, &work), words);
    WRONG(ubccl_comm_reduce_scatter_async(comm, send, recv, 1, UBCCL_F32, UBCCL_SUM, &work), words);
    WRONG(ubccl_comm_all_to_all_async(comm, send, recv, 1, UBCCL_F32, &work), words);
    WRONG(ubccl_comm_barrier_async(comm, &work), words);
    WRONG(ubccl_comm_broadcast_async(comm, send, recv, 1, UBCCL_F32, 0, &work), words);
    WRONG(ubccl_comm_reduce_async(comm, send, recv, 1, UBCCL_F32, UBCCL_SUM, 0, &work), words);
    WRONG(ubccl_comm_gather_async(comm, send, recv, 1, UBCCL_F32, 0, &work), words);
    WRONG(ubccl_comm_scatter_async(comm, send, recv, 1, UBCCL_F32, 0, &work), words);
    WRONG(ubccl_comm_all_gather_v_async(comm, send, recv, counts, NULL, UBCCL_F32, &work), words);
    WRONG(ubccl_comm_reduce_scatter_v_async(comm, send, recv, counts, UBCCL_F32, UBCCL_SUM, &work), words);
    WRONG(ubccl_comm_gather_v_async(comm, send, 1, recv, counts, NULL, UBCCL_F32, 0, &work), words);
    WRONG(ubccl_comm_scatter_v_async(comm, send, counts, NULL, recv, 1, UBCCL_F32, 0, &work), words);
    WRONG(ubccl_comm_all_to_all_v_async(comm, send, counts, NULL, recv, counts, NULL, UBCCL_F32, &work), words);
    WRONG(ubccl_comm_send_async(comm, send, 1, UBCCL_F32, 0, &work), words);
    WRONG(ubccl_comm_receive_async(comm, recv, 1, UBCCL_F32, 0, &work), words);
    WRONG(ubccl_comm_send_receive_async(comm, send, recv, 1, UBCCL_F32, 0, 0, &work), words);
    CHECK(work == NULL && made == NULL && group == NULL && prepared == NULL);
    if (handle && strstr(words, "destroyed"))
        return; /* a dead communicator is no dead work */
    WRONG(ubccl_prepared_start(not_prepared), "prepared");
    WRONG(ubccl_prepared_test(not_prepared, &done), "prepared");
    WRONG(ubccl_prepared_wait(not_prepared), "prepared");
    WRONG(ubccl_prepared_wait_timeout(not_prepared, 1, &done), "prepared");
    WRONG(ubccl_prepared_free(not_prepared), "prepared");
    WRONG(ubccl_group_run(no_group), "group");
    WRONG(ubccl_group_issue(no_group, &work), "group");
    WRONG(ubccl_group_destroy(no_group), "group");
    WRONG(ubccl_group_send(no_group, send, 1, UBCCL_F32, 0), "group");
    WRONG(ubccl_group_all_reduce(no_group, send, recv, 1, UBCCL_F32, UBCCL_SUM), "group");
    WRONG(ubccl_group_all_gather_v(no_group, send, recv, counts, NULL, UBCCL_F32), "group");
    WRONG(ubccl_work_source(none, &rank), "work");
    WRONG(ubccl_work_test(none, &done), "work");
    WRONG(ubccl_work_wait(none), "work");
    WRONG(ubccl_work_wait_timeout(none, 1, &done), "work");
    WRONG(ubccl_work_free(none), "work");
    WRONG(ubccl_rendezvous_text(meeting, text, sizeof text), "rendezvous");
    if (handle)
        WRONG(ubccl_rendezvous_destroy(meeting), "rendezvous");
}

static void numbers_that_are_none(struct ubccl_comm *comm)
{
    static const int32_t dtypes[] = {-1, 12, 63, 66, 256 + UBCCL_F32, INT32_MIN, INT32_MAX};
    static const int32_t ops[] = {-1, 5, 63, 67, 68, 256, INT32_MIN, INT32_MAX};
    float send[N] = {0}, recv[N];
    size_t size = 77;
    for (size_t k = 0; k < sizeof dtypes / sizeof *dtypes; k++) {
        WRONG(ubccl_comm_all_reduce(comm, send, recv, 1, dtypes[k], UBCCL_SUM), "is no data type");
        WRONG(ubccl_comm_broadcast(comm, send, recv, 1, dtypes[k], 0), "is no data type");
        WRONG(ubccl_comm_send(comm, send, 1, dtypes[k], 0), "is no data type");
        WRONG(ubccl_op_supports(UBCCL_SUM, dtypes[k]), "is no data type");
        WRONG(ubccl_dtype_size(dtypes[k], &size), "is no data type");
    }
    for (size_t k = 0; k < sizeof ops / sizeof *ops; k++) {
        WRONG(ubccl_comm_all_reduce(comm, send, recv, 1, UBCCL_F32, ops[k]), "is no reduction");
        WRONG(ubccl_comm_reduce(comm, send, recv, 1, UBCCL_F32, ops[k], 0), "is no reduction");
        WRONG(ubccl_op_supports(ops[k], UBCCL_I32), "is no reduction");
    }
    CHECK(size == 77);
    WRONG(ubccl_comm_all_reduce(comm, send, recv, 1, UBCCL_F32, UBCCL_XOR), "xor is not defined for f32");
    WRONG(ubccl_comm_broadcast(comm, send, recv, 1, UBCCL_F32, 2), "root 2 is not a rank");
    WRONG(ubccl_comm_gather_v(comm, send, 1, recv, NULL, NULL, UBCCL_F32, UINT32_MAX), "is not a rank");
    WRONG(ubccl_comm_send(comm, send, 1, UBCCL_F32, 2), "destination 2 is not a rank");
    WRONG(ubccl_comm_receive(comm, recv, 1, UBCCL_F32, 99), "source 99 is not a rank");
    WRONG(ubccl_comm_set_operation_timeout(comm, 0), "timeout_ms is 0");
}

static void never_called(const void *in, void *inout, size_t count, int32_t dtype, void *context)
{
    (void)in, (void)inout, (void)count, (void)dtype, (void)context;
    abort();
}

static void operations_that_are_none(struct ubccl_comm *comm)
{
    static const int32_t none[] = {-1, 5, 67, 68, 1 << 30, (1 << 30) + 77, INT32_MAX, INT32_MIN, (int32_t)0xc0000000};
    float send[N] = {0}, recv[N];
    int32_t op = 77, half;
    for (size_t k = 0; k < sizeof none / sizeof *none; k++)
        WRONG(ubccl_op_destroy(none[k]), "is no reduction");
    WRONG(ubccl_op_destroy(UBCCL_SUM), "is no reduction");
    WRONG(ubccl_op_create_user(NULL, true, never_called, NULL, &op), "needs a name");
    WRONG(ubccl_op_create_user("", true, never_called, NULL, &op), "needs a name");
    WRONG(ubccl_op_create_user("\xff", true, never_called, NULL, &op), "UTF-8");
    WRONG(ubccl_op_create_user("nothing", true, NULL, NULL, &op), "function is null");
    WRONG(ubccl_op_create_user("nothing", true, never_called, NULL, NULL), "out-parameter is null");
    WRONG(ubccl_op_create_premul_sum(0.5, NULL), "out-parameter is null");
    CHECK(op == 77);
    OK(ubccl_op_create_user("nothing", true, never_called, NULL, &op));
    WRONG(ubccl_comm_all_reduce(comm, NULL, recv, 1, UBCCL_F32, op), "input is null");
    OK(ubccl_op_destroy(op));
    OK(ubccl_op_create_premul_sum(0.5, &half)); /* takes its place */
    CHECK(half != op);
    WRONG(ubccl_comm_all_reduce(comm, send, recv, 1, UBCCL_F32, op), "was destroyed");
    WRONG(ubccl_comm_all_reduce(comm, NULL, recv, 1, UBCCL_F32, half), "input is null");
    WRONG(ubccl_comm_all_reduce(comm, send, recv, 1, UBCCL_I32, half), "whole");
    OK(ubccl_op_destroy(half));
}

static void splits_that_are_wrong(struct ubccl_comm *comm)
{
    struct ubccl_comm *made = NULL;
    uint32_t twice[2] = {1, 1};
    WRONG(ubccl_comm_split(comm, -2, 0, &made), "no colour");
    WRONG(ubccl_comm_split(comm, 0, 0, NULL), "out-parameter is null");
    WRONG(ubccl_comm_duplicate(comm, NULL), "out-parameter is null");
    WRONG(ubccl_comm_split_ranks(comm, NULL, 1, &made), "no list");
    WRONG(ubccl_comm_split_ranks(comm, twice, SIZE_MAX, &made), "no list");
    WRONG(ubccl_comm_split_ranks(comm, twice, 2, &made), "twice"); /* both ranks call it */
    CHECK(made == NULL);
}

static void groups_that_are_wrong(struct ubccl_comm *comm, uint32_t rank)
{
    struct ubccl_group *group = NULL;
    struct ubccl_work *work = NULL;
    float send[N] = {0}, recv[N];
    WRONG(ubccl_group_begin(comm, NULL), "out-parameter is null");
    OK(ubccl_group_begin(comm, &group));
    WRONG(ubccl_group_send(group, NULL, 1, UBCCL_F32, 1 - rank), "null");
    WRONG(ubccl_group_receive(group, recv, SIZE_MAX, UBCCL_F32, 1 - rank), "too large");
    WRONG(ubccl_group_receive(group, recv, 1, 99, 1 - rank), "no data type");
    WRONG(ubccl_group_broadcast(group, send, recv, 1, UBCCL_F32, 2), "is not a rank");
    WRONG(ubccl_group_all_reduce(group, send, send + 1, 8, UBCCL_F32, UBCCL_SUM), "overlap");
    WRONG(ubccl_group_all_to_all_v(group, send, NULL, NULL, recv, NULL, NULL, UBCCL_F32), "counts is null");
    WRONG(ubccl_group_issue(group, NULL), "out-parameter is null");
    OK(ubccl_group_run(group)); /* nothing was added */
    OK(ubccl_group_begin(comm, &group));
    OK(ubccl_group_send(group, send, 1, UBCCL_F32, rank)); /* to itself, and nobody receives it */
    WRONG(ubccl_group_issue(group, &work), "itself");
    WRONG(ubccl_group_run(group), "destroyed before");
    CHECK(work == NULL);
}

/* Rank 1 sends only after rank 0 has tried everything with what is under way. */
static void a_prepared_call_under_way(struct ubccl_comm *comm, uint32_t rank)
{
    struct ubccl_prepared *prepared = NULL;
    float send = 3, recv = 0;
    bool done = true;
    WRONG(ubccl_comm_receive_prepare(comm, NULL, 1, UBCCL_F32, 1 - rank, &prepared), "null");
    WRONG(ubccl_comm_receive_prepare(comm, &recv, SIZE_MAX, UBCCL_F32, 1 - rank, &prepared), "too large");
    WRONG(ubccl_comm_receive_prepare(comm, &recv, 1, UBCCL_F32, 1 - rank, NULL), "out-parameter is null");
    CHECK(prepared == NULL);
    if (rank == 0) {
        OK(ubccl_comm_receive_prepare(comm, &recv, 1, UBCCL_F32, 1, &prepared));
        OK(ubccl_prepared_wait(prepared)); /* it was not started */
        OK(ubccl_prepared_start(prepared));
        WRONG(ubccl_prepared_start(prepared), "under way");
        OK(ubccl_prepared_test(prepared, &done));
        CHECK(!done);
        OK(ubccl_prepared_wait_timeout(prepared, 1, &done));
        CHECK(!done);
        WRONG(ubccl_comm_close(comm), "under way");
        OK(ubccl_comm_send(comm, &send, 1, UBCCL_F32, 1));
        OK(ubccl_prepared_free(prepared)); /* waits */
        CHECK(recv == 3);
        WRONG(ubccl_prepared_free(prepared), "destroyed before");
    } else {
        OK(ubccl_comm_receive(comm, &recv, 1, UBCCL_F32, 0));
        OK(ubccl_comm_send(comm, &recv, 1, UBCCL_F32, 0));
    }
}

static void tags_that_are_wrong(struct ubccl_comm *comm, uint32_t rank)
{
    float send[N] = {0}, recv[N];
    uint32_t from = 77;
    WRONG(ubccl_comm_send_tagged(comm, NULL, 1, UBCCL_F32, 1 - rank, 0), "null");
    WRONG(ubccl_comm_send_tagged(comm, send, SIZE_MAX, UBCCL_F32, 1 - rank, 0), "too large");
    WRONG(ubccl_comm_send_tagged(comm, send, 1, UBCCL_F32, UBCCL_ANY_SOURCE, 0), "is not a rank");
    WRONG(ubccl_comm_receive_tagged(comm, recv, 1, UBCCL_F32, 2, 0, &from), "is not a rank");
    WRONG(ubccl_comm_receive_tagged(comm, recv, 1, -1, 0, 0, &from), "no data type");
    CHECK(from == 77);
}

static void counts_that_are_too_large(struct ubccl_comm *comm, uint32_t rank)
{
    static const size_t counts[] = {SIZE_MAX, SIZE_MAX / 2, SIZE_MAX / 4, (size_t)1 << 62, ((size_t)1 << 48) + 1, (size_t)1 << 48};
    double send[N] = {0}, recv[N];
    for (size_t k = 0; k < sizeof counts / sizeof *counts; k++) {
        size_t n = counts[k], first[2] = {n, 0}, last[2] = {1, n}, both[2] = {n, n};
        const size_t *displaced = k < 4 ? last : NULL;
        size_t ones[2] = {1, 1};
        WRONG(ubccl_comm_all_reduce(comm, send, recv, n, UBCCL_F64, UBCCL_SUM), "too large");
        WRONG(ubccl_comm_all_gather(comm, send, recv, n, UBCCL_F64), "too large");
        WRONG(ubccl_comm_reduce_scatter(comm, send, recv, n, UBCCL_F64, UBCCL_SUM), "too large");
        WRONG(ubccl_comm_all_to_all(comm, send, recv, n, UBCCL_F64), "too large");
        WRONG(ubccl_comm_broadcast(comm, send, recv, n, UBCCL_F64, 0), "too large");
        WRONG(ubccl_comm_reduce(comm, send, recv, n, UBCCL_F64, UBCCL_SUM, 0), "too large");
        WRONG(ubccl_comm_gather(comm, send, recv, n, UBCCL_F64, 0), "too large");
        WRONG(ubccl_comm_scatter(comm, send, recv, n, UBCCL_F64, 0), "too large");
        WRONG(ubccl_comm_send(comm, send, n, UBCCL_F64, 1 - rank), "too large");
        WRONG(ubccl_comm_all_gather_v(comm, send, recv, first, NULL, UBCCL_F64), "too large");
        WRONG(ubccl_comm_all_gather_v(comm, send, recv, both, NULL, UBCCL_F64), "too large");
        WRONG(ubccl_comm_reduce_scatter_v(comm, send, recv, last, UBCCL_F64, UBCCL_SUM), "too large");
        WRONG(ubccl_comm_gather_v(comm, send, n, recv, first, NULL, UBCCL_F64, rank), "too large");
        WRONG(ubccl_comm_all_to_all_v(comm, send, last, NULL, recv, first, NULL, UBCCL_F64), "too large");
        if (displaced)
            WRONG(ubccl_comm_all_gather_v(comm, send, recv, ones, displaced, UBCCL_F64), "too large");
    }
}

static void buffers_that_are_wrong(struct ubccl_comm *comm, uint32_t rank)
{
    float send[N] = {0}, recv[N];
    size_t counts[2] = {2, 3}, overlapping[2] = {0, 1}, other[2] = {3, 2};
    char text[4] = "abc";
    struct ubccl_work *work = NULL;
    struct ubccl_counters counters = {.size = 8};
    struct ubccl_error_info info = {.size = 0};
    WRONG(ubccl_comm_all_reduce(comm, NULL, recv, 1, UBCCL_F32, UBCCL_SUM), "input is null");
    WRONG(ubccl_comm_all_reduce(comm, send, NULL, 1, UBCCL_F32, UBCCL_SUM), "output is null");
    WRONG(ubccl_comm_broadcast(comm, NULL, recv, 1, UBCCL_F32, rank), "input is null");
    WRONG(ubccl_comm_send(comm, NULL, 1, UBCCL_F32, 1 - rank), "input is null");
    WRONG(ubccl_comm_receive(comm, NULL, 1, UBCCL_F32, 1 - rank), "output is null");
    WRONG(ubccl_comm_send(comm, send, 1, UBCCL_F32, rank), "itself");
    WRONG(ubccl_comm_all_reduce(comm, send, send + 1, 8, UBCCL_F32, UBCCL_SUM), "overlap");
    WRONG(ubccl_comm_all_gather(comm, send + 1 - rank, send, 1, UBCCL_F32), "overlap");
    WRONG(ubccl_comm_all_gather_v(comm, send, recv, NULL, NULL, UBCCL_F32), "counts is null");
    WRONG(ubccl_comm_reduce_scatter_v(comm, send, recv, NULL, UBCCL_F32, UBCCL_SUM), "counts is null");
    WRONG(ubccl_comm_gather_v(comm, send, 1, recv, NULL, NULL, UBCCL_F32, rank), "counts is null");
    WRONG(ubccl_comm_scatter_v(comm, send, NULL, NULL, recv, 1, UBCCL_F32, rank), "counts is null");
    WRONG(ubccl_comm_all_to_all_v(comm, send, NULL, NULL, recv, counts, NULL, UBCCL_F32), "counts is null");
    WRONG(ubccl_comm_all_to_all_v(comm, send, counts, NULL, recv, NULL, NULL, UBCCL_F32), "counts is null");
    WRONG(ubccl_comm_all_gather_v(comm, send, recv, (const size_t *)(const void *)((const char *)counts + 1), NULL, UBCCL_F32), "aligned");
    WRONG(ubccl_comm_all_gather_v(comm, send, recv, counts, overlapping, UBCCL_F32), "overlap");
    WRONG(ubccl_comm_all_to_all_v(comm, send, counts, NULL, send, other, NULL, UBCCL_F32), "in place");
    WRONG(ubccl_comm_gather_v(comm, send, 9, recv, counts, NULL, UBCCL_F32, rank), "the root's own block");
    WRONG(ubccl_comm_all_reduce_async(comm, send, recv, 1, UBCCL_F32, UBCCL_SUM, NULL), "out-parameter is null");
    WRONG(ubccl_comm_all_reduce_async(comm, send, NULL, 1, UBCCL_F32, UBCCL_SUM, &work), "output is null");
    WRONG(ubccl_comm_async_error(comm, NULL), "out-parameter is null");
    WRONG(ubccl_comm_counters(comm, NULL), "out-parameter is null");
    WRONG(ubccl_comm_counters(comm, &counters), "size is 8");
    WRONG(ubccl_last_error_info(&info), "size is 0");
    WRONG(ubccl_last_error_info(NULL), "out-parameter is null");
    WRONG(ubccl_dtype_size(UBCCL_F32, NULL), "out-parameter is null");
    WRONG(ubccl_comm_transport(comm, text, 1), "bytes");
    WRONG(ubccl_comm_transport(comm, NULL, 100), "bytes");
    WRONG(ubccl_comm_algorithm(comm, NULL, 1, UBCCL_F32, UBCCL_SUM, 0, text, sizeof text), "collective is null");
    WRONG(ubccl_comm_algorithm(comm, "dance", 1, UBCCL_F32, UBCCL_SUM, 0, text, sizeof text), "there are: all_reduce");
    WRONG(ubccl_comm_algorithm(comm, "barrier", 1, UBCCL_F32, UBCCL_SUM, 0, text, sizeof text), "bytes");
    CHECK(work == NULL && strcmp(text, "abc") == 0);
}

struct waiting {
    struct ubccl_work *work;
    atomic_int is_over;
};

static void *wait_for_it(void *argument)
{
    struct waiting *waiting = argument;
    ubccl_result result;
    do { /* until the other thread's test is not in its way */
        result = ubccl_work_wait(waiting->work);
    } while (result == UBCCL_INVALID_ARGUMENT);
    CHECK(result == UBCCL_SUCCESS);
    atomic_store(&waiting->is_over, 1);
    return NULL;
}

/* Rank 1 comes late; meanwhile a thread of rank 0 waits, and another may neither wait, free, close nor destroy. */
static void two_threads_with_one_handle(struct ubccl_comm *comm, uint32_t rank)
{
    struct waiting waiting = {NULL, 0};
    float send = 1, recv = 0;
    bool done = true;
    pthread_t thread;
    if (rank == 0) {
        ubccl_result result = UBCCL_SUCCESS;
        OK(ubccl_comm_receive_async(comm, &recv, 1, UBCCL_F32, 1, &waiting.work));
        OK(ubccl_work_test(waiting.work, &done));
        CHECK(!done);
        OK(ubccl_work_wait_timeout(waiting.work, 0, &done));
        CHECK(!done);
        WRONG(ubccl_comm_close(comm), "under way");
        WRONG(ubccl_comm_destroy(comm), "under way");
        CHECK(pthread_create(&thread, NULL, wait_for_it, &waiting) == 0);
        while (result == UBCCL_SUCCESS) {
            sched_yield();
            result = ubccl_work_test(waiting.work, &done);
            CHECK(!done);
        }
        CHECK(result == UBCCL_INVALID_ARGUMENT && strstr(ubccl_last_error(), "another thread"));
        WRONG(ubccl_work_free(waiting.work), "another thread");
        CHECK(atomic_load(&waiting.is_over) == 0);
        OK(ubccl_comm_send(comm, &send, 1, UBCCL_F32, 1)); /* only now rank 1 sends */
        CHECK(pthread_join(thread, NULL) == 0);
        CHECK(atomic_load(&waiting.is_over) == 1 && recv == 1);
        OK(ubccl_work_free(waiting.work));
    } else {
        OK(ubccl_comm_receive(comm, &recv, 1, UBCCL_F32, 0));
        OK(ubccl_comm_send(comm, &recv, 1, UBCCL_F32, 0));
    }
}

/* What fork copied belongs to the parent. */
static void handles_in_a_forked_child(struct ubccl_comm *comm, struct ubccl_work *work)
{
    pid_t child = fork();
    int status = 0;
    CHECK(child >= 0);
    if (child == 0) {
        struct ubccl_config config;
        struct ubccl_comm *mine = NULL;
        bool done;
        WRONG(ubccl_comm_barrier(comm), "before a fork");
        WRONG(ubccl_comm_destroy(comm), "before a fork");
        WRONG(ubccl_work_test(work, &done), "before a fork");
        OK(ubccl_config_init(&config));
        REFUSED(ubccl_comm_init(&config, &mine), UBCCL_UNSUPPORTED, "fork");
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void endings(struct ubccl_comm *comm, uint32_t rank, uint32_t ranks)
{
    struct ubccl_group *closed = NULL, *destroyed = NULL;
    struct ubccl_prepared *prepared = NULL;
    float send = 1, recv = 0;
    struct ubccl_counters counters = {.size = sizeof counters};
    struct ubccl_work *work = NULL;
    ubccl_result error = -1;
    uint32_t same = 99;
    char text[32];
    OK(ubccl_comm_all_reduce_async(comm, &send, &recv, 1, UBCCL_F32, UBCCL_SUM, &work));
    OK(ubccl_work_wait(work));
    OK(ubccl_group_begin(comm, &closed));
    OK(ubccl_group_begin(comm, &destroyed));
    OK(ubccl_group_all_reduce(closed, &send, &recv, 1, UBCCL_F32, UBCCL_SUM));
    OK(ubccl_group_all_reduce(destroyed, &send, &recv, 1, UBCCL_F32, UBCCL_SUM));
    OK(ubccl_comm_barrier_prepare(comm, &prepared));
    OK(ubccl_comm_close(comm)); /* a work that is over, but not freed, is no hindrance */
    REFUSED(ubccl_comm_close(comm), UBCCL_CLOSED, "closed");
    REFUSED(ubccl_comm_barrier(comm), UBCCL_CLOSED, "closed");
    REFUSED(ubccl_comm_abort(comm), UBCCL_CLOSED, "closed");
    REFUSED(ubccl_comm_set_operation_timeout(comm, 5), UBCCL_CLOSED, "closed");
    OK(ubccl_comm_rank(comm, &same, NULL));
    CHECK(same == rank);
    OK(ubccl_comm_transport(comm, text, sizeof text));
    OK(ubccl_comm_async_error(comm, &error));
    CHECK(error == UBCCL_SUCCESS);
    OK(ubccl_comm_counters(comm, &counters));
    CHECK(counters.total.messages_sent > 0);
    REFUSED(ubccl_group_run(closed), UBCCL_CLOSED, "closed");
    REFUSED(ubccl_prepared_start(prepared), UBCCL_CLOSED, "closed");
    OK(ubccl_comm_destroy(comm));
    WRONG(ubccl_group_run(destroyed), "comm was destroyed before");
    WRONG(ubccl_prepared_start(prepared), "comm was destroyed before");
    OK(ubccl_prepared_free(prepared));
    handles_that_are_none(comm, "comm was destroyed before");
    OK(ubccl_work_wait(work));
    CHECK(recv == (float)ranks);
    OK(ubccl_work_free(work));
    WRONG(ubccl_work_free(work), "destroyed before");
    WRONG(ubccl_work_wait(work), "destroyed before");
}

static int with_fork = 1;

static void mistakes(struct ubccl_comm *comm, uint32_t rank, uint32_t ranks)
{
    struct ubccl_rendezvous *meeting = NULL;
    struct ubccl_work *work = NULL;
    handles_that_are_none(NULL, "comm is null");
    handles_that_are_none(&comm, "not a handle of this kind");
    handles_that_are_none((void *)UINTPTR_MAX, "not a handle of this kind");
    OK(ubccl_rendezvous_create(&meeting));
    WRONG(ubccl_comm_barrier((struct ubccl_comm *)(void *)meeting), "not a handle of this kind");
    OK(ubccl_rendezvous_destroy(meeting));
    WRONG(ubccl_rendezvous_destroy(meeting), "destroyed before");
    WRONG(ubccl_work_wait((struct ubccl_work *)(void *)comm), "not a handle of this kind");
    numbers_that_are_none(comm);
    operations_that_are_none(comm);
    splits_that_are_wrong(comm);
    groups_that_are_wrong(comm, rank);
    tags_that_are_wrong(comm, rank);
    a_prepared_call_under_way(comm, rank);
    counts_that_are_too_large(comm, rank);
    buffers_that_are_wrong(comm, rank);
    still_works(comm, ranks);
    two_threads_with_one_handle(comm, rank);
    OK(ubccl_comm_barrier_async(comm, &work));
    if (with_fork)
        handles_in_a_forked_child(comm, work);
    OK(ubccl_work_free(work));
    still_works(comm, ranks);
    endings(comm, rank, ranks);
}

/* The cause of a failure as fields, the same on both ranks; works of an aborted communicator are over. */
static void one_aborts(struct ubccl_comm *comm, uint32_t rank, uint32_t ranks)
{
    struct ubccl_error_info info = {.size = sizeof info};
    struct ubccl_work *work = NULL;
    float send = 1, recv = 0;
    ubccl_result error = UBCCL_SUCCESS;
    bool done = false;
    still_works(comm, ranks);
    OK(ubccl_last_error_info(&info));
    CHECK(info.result == UBCCL_SUCCESS && !info.has_cause && *info.text == 0 && *info.message == 0 && *info.host == 0);
    WRONG(ubccl_dtype_size(-1, NULL), "-1 is no data type");
    OK(ubccl_last_error_info(&info));
    CHECK(info.result == UBCCL_INVALID_ARGUMENT && !info.has_cause && strcmp(info.text, ubccl_last_error()) == 0);
    if (rank == 0)
        OK(ubccl_comm_receive_async(comm, &recv, 1, UBCCL_F32, 1, &work));
    error = ubccl_comm_barrier(comm); /* rank 1 may abort before this one has seen that all came */
    CHECK(error == UBCCL_SUCCESS || (rank == 0 && error == UBCCL_ABORTED));
    if (rank == 1)
        OK(ubccl_comm_abort(comm));
    else
        REFUSED(ubccl_work_wait(work), UBCCL_ABORTED, "ubccl_comm_abort");
    OK(ubccl_comm_async_error(comm, &error));
    CHECK(error == UBCCL_ABORTED);
    OK(ubccl_last_error_info(&info));
    CHECK(info.result == UBCCL_ABORTED && info.has_cause && info.rank == 1 && info.pid > 0 && *info.host);
    CHECK(strstr(info.message, "ubccl_comm_abort") && strstr(info.text, info.message));
    REFUSED(ubccl_comm_all_reduce(comm, &send, &recv, 1, UBCCL_F32, UBCCL_SUM), UBCCL_ABORTED, "rank 1");
    if (rank == 0) {
        REFUSED(ubccl_work_test(work, &done), UBCCL_ABORTED, "rank 1");
        CHECK(!done);
    }
    CHECK(ubccl_comm_destroy(comm) == UBCCL_ABORTED); /* and it is freed */
    WRONG(ubccl_comm_destroy(comm), "destroyed before");
    if (rank == 0)
        CHECK(ubccl_work_free(work) == UBCCL_ABORTED); /* and it is freed */
}

/* Ranks that call different things: both get the same cause, which names two calls. */
static void they_disagree(struct ubccl_comm *comm, uint32_t rank, uint32_t ranks)
{
    struct ubccl_error_info info = {.size = sizeof info};
    float send[4] = {0}, recv[4];
    still_works(comm, ranks);
    CHECK(ubccl_comm_all_reduce(comm, send, recv, rank ? 3 : 4, UBCCL_F32, UBCCL_SUM) == UBCCL_MISMATCH);
    OK(ubccl_last_error_info(&info));
    CHECK(info.result == UBCCL_MISMATCH && info.has_cause && info.rank < ranks && info.sequence == 2);
    CHECK(strstr(info.operation, "all_reduce"));
    CHECK(ubccl_comm_close(comm) == UBCCL_MISMATCH);
    OK(ubccl_comm_destroy(comm));
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    alarm(250);
    with_fork = argc == 2;
    run_ranks(argv[1], 2, mistakes);
    run_ranks(argv[1], 2, one_aborts);
    run_ranks(argv[1], 2, they_disagree);
    return 0;
}
