/* all_calls.c - every collective of the C interface, blocking and with works, in and out of place, against plain loops.
 *
 *   all_calls TRANSPORT RANKS
 */
#define _POSIX_C_SOURCE 200809L
#include "plain.h"

static void reductions(enum how how, size_t n, int32_t dtype, int32_t op)
{
    uint32_t root = (uint32_t)(n % all);
    void *send = make(n * all, dtype), *recv = make(n, dtype), *shared = make(n * all, dtype);
    contribute(send, me, 0, n * all, dtype);

    CALL(how, all_reduce, comm, send, recv, n, dtype, op);
    expect_reduced(recv, all, 0, n, op, dtype);
    contribute(shared, me, 0, n, dtype);
    CALL(how, all_reduce, comm, shared, shared, n, dtype, op);
    expect_reduced(shared, all, 0, n, op, dtype);

    CALL(how, reduce_scatter, comm, send, recv, n, dtype, op);
    expect_reduced(recv, all, me * n, n, op, dtype);
    contribute(shared, me, 0, n * all, dtype);
    CALL(how, reduce_scatter, comm, shared, at(shared, me * n, dtype), n, dtype, op);
    expect_reduced(at(shared, me * n, dtype), all, me * n, n, op, dtype);
    for (uint32_t other = 0; other < all; other++)
        if (other != me)
            expect(at(shared, other * n, dtype), me, other * n, n, dtype);

    CALL(how, reduce, comm, send, me == root ? recv : NULL, n, dtype, op, root);
    if (me == root)
        expect_reduced(recv, all, 0, n, op, dtype);
    contribute(shared, me, 0, n, dtype);
    CALL(how, reduce, comm, shared, shared, n, dtype, op, root);
    if (me == root)
        expect_reduced(shared, all, 0, n, op, dtype);
    else
        expect(shared, me, 0, n, dtype);
    expect(send, me, 0, n * all, dtype);
    free(send), free(recv), free(shared);
}

static void moves_from_and_to_a_root(enum how how, size_t n, int32_t dtype)
{
    uint32_t root = (uint32_t)((n + 1) % all);
    void *one = make(n, dtype), *whole = make(n * all, dtype);

    contribute(one, me, 0, n, dtype);
    CALL(how, broadcast, comm, me == root ? one : NULL, whole, n, dtype, root);
    expect(whole, root, 0, n, dtype);
    contribute(whole, me, 0, n, dtype);
    CALL(how, broadcast, comm, whole, whole, n, dtype, root);
    expect(whole, root, 0, n, dtype);

    CALL(how, gather, comm, one, me == root ? whole : NULL, n, dtype, root);
    for (uint32_t other = 0; me == root && other < all; other++)
        expect(at(whole, other * n, dtype), other, 0, n, dtype);
    contribute(at(whole, me * n, dtype), me, 0, n, dtype);
    CALL(how, gather, comm, me == root ? at(whole, me * n, dtype) : one, whole, n, dtype, root);
    for (uint32_t other = 0; me == root && other < all; other++)
        expect(at(whole, other * n, dtype), other, 0, n, dtype);

    contribute(whole, me, 0, n * all, dtype);
    CALL(how, scatter, comm, me == root ? whole : NULL, one, n, dtype, root);
    expect(one, root, me * n, n, dtype);
    CALL(how, scatter, comm, whole, me == root ? at(whole, me * n, dtype) : one, n, dtype, root);
    expect(me == root ? at(whole, me * n, dtype) : one, root, me * n, n, dtype);
    free(one), free(whole);
}

static void exchanges(enum how how, size_t n, int32_t dtype)
{
    void *send = make(n * all, dtype), *recv = make(n * all, dtype);
    contribute(send, me, 0, n, dtype);
    CALL(how, all_gather, comm, send, recv, n, dtype);
    for (uint32_t other = 0; other < all; other++)
        expect(at(recv, other * n, dtype), other, 0, n, dtype);
    contribute(at(send, me * n, dtype), me, 0, n, dtype);
    CALL(how, all_gather, comm, at(send, me * n, dtype), send, n, dtype);
    for (uint32_t other = 0; other < all; other++)
        expect(at(send, other * n, dtype), other, 0, n, dtype);

    contribute(send, me, 0, n * all, dtype);
    CALL(how, all_to_all, comm, send, recv, n, dtype);
    for (uint32_t other = 0; other < all; other++)
        expect(at(recv, other * n, dtype), other, me * n, n, dtype);
    CALL(how, all_to_all, comm, send, send, n, dtype);
    for (uint32_t other = 0; other < all; other++)
        expect(at(send, other * n, dtype), other, me * n, n, dtype);
    free(send), free(recv);
}

