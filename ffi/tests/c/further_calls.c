/* further_calls.c - tags, groups, operations of one's own and further communicators, against plain loops.
 *
 *   further_calls TRANSPORT RANKS
 */
#define _POSIX_C_SOURCE 200809L
#include "plain.h"

/* Messages with tags, taken in another order than sent, and from whoever comes. */
static void tags(enum how how, size_t n, int32_t dtype)
{
    uint32_t next = (me + 1) % all, last = (me + all - 1) % all, from = 99;
    void *send = make(n, dtype), *recv = make(n, dtype), *second = make(n, dtype);
    struct ubccl_work *work = NULL;
    contribute(send, me, 0, n, dtype);
    OK(ubccl_comm_receive_tagged_async(comm, second, n, dtype, UBCCL_ANY_SOURCE, 7, &work));
    if (how == BLOCKING && all > 1) {
        OK(ubccl_comm_send_tagged(comm, send, n, dtype, next, 8));
        OK(ubccl_comm_send_tagged(comm, send, n, dtype, next, 7));
        OK(ubccl_comm_receive_tagged(comm, recv, n, dtype, last, 8, &from));
        CHECK(from == last);
    } else {
        struct ubccl_work *works[2], *receive = NULL;
        OK(ubccl_comm_receive_tagged_async(comm, recv, n, dtype, last, 8, &receive));
        OK(ubccl_comm_send_tagged_async(comm, send, n, dtype, next, 8, &works[0]));
        OK(ubccl_comm_send_tagged_async(comm, send, n, dtype, next, 7, &works[1]));
        OK(ubccl_work_wait(works[0]));
        REFUSED(ubccl_work_source(works[0], &from), UBCCL_INVALID_ARGUMENT, "only a receive");
        OK(ubccl_work_free(works[0]));
        finish(works[1], how);
        finish(receive, how);
    }
    OK(ubccl_work_source(work, &from));
    CHECK(from == last);
    OK(ubccl_work_free(work));
    expect(recv, last, 0, n, dtype);
    expect(second, last, 0, n, dtype);
    OK(ubccl_comm_barrier(comm)); /* tags are used again */
    free(send), free(recv), free(second);
}

static void run_group(struct ubccl_group *group, enum how how)
{
    struct ubccl_work *work = NULL;
    if (how == BLOCKING) {
        OK(ubccl_group_run(group));
    } else {
        OK(ubccl_group_issue(group, &work));
        finish(work, how);
    }
    REFUSED(ubccl_group_run(group), UBCCL_INVALID_ARGUMENT, "destroyed before");
}

