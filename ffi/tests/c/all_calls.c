/* all_calls.c - every collective of the C interface, blocking and with works, in and out of place, against plain loops.
 *
 *   all_calls TRANSPORT RANKS
 */
#define _POSIX_C_SOURCE 200809L
#include "ranks.h"

/* How a call is made, and what is done with its work. */
enum how { BLOCKING, WAITED, TESTED, TIMED, FREED, HOWS };

#define CALL(how, name, ...)                                      \
    do {                                                          \
        if ((how) == BLOCKING) {                                  \
            OK(ubccl_comm_##name(__VA_ARGS__));                   \
        } else {                                                  \
            struct ubccl_work *work = NULL;                       \
            OK(ubccl_comm_##name##_async(__VA_ARGS__, &work));    \
            finish(work, how);                                    \
        }                                                         \
    } while (0)

static void finish(struct ubccl_work *work, enum how how)
{
    bool done = false;
    if (how == WAITED) {
        OK(ubccl_work_wait(work));
        OK(ubccl_work_wait(work)); /* again: the same answer */
        OK(ubccl_work_test(work, &done));
        CHECK(done);
    }
    while (how == TESTED && !done)
        OK(ubccl_work_test(work, &done));
    while (how == TIMED && !done)
        OK(ubccl_work_wait_timeout(work, 1000, &done));
    OK(ubccl_work_free(work));
    REFUSED(ubccl_work_free(work), UBCCL_INVALID_ARGUMENT, "destroyed before");
}

/* What a rank contributes: small, so that every type holds the sum and the product of three. */
static double value(uint32_t rank, size_t i) { return (double)((i * 5 + (size_t)rank * 3 + i / 7) % 4); }

static size_t size_of(int32_t dtype)
{
    size_t size = 0;
    OK(ubccl_dtype_size(dtype, &size));
    return size;
}

static double load(const void *buffer, size_t i, int32_t dtype)
{
    switch (dtype) {
    case UBCCL_I8: return (double)((const int8_t *)buffer)[i];
    case UBCCL_U8: return (double)((const uint8_t *)buffer)[i];
    case UBCCL_I16: return (double)((const int16_t *)buffer)[i];
    case UBCCL_U16: return (double)((const uint16_t *)buffer)[i];
    case UBCCL_I32: return (double)((const int32_t *)buffer)[i];
    case UBCCL_U32: return (double)((const uint32_t *)buffer)[i];
    case UBCCL_I64: return (double)((const int64_t *)buffer)[i];
    case UBCCL_U64: return (double)((const uint64_t *)buffer)[i];
    case UBCCL_F32: return (double)((const float *)buffer)[i];
    default: return ((const double *)buffer)[i];
    }
}

static void store(void *buffer, size_t i, int32_t dtype, double x)
{
    switch (dtype) {
    case UBCCL_I8: ((int8_t *)buffer)[i] = (int8_t)x; break;
    case UBCCL_U8: ((uint8_t *)buffer)[i] = (uint8_t)x; break;
    case UBCCL_I16: ((int16_t *)buffer)[i] = (int16_t)x; break;
    case UBCCL_U16: ((uint16_t *)buffer)[i] = (uint16_t)x; break;
    case UBCCL_I32: ((int32_t *)buffer)[i] = (int32_t)x; break;
    case UBCCL_U32: ((uint32_t *)buffer)[i] = (uint32_t)x; break;
    case UBCCL_I64: ((int64_t *)buffer)[i] = (int64_t)x; break;
    case UBCCL_U64: ((uint64_t *)buffer)[i] = (uint64_t)x; break;
    case UBCCL_F32: ((float *)buffer)[i] = (float)x; break;
    default: ((double *)buffer)[i] = x; break;
    }
}

enum { UNTOUCHED = 99 };

/* Memory of exactly `count` elements, so that a tool sees a step beyond it. */
static void *make(size_t count, int32_t dtype)
{
    void *buffer = malloc(count ? count * size_of(dtype) : 1);
    CHECK(buffer != NULL);
    for (size_t i = 0; i < count; i++)
        store(buffer, i, dtype, UNTOUCHED);
    return buffer;
}

static void *at(void *buffer, size_t element, int32_t dtype) { return (char *)buffer + element * size_of(dtype); }

/* Elements `from` and on of what `rank` contributes. */
static void contribute(void *buffer, uint32_t rank, size_t from, size_t count, int32_t dtype)
{
    for (size_t i = 0; i < count; i++)
        store(buffer, i, dtype, value(rank, from + i));
}

static void expect(void *buffer, uint32_t rank, size_t from, size_t count, int32_t dtype)
{
    for (size_t i = 0; i < count; i++)
        CHECK(load(buffer, i, dtype) == value(rank, from + i));
}

static double reduced(uint32_t ranks, size_t i, int32_t op, int32_t dtype)
{
    double all = value(0, i);
    for (uint32_t rank = 1; rank < ranks; rank++) {
        double x = value(rank, i);
        switch (op) {
        case UBCCL_PROD: all *= x; break;
        case UBCCL_MAX: all = x > all ? x : all; break;
        case UBCCL_MIN: all = x < all ? x : all; break;
        case UBCCL_AND: all = (double)((int)all & (int)x); break;
        case UBCCL_OR: all = (double)((int)all | (int)x); break;
        case UBCCL_XOR: all = (double)((int)all ^ (int)x); break;
        default: all += x; break;
        }
    }
    if (op != UBCCL_AVG)
        return all;
    if (dtype == UBCCL_F32)
        return (double)((float)all / (float)ranks);
    return dtype == UBCCL_F64 ? all / ranks : (double)((int)all / (int)ranks);
}

static void expect_reduced(void *buffer, uint32_t ranks, size_t from, size_t count, int32_t op, int32_t dtype)
{
    for (size_t i = 0; i < count; i++)
        CHECK(load(buffer, i, dtype) == reduced(ranks, from + i, op, dtype));
}

/* Ranks may be threads. */
static _Thread_local uint32_t me, all;
static _Thread_local struct ubccl_comm *comm;

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

/* Blocks of which some are empty: rank r's has r * n elements; with gaps they lie two elements apart, backwards. */
struct blocks {
    size_t counts[MOST_RANKS], starts[MOST_RANKS], extent;
};

static struct blocks blocks_of(size_t n, int with_gaps)
{
    struct blocks blocks;
    size_t end = 0;
    for (uint32_t k = 0; k < all; k++) {
        uint32_t rank = with_gaps ? all - 1 - k : k;
        blocks.counts[rank] = rank * n;
        blocks.starts[rank] = end;
        end += blocks.counts[rank] + (with_gaps && k + 1 < all ? 2 : 0);
    }
    blocks.extent = end;
    return blocks;
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
            tags((enum how)how, counts[c], dtype);
            groups((enum how)how, counts[c], dtype);
        }
    many_at_once();
    operations_of_ones_own(3001);
    operations_of_ones_own(5);
    further_communicators();
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