static void tables(enum how how, size_t n, int32_t dtype, int with_gaps)
{
    struct blocks blocks = blocks_of(n, with_gaps), packed = blocks_of(n, 0);
    const size_t *counts = blocks.counts, *starts = with_gaps ? blocks.starts : NULL;
    size_t mine = counts[me], place = blocks.starts[me];
    uint32_t root = all - 1;
    void *one = make(mine, dtype), *whole = make(blocks.extent, dtype), *sum = make(packed.extent, dtype);

    contribute(one, me, 0, mine, dtype);
    CALL(how, all_gather_v, comm, one, whole, counts, starts, dtype);
    for (uint32_t other = 0; other < all; other++)
        expect(at(whole, blocks.starts[other], dtype), other, 0, counts[other], dtype);
    CALL(how, all_gather_v, comm, at(whole, place, dtype), whole, counts, starts, dtype);
    for (uint32_t other = 0; other < all; other++)
        expect(at(whole, blocks.starts[other], dtype), other, 0, counts[other], dtype);
    if (with_gaps && all > 1)
        CHECK(load(whole, counts[all - 1], dtype) == UNTOUCHED);
    free(whole);

    whole = make(blocks.extent, dtype);
    CALL(how, gather_v, comm, one, mine, me == root ? whole : NULL, me == root ? counts : NULL, starts, dtype, root);
    for (uint32_t other = 0; me == root && other < all; other++)
        expect(at(whole, blocks.starts[other], dtype), other, 0, counts[other], dtype);
    contribute(whole, me, 0, blocks.extent, dtype);
    CALL(how, scatter_v, comm, me == root ? whole : NULL, me == root ? counts : NULL, starts, one, mine, dtype, root);
    expect(one, root, place, mine, dtype);

    contribute(sum, me, 0, packed.extent, dtype);
    CALL(how, reduce_scatter_v, comm, sum, one, counts, dtype, UBCCL_SUM);
    expect_reduced(one, all, packed.starts[me], mine, UBCCL_SUM, dtype);
    CALL(how, reduce_scatter_v, comm, sum, at(sum, packed.starts[me], dtype), counts, dtype, UBCCL_SUM);
    expect_reduced(at(sum, packed.starts[me], dtype), all, packed.starts[me], mine, UBCCL_SUM, dtype);
    free(one), free(whole), free(sum);
}

/* Rank a sends rank b (a + 2 b) * n elements. */
static void all_to_all_v(enum how how, size_t n, int32_t dtype)
{
    size_t to[MOST_RANKS], from[MOST_RANKS], starts[MOST_RANKS], sent = 0, got = 0, even[MOST_RANKS];
    for (uint32_t other = 0; other < all; other++) {
        to[other] = (me + 2 * other) * n;
        from[other] = (other + 2 * me) * n;
        even[other] = n;
        starts[other] = got + other; /* one element between blocks */
        got += from[other];
        sent += to[other];
    }
    void *send = make(sent, dtype), *recv = make(got + all - 1, dtype);
    for (size_t other = 0, at_element = 0; other < all; at_element += to[other++])
        contribute(at(send, at_element, dtype), me, other, to[other], dtype);
    CALL(how, all_to_all_v, comm, send, to, NULL, recv, from, starts, dtype);
    for (uint32_t other = 0; other < all; other++)
        expect(at(recv, starts[other], dtype), other, me, from[other], dtype);
    free(send), free(recv);

    send = make(n * all, dtype);
    contribute(send, me, 0, n * all, dtype);
    CALL(how, all_to_all_v, comm, send, even, NULL, send, even, NULL, dtype);
    for (uint32_t other = 0; other < all; other++)
        expect(at(send, other * n, dtype), other, me * n, n, dtype);
    free(send);
}