/* Everybody to everybody, itself included, and every collective, at once. */
static void groups(enum how how, size_t n, int32_t dtype)
{
    struct ubccl_group *group = NULL;
    struct blocks blocks = blocks_of(n, 0);
    size_t even[MOST_RANKS], mine = blocks.counts[me];
    uint32_t root = all - 1;
    int32_t twice = 0;
    void *send = make(n * all, dtype), *to_all = make(n * all, dtype), *got = make(n * all, dtype);
    void *sum = make(n, dtype), *at_root = make(n, dtype), *part = make(n, dtype), *whole = make(n * all, dtype);
    void *exchanged = make(n * all, dtype), *cast = make(n, dtype), *gathered = make(n * all, dtype);
    void *scattered = make(n, dtype), *block = make(mine, dtype), *blocks_got = make(blocks.extent, dtype);
    void *blocks_at_root = make(blocks.extent, dtype), *table = make(blocks.extent, dtype), *drawn = make(mine, dtype);
    void *reduced_block = make(mine, dtype), *moved = make(n * all, dtype), *doubled = make(n, dtype);
    for (uint32_t other = 0; other < all; other++)
        even[other] = n;
    contribute(send, me, 0, n * all, dtype);
    contribute(block, me, 0, mine, dtype);
    contribute(table, me, 0, blocks.extent, dtype);
    OK(ubccl_op_create_premul_sum(2, &twice));
    for (uint32_t other = 0; other < all; other++)
        contribute(at(to_all, other * n, dtype), me, other, n, dtype);

    OK(ubccl_group_begin(comm, &group));
    for (uint32_t other = 0; other < all; other++) {
        OK(ubccl_group_send(group, at(to_all, other * n, dtype), n, dtype, other));
        OK(ubccl_group_receive(group, at(got, other * n, dtype), n, dtype, other));
    }
    OK(ubccl_group_all_reduce(group, send, sum, n, dtype, UBCCL_SUM));
    OK(ubccl_group_reduce(group, send, me == root ? at_root : NULL, n, dtype, UBCCL_MAX, root));
    OK(ubccl_group_reduce_scatter(group, send, part, n, dtype, UBCCL_SUM));
    OK(ubccl_group_all_gather(group, send, whole, n, dtype));
    OK(ubccl_group_all_to_all(group, send, exchanged, n, dtype));
    OK(ubccl_group_broadcast(group, send, cast, n, dtype, root));
    OK(ubccl_group_gather(group, send, gathered, n, dtype, root));
    OK(ubccl_group_scatter(group, send, scattered, n, dtype, root));
    OK(ubccl_group_all_gather_v(group, block, blocks_got, blocks.counts, NULL, dtype));
    OK(ubccl_group_gather_v(group, block, mine, blocks_at_root, blocks.counts, NULL, dtype, root));
    OK(ubccl_group_scatter_v(group, table, blocks.counts, NULL, drawn, mine, dtype, root));
    OK(ubccl_group_reduce_scatter_v(group, table, reduced_block, blocks.counts, dtype, UBCCL_SUM));
    OK(ubccl_group_all_to_all_v(group, send, even, NULL, moved, even, NULL, dtype));
    OK(ubccl_group_all_reduce(group, send, doubled, n, dtype, twice));
    REFUSED(ubccl_group_send(group, send, n, dtype, all), UBCCL_INVALID_ARGUMENT, "is not a rank");
    REFUSED(ubccl_group_all_reduce(group, send, sum, n, dtype, -1), UBCCL_INVALID_ARGUMENT, "is no reduction");
    run_group(group, how);

    for (uint32_t other = 0; other < all; other++) {
        expect(at(got, other * n, dtype), other, me, n, dtype);
        expect(at(whole, other * n, dtype), other, 0, n, dtype);
        expect(at(exchanged, other * n, dtype), other, me * n, n, dtype);
        expect(at(moved, other * n, dtype), other, me * n, n, dtype);
        expect(at(blocks_got, blocks.starts[other], dtype), other, 0, blocks.counts[other], dtype);
        if (me == root) {
            expect(at(gathered, other * n, dtype), other, 0, n, dtype);
            expect(at(blocks_at_root, blocks.starts[other], dtype), other, 0, blocks.counts[other], dtype);
        }
    }
    expect_reduced(sum, all, 0, n, UBCCL_SUM, dtype);
    if (me == root)
        expect_reduced(at_root, all, 0, n, UBCCL_MAX, dtype);
    expect_reduced(part, all, me * n, n, UBCCL_SUM, dtype);
    expect(cast, root, 0, n, dtype);
    expect(scattered, root, me * n, n, dtype);
    expect(drawn, root, blocks.starts[me], mine, dtype);
    expect_reduced(reduced_block, all, blocks.starts[me], mine, UBCCL_SUM, dtype);
    for (size_t i = 0; i < n; i++)
        CHECK(load(doubled, i, dtype) == 2 * reduced(all, i, UBCCL_SUM, dtype));

    OK(ubccl_group_begin(comm, &group));
    OK(ubccl_group_send(group, send, n, dtype, root)); /* and changes its mind */
    OK(ubccl_group_destroy(group));
    REFUSED(ubccl_group_destroy(group), UBCCL_INVALID_ARGUMENT, "destroyed before");
    OK(ubccl_op_destroy(twice));
    free(send), free(to_all), free(got), free(sum), free(at_root), free(part), free(whole), free(exchanged), free(cast);
    free(gathered), free(scattered), free(block), free(blocks_got), free(blocks_at_root), free(table), free(drawn);
    free(reduced_block), free(moved), free(doubled);
}

enum { MOST_PREPARED = 32 };

static void start_and_wait(struct ubccl_prepared **prepared, int number, int round)
{
    bool done = false;
    for (int k = 0; k < number; k++)
        OK(ubccl_prepared_start(prepared[k]));
    for (int k = number - 1; k >= 0; k--) {
        switch ((k + round) % 3) {
        case 0: OK(ubccl_prepared_wait(prepared[k])); break;
        case 1: do OK(ubccl_prepared_test(prepared[k], &done)); while (!done); break;
        default: do OK(ubccl_prepared_wait_timeout(prepared[k], 1000, &done)); while (!done); break;
        }
    }
}

/* Every call, prepared once and started three times on changing data. */
static void persistent(size_t n, int32_t dtype)
{
    struct ubccl_prepared *prepared[MOST_PREPARED], *refused = NULL;
    struct blocks blocks = blocks_of(n, 0);
    uint32_t root = all - 1, next = (me + 1) % all, last = (me + all - 1) % all;
    size_t even[MOST_RANKS], mine = blocks.counts[me];
    int number = 0;
    int32_t twice = 0;
    void *send = make(n * all, dtype), *table = make(blocks.extent, dtype), *block = make(mine, dtype);
    void *sum = make(n, dtype), *whole = make(n * all, dtype), *part = make(n, dtype), *exchanged = make(n * all, dtype);
    void *cast = make(n, dtype), *at_root = make(n, dtype), *gathered = make(n * all, dtype), *scattered = make(n, dtype);
    void *rotated = make(n, dtype), *got = make(n, dtype), *in_place = make(n, dtype);
    void *blocks_got = make(blocks.extent, dtype), *blocks_at_root = make(blocks.extent, dtype);
    void *drawn = make(mine, dtype), *reduced_block = make(mine, dtype), *moved = make(n * all, dtype);
    for (uint32_t other = 0; other < all; other++)
        even[other] = n;
    struct ubccl_prepared **p = prepared;
    OK(ubccl_comm_all_reduce_prepare(comm, send, sum, n, dtype, UBCCL_SUM, &p[number++]));
    OK(ubccl_comm_all_reduce_prepare(comm, in_place, in_place, n, dtype, UBCCL_SUM, &p[number++]));
    OK(ubccl_comm_all_gather_prepare(comm, send, whole, n, dtype, &p[number++]));
    OK(ubccl_comm_reduce_scatter_prepare(comm, send, part, n, dtype, UBCCL_SUM, &p[number++]));
    OK(ubccl_comm_all_to_all_prepare(comm, send, exchanged, n, dtype, &p[number++]));
    OK(ubccl_comm_barrier_prepare(comm, &p[number++]));
    OK(ubccl_comm_broadcast_prepare(comm, send, cast, n, dtype, root, &p[number++]));
    OK(ubccl_comm_reduce_prepare(comm, send, at_root, n, dtype, UBCCL_SUM, root, &p[number++]));
    OK(ubccl_comm_gather_prepare(comm, send, gathered, n, dtype, root, &p[number++]));
    OK(ubccl_comm_scatter_prepare(comm, send, scattered, n, dtype, root, &p[number++]));
    OK(ubccl_comm_send_receive_prepare(comm, send, rotated, n, dtype, next, last, &p[number++]));
    OK(ubccl_comm_all_gather_v_prepare(comm, block, blocks_got, blocks.counts, NULL, dtype, &p[number++]));
    OK(ubccl_comm_gather_v_prepare(comm, block, mine, blocks_at_root, blocks.counts, NULL, dtype, root, &p[number++]));
    OK(ubccl_comm_scatter_v_prepare(comm, table, blocks.counts, NULL, drawn, mine, dtype, root, &p[number++]));
    OK(ubccl_comm_reduce_scatter_v_prepare(comm, table, reduced_block, blocks.counts, dtype, UBCCL_SUM, &p[number++]));
    OK(ubccl_comm_all_to_all_v_prepare(comm, send, even, NULL, moved, even, NULL, dtype, &p[number++]));
    if (all > 1) {
        OK(ubccl_comm_send_prepare(comm, send, n, dtype, next, &p[number++]));
        OK(ubccl_comm_receive_prepare(comm, got, n, dtype, last, &p[number++]));
    }
    OK(ubccl_op_create_premul_sum(2, &twice));
    REFUSED(ubccl_comm_all_reduce_prepare(comm, send, sum, n, dtype, twice, &refused), UBCCL_UNSUPPORTED, "multiply");
    OK(ubccl_op_destroy(twice));
    for (size_t round = 0; round < 3; round++) {
        contribute(send, me, round, n * all, dtype);
        contribute(in_place, me, round, n, dtype);
        contribute(table, me, round, blocks.extent, dtype);
        contribute(block, me, round, mine, dtype);
        start_and_wait(prepared, number, (int)round);
        expect_reduced(sum, all, round, n, UBCCL_SUM, dtype);
        expect_reduced(in_place, all, round, n, UBCCL_SUM, dtype);
        expect_reduced(part, all, round + me * n, n, UBCCL_SUM, dtype);
        expect(cast, root, round, n, dtype);
        expect(scattered, root, round + me * n, n, dtype);
        expect(rotated, last, round, n, dtype);
        expect(drawn, root, round + blocks.starts[me], mine, dtype);
        expect_reduced(reduced_block, all, round + blocks.starts[me], mine, UBCCL_SUM, dtype);
        if (all > 1)
            expect(got, last, round, n, dtype);
        if (me == root)
            expect_reduced(at_root, all, round, n, UBCCL_SUM, dtype);
        for (uint32_t other = 0; other < all; other++) {
            expect(at(whole, other * n, dtype), other, round, n, dtype);
            expect(at(exchanged, other * n, dtype), other, round + me * n, n, dtype);
            expect(at(moved, other * n, dtype), other, round + me * n, n, dtype);
            expect(at(blocks_got, blocks.starts[other], dtype), other, round, blocks.counts[other], dtype);
            if (me == root) {
                expect(at(gathered, other * n, dtype), other, round, n, dtype);
                expect(at(blocks_at_root, blocks.starts[other], dtype), other, round, blocks.counts[other], dtype);
            }
        }
    }
    for (int k = 0; k < number; k++)
        OK(ubccl_prepared_free(prepared[k]));
    REFUSED(ubccl_prepared_start(prepared[0]), UBCCL_INVALID_ARGUMENT, "destroyed before");
    free(send), free(table), free(block), free(sum), free(whole), free(part), free(exchanged), free(cast), free(at_root);
    free(gathered), free(scattered), free(rotated), free(got), free(in_place), free(blocks_got), free(blocks_at_root);
    free(drawn), free(reduced_block), free(moved);
}