static void point_to_point(enum how how, size_t n, int32_t dtype)
{
    uint32_t next = (me + 1) % all, last = (me + all - 1) % all;
    void *send = make(n, dtype), *recv = make(n, dtype);
    contribute(send, me, 0, n, dtype);
    CALL(how, send_receive, comm, send, recv, n, dtype, next, last);
    expect(recv, last, 0, n, dtype);
    CALL(how, send_receive, comm, send, recv, n, dtype, me, me);
    expect(recv, me, 0, n, dtype);
    for (uint32_t turn = 0; all > 1 && turn < all; turn++) {
        if (me == turn)
            CALL(how, send, comm, send, n, dtype, next);
        else if (last == turn)
            CALL(how, receive, comm, recv, n, dtype, last);
    }
    if (all > 1)
        expect(recv, last, 0, n, dtype);
    CALL(how, send_receive, comm, send, send, n, dtype, next, last);
    expect(send, last, 0, n, dtype);
    free(send), free(recv);
}

static void barrier(enum how how)
{
    struct ubccl_work *work = NULL;
    if (how == BLOCKING) {
        OK(ubccl_comm_barrier(comm));
    } else {
        OK(ubccl_comm_barrier_async(comm, &work));
        finish(work, how);
    }
}

/* Works may be many, and be freed in any order. */
static void many_at_once(void)
{
    enum { WORKS = 40, LENGTH = 1000 };
    struct ubccl_work *works[WORKS];
    void *send = make(LENGTH, UBCCL_F32), *recv[WORKS];
    bool done = false;
    contribute(send, me, 0, LENGTH, UBCCL_F32);
    size_t before = ubccl_handle_count();
    for (int k = 0; k < WORKS; k++) {
        recv[k] = make(LENGTH, UBCCL_F32);
        OK(ubccl_comm_all_reduce_async(comm, send, recv[k], LENGTH, UBCCL_F32, UBCCL_SUM, &works[k]));
    }
    CHECK(ubccl_handle_count() >= before); /* of other threads too */
    for (int k = WORKS - 1; k >= 0; k -= 2)
        OK(ubccl_work_free(works[k]));
    for (int k = 0; k < WORKS; k += 2) {
        OK(ubccl_work_test(works[k], &done)); /* those after it are done, so it is */
        CHECK(done);
        OK(ubccl_work_free(works[k]));
    }
    for (int k = 0; k < WORKS; k++) {
        expect_reduced(recv[k], all, 0, LENGTH, UBCCL_SUM, UBCCL_F32);
        free(recv[k]);
    }
    free(send);
}

static void names(void)
{
    static const struct {
        int32_t dtype;
        const char *name;
        size_t size;
    } dtypes[] = {
        {UBCCL_I8, "i8", 1},   {UBCCL_U8, "u8", 1},   {UBCCL_I16, "i16", 2},       {UBCCL_U16, "u16", 2},
        {UBCCL_I32, "i32", 4}, {UBCCL_U32, "u32", 4}, {UBCCL_I64, "i64", 8},       {UBCCL_U64, "u64", 8},
        {UBCCL_F16, "f16", 2}, {UBCCL_BF16, "bf16", 2}, {UBCCL_F32, "f32", 4},     {UBCCL_F64, "f64", 8},
        {UBCCL_F8E4M3, "f8e4m3", 1}, {UBCCL_F8E5M2, "f8e5m2", 1},
    };
    static const struct {
        int32_t op;
        const char *name;
        int on_floats;
    } ops[] = {
        {UBCCL_SUM, "sum", 1}, {UBCCL_PROD, "prod", 1}, {UBCCL_MAX, "max", 1}, {UBCCL_MIN, "min", 1},
        {UBCCL_AVG, "avg", 1}, {UBCCL_AND, "and", 0},   {UBCCL_OR, "or", 0},   {UBCCL_XOR, "xor", 0},
    };
    for (size_t d = 0; d < sizeof dtypes / sizeof *dtypes; d++) {
        CHECK(strcmp(ubccl_dtype_name(dtypes[d].dtype), dtypes[d].name) == 0);
        CHECK(size_of(dtypes[d].dtype) == dtypes[d].size);
        for (size_t k = 0; k < sizeof ops / sizeof *ops; k++) {
            int is_float = *dtypes[d].name == 'f' || *dtypes[d].name == 'b';
            int fits = ops[k].on_floats || !is_float;
            CHECK(ubccl_op_supports(ops[k].op, dtypes[d].dtype) == (fits ? UBCCL_SUCCESS : UBCCL_INVALID_ARGUMENT));
        }
    }
    for (size_t k = 0; k < sizeof ops / sizeof *ops; k++)
        CHECK(strcmp(ubccl_op_name(ops[k].op), ops[k].name) == 0);
    CHECK(strcmp(ubccl_dtype_name(12), "unknown type") == 0);
    CHECK(strcmp(ubccl_op_name(-1), "unknown operation") == 0);
}