/* inout op in, with a context that counts nothing but must arrive: x op y = 2 x + y does not commute. */
static void double_and_add(const void *in, void *inout, size_t count, int32_t dtype, void *context)
{
    const int factor = *(const int *)context;
    for (size_t i = 0; i < count; i++)
        store(inout, i, dtype, factor * load(inout, i, dtype) + load(in, i, dtype));
}

static void larger(const void *in, void *inout, size_t count, int32_t dtype, void *context)
{
    (void)context;
    for (size_t i = 0; i < count; i++)
        if (load(in, i, dtype) > load(inout, i, dtype))
            store(inout, i, dtype, load(in, i, dtype));
}

static void operations_of_ones_own(size_t n)
{
    static int factor = 2;
    int32_t ordered = 0, commuting = 0, same = 0, scaled = 0;
    void *send = make(n, UBCCL_I32), *recv = make(n, UBCCL_I32);
    OK(ubccl_op_create_user("double-and-add", false, double_and_add, &factor, &ordered));
    OK(ubccl_op_create_user("larger", true, larger, NULL, &commuting));
    OK(ubccl_op_create_user("larger", true, larger, NULL, &same));
    CHECK(ordered != commuting && commuting != same && ubccl_op_supports(ordered, UBCCL_F8E5M2) == UBCCL_SUCCESS);
    CHECK(strcmp(ubccl_op_name(ordered), "unknown operation") == 0);
    contribute(send, me, 0, n, UBCCL_I32);
    for (int how = 0; how < HOWS; how++) {
        CALL(how, all_reduce, comm, send, recv, n, UBCCL_I32, ordered);
        for (size_t i = 0; i < n; i++) {
            double expected = value(0, i);
            for (uint32_t rank = 1; rank < all; rank++)
                expected = 2 * expected + value(rank, i);
            CHECK(load(recv, i, UBCCL_I32) == expected);
        }
        CALL(how, all_reduce, comm, send, recv, n, UBCCL_I32, how % 2 ? commuting : same);
        expect_reduced(recv, all, 0, n, UBCCL_MAX, UBCCL_I32);
    }
    OK(ubccl_op_destroy(same));
    REFUSED(ubccl_op_destroy(same), UBCCL_INVALID_ARGUMENT, "destroyed");
    REFUSED(ubccl_comm_all_reduce(comm, send, recv, n, UBCCL_I32, same), UBCCL_INVALID_ARGUMENT, "destroyed");

    OK(ubccl_op_create_premul_sum(me + 1.0, &scaled));
    for (int how = 0; how < HOWS; how++) {
        CALL(how, all_reduce, comm, send, recv, n, UBCCL_I32, scaled);
        expect(send, me, 0, n, UBCCL_I32); /* out of place it is left alone */
        CALL(how, reduce, comm, send, me == 0 ? send : NULL, n, UBCCL_I32, scaled, 0);
        for (size_t i = 0; i < n; i++) {
            double expected = 0;
            for (uint32_t rank = 0; rank < all; rank++)
                expected += (rank + 1) * value(rank, i);
            CHECK(load(recv, i, UBCCL_I32) == expected);
            CHECK(load(send, i, UBCCL_I32) == (me == 0 ? expected : value(me, i)));
        }
        contribute(send, me, 0, n, UBCCL_I32);
    }
    OK(ubccl_op_destroy(scaled));
    OK(ubccl_op_destroy(commuting));
    OK(ubccl_op_destroy(ordered));
    free(send), free(recv);
}