static void queries(const char *transport_name)
{
    char text[64];
    struct ubccl_counters counters = {.size = sizeof counters}, later = {.size = sizeof later};
    ubccl_result error = -1;
    uint32_t rank = 99, ranks = 99;
    uint64_t memory = 0;
    float one = 1, sum = 0;
    OK(ubccl_comm_rank(comm, &rank, &ranks));
    CHECK(rank == me && ranks == all);
    OK(ubccl_comm_transport(comm, text, sizeof text));
    CHECK(strcmp(text, transport_name) == 0);
    OK(ubccl_comm_async_error(comm, &error));
    CHECK(error == UBCCL_SUCCESS);
    OK(ubccl_comm_counters(comm, &counters));
    OK(ubccl_comm_all_reduce(comm, &one, &sum, 1, UBCCL_F32, UBCCL_SUM));
    OK(ubccl_comm_counters(comm, &later));
    CHECK(sum == (float)all && later.size == sizeof later);
    const struct ubccl_traffic *now = &later.total, *then = &counters.total;
    CHECK(all == 1 || (now->messages_sent > then->messages_sent && now->bytes_sent > then->bytes_sent));
    CHECK(all == 1 || now->bytes_received > then->bytes_received);
    const struct ubccl_traffic *near = strcmp(transport_name, "threads") == 0 ? &later.same_process : &later.same_host;
    CHECK(near->bytes_sent == now->bytes_sent && later.network.messages_sent == 0);
    OK(ubccl_comm_memory(comm, &memory));
    CHECK(memory > 0);
    static const char *const kinds[] = {"all_reduce", "all_gather", "reduce_scatter", "broadcast", "barrier", "sendrecv",
                                        "reduce", "gather", "scatter", "all_to_all", "gather_v", "scatter_v",
                                        "all_gather_v", "reduce_scatter_v", "all_to_all_v"};
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        OK(ubccl_comm_algorithm(comm, kinds[k], 100, UBCCL_F32, UBCCL_SUM, 0, text, sizeof text));
        CHECK(*text);
    }
    OK(ubccl_comm_set_operation_timeout(comm, 50000));
}

static const char *transport;

static void every_call(struct ubccl_comm *given, uint32_t rank, uint32_t ranks)
{
    static const int32_t dtypes[] = {UBCCL_I8,  UBCCL_U8,  UBCCL_I16, UBCCL_U16, UBCCL_I32,
                                     UBCCL_U32, UBCCL_I64, UBCCL_U64, UBCCL_F32, UBCCL_F64};
    static const int32_t ops[] = {UBCCL_SUM, UBCCL_PROD, UBCCL_MAX, UBCCL_MIN,
                                  UBCCL_AVG, UBCCL_AND,  UBCCL_OR,  UBCCL_XOR};
    static const size_t counts[] = {0, 1, 7, 3001};
    comm = given, me = rank, all = ranks;
    names();
    queries(transport);
    for (size_t d = 0; d < sizeof dtypes / sizeof *dtypes; d++)
        for (size_t k = 0; k < sizeof ops / sizeof *ops; k++)
            if (ubccl_op_supports(ops[k], dtypes[d]) == UBCCL_SUCCESS)
                reductions((enum how)((d + k) % HOWS), 5, dtypes[d], ops[k]);
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
        for (int how = 0; how < HOWS; how++) {
            int32_t dtype = dtypes[(c * HOWS + (size_t)how) % (sizeof dtypes / sizeof *dtypes)];
            reductions((enum how)how, counts[c], dtype, UBCCL_SUM);
            moves_from_and_to_a_root((enum how)how, counts[c], dtype);
            exchanges((enum how)how, counts[c], dtype);
            tables((enum how)how, counts[c], dtype, 0);
            tables((enum how)how, counts[c], dtype, 1);
            all_to_all_v((enum how)how, counts[c], dtype);
            point_to_point((enum how)how, counts[c], dtype);
            barrier((enum how)how);
        }
    many_at_once();
    OK(ubccl_comm_destroy(comm));
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    alarm(250);
    transport = argv[1];
    run_ranks(transport, (uint32_t)atoi(argv[2]), every_call);
    return 0;
}