static void sum_of_ones(struct ubccl_comm *over, uint32_t expected)
{
    int32_t one = 1, sum = 0;
    OK(ubccl_comm_all_reduce(over, &one, &sum, 1, UBCCL_I32, UBCCL_SUM));
    CHECK(sum == (int32_t)expected);
}

static void further_communicators(void)
{
    struct ubccl_comm *half = NULL, *few = NULL, *twin = NULL;
    uint32_t rank = 99, ranks = 99, list[MOST_RANKS];
    char text[64];
    OK(ubccl_comm_split(comm, (int32_t)(me % 2), -(int64_t)me, &half)); /* backwards */
    OK(ubccl_comm_rank(half, &rank, &ranks));
    CHECK(ranks == (all + 1 - me % 2) / 2 && rank == (all - 1 - me) / 2);
    sum_of_ones(half, ranks);
    OK(ubccl_comm_transport(half, text, sizeof text));
    OK(ubccl_comm_destroy(half));

    OK(ubccl_comm_split(comm, me == 0 ? UBCCL_NO_COLOUR : 7, 0, &few));
    CHECK((me == 0) == (few == NULL));
    if (few) {
        sum_of_ones(few, all - 1);
        OK(ubccl_comm_destroy(few));
    }
    for (uint32_t k = 0; k < all; k++)
        list[k] = all - 1 - k;
    few = NULL;
    OK(ubccl_comm_split_ranks(comm, list, all > 1 ? all - 1 : 1, &few)); /* without rank 0, if there is another */
    CHECK((me == 0 && all > 1) == (few == NULL));
    if (few) {
        OK(ubccl_comm_rank(few, &rank, NULL));
        CHECK(rank == all - 1 - me);
        OK(ubccl_comm_destroy(few));
    }
    REFUSED(ubccl_comm_split_ranks(comm, list, 0, &few), UBCCL_INVALID_ARGUMENT, "empty");

    OK(ubccl_comm_duplicate(comm, &twin));
    sum_of_ones(twin, all);
    sum_of_ones(comm, all);
    OK(ubccl_comm_destroy(twin));
    sum_of_ones(comm, all);
}

/* A buffer that peers read and write in place, whole and in part, mixed with ordinary memory. */
static void registered_memory(size_t count)
{
    float *ordinary = malloc(count * sizeof(float)); /* ranks may be threads */
    void *memory = NULL, *other = NULL;
    REFUSED(ubccl_mem_alloc(comm, 16, NULL), UBCCL_INVALID_ARGUMENT, "null");
    REFUSED(ubccl_mem_alloc(NULL, 16, &memory), UBCCL_INVALID_ARGUMENT, "comm is null");
    REFUSED(ubccl_mem_alloc(comm, SIZE_MAX, &memory), UBCCL_INVALID_ARGUMENT, "addresses");
    CHECK(memory == NULL);
    OK(ubccl_mem_alloc(comm, count * sizeof(float), &memory));
    OK(ubccl_mem_alloc(comm, 0, &other));
    float *region = (float *)memory;
    for (size_t k = 0; k < count; k++) {
        CHECK(region[k] == 0);
        region[k] = (float)(k % 1000 + me);
        ordinary[k] = (float)(k % 1000 + me);
    }
    OK(ubccl_comm_all_reduce(comm, region, region, count, UBCCL_F32, UBCCL_SUM));
    OK(ubccl_comm_all_reduce(comm, ordinary + 1, region + 1, count - 1, UBCCL_F32, UBCCL_SUM)); /* from one to the other */
    for (size_t k = 0; k < count; k++)
        CHECK(region[k] == (float)(all * (k % 1000) + all * (all - 1) / 2));
    free(ordinary);
    OK(ubccl_mem_free(comm, NULL));
    REFUSED(ubccl_mem_free(comm, region + 1), UBCCL_INVALID_ARGUMENT, "not memory");
    OK(ubccl_mem_free(comm, other));
    OK(ubccl_mem_free(comm, memory));
    REFUSED(ubccl_mem_free(comm, memory), UBCCL_INVALID_ARGUMENT, "not memory");
    OK(ubccl_mem_alloc(comm, 5, &memory)); /* goes with the communicator */
}

static void every_further_call(struct ubccl_comm *given, uint32_t rank, uint32_t ranks)
{
    static const int32_t dtypes[] = {UBCCL_U8, UBCCL_I32, UBCCL_F32, UBCCL_F64};
    static const size_t counts[] = {0, 1, 7, 3001};
    comm = given, me = rank, all = ranks;
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
        for (int how = 0; how < HOWS; how++) {
            int32_t dtype = dtypes[(c + (size_t)how) % (sizeof dtypes / sizeof *dtypes)];
            tags((enum how)how, counts[c], dtype);
            groups((enum how)how, counts[c], dtype);
        }
    persistent(0, UBCCL_F32);
    persistent(5, UBCCL_I32);
    persistent(3001, UBCCL_F64);
    operations_of_ones_own(3001);
    operations_of_ones_own(5);
    further_communicators();
    registered_memory(70001);
    registered_memory(1);
    OK(ubccl_comm_destroy(comm));
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    alarm(250);
    run_ranks(argv[1], (uint32_t)atoi(argv[2]), every_further_call);
    return 0;
}
