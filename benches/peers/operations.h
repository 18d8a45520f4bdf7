/* operations.h - what the peers' programs measure: the operations, what their sizes mean, their data and results.
 *
 * `bytes` is the whole buffer for all-reduce, broadcast and ping-pong, and the larger buffer for all-gather,
 * reduce-scatter and all-to-all, as in nccl-tests. Those three work on chunks, one for each rank, of one element at
 * least: what was really moved is `real_bytes`. A barrier has no bytes.
 */
#ifndef OPERATIONS_H
#define OPERATIONS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum kind {
    ALL_REDUCE, ALL_REDUCE_IN_PLACE, ALL_GATHER, REDUCE_SCATTER, BROADCAST, ALL_TO_ALL, BARRIER, PING_PONG, KINDS
};

struct operation {
    const char *option; /* in --ops */
    const char *name;   /* in the JSON */
    int in_place;       /* in the JSON */
    int chunked;
    double bus_factor;  /* of busbw_GBps, times (ranks - 1) / ranks; 0: busbw is algbw */
};

static const struct operation OPERATIONS[KINDS] = {
    [ALL_REDUCE] = {"allreduce", "allreduce", 0, 0, 2},
    [ALL_REDUCE_IN_PLACE] = {"allreduce_inplace", "allreduce", 1, 0, 2},
    [ALL_GATHER] = {"allgather", "allgather", 0, 1, 1},
    [REDUCE_SCATTER] = {"reduce_scatter", "reduce_scatter", 0, 1, 1},
    [BROADCAST] = {"broadcast", "broadcast", 1, 0, 0},
    [ALL_TO_ALL] = {"alltoall", "alltoall", 0, 1, 1},
    [BARRIER] = {"barrier", "barrier", 0, 0, 0},
    [PING_PONG] = {"pingpong", "pingpong", 0, 0, 0},
};

enum element { FLOAT32, BFLOAT16 };

static const char *const ELEMENT_NAMES[] = {[FLOAT32] = "float32", [BFLOAT16] = "bfloat16"};
static const size_t ELEMENT_BYTES[] = {[FLOAT32] = 4, [BFLOAT16] = 2};

/* One operation at one size, as one rank sees it. */
struct point {
    enum kind kind;
    enum element element;
    int rank, ranks;
    size_t bytes;
    size_t count; /* elements of the whole buffer */
    size_t chunk; /* elements for each rank, of the operations on chunks */
};

static struct point point_of(enum kind kind, enum element element, int rank, int ranks, size_t bytes)
{
    struct point point = {.kind = kind, .element = element, .rank = rank, .ranks = ranks};
    point.bytes = kind == BARRIER ? 0 : bytes;
    point.count = point.bytes / ELEMENT_BYTES[element];
    point.chunk = point.count / (size_t)ranks;
    if (point.chunk < 1)
        point.chunk = 1;
    return point;
}

static size_t real_bytes(const struct point *point)
{
    if (!OPERATIONS[point->kind].chunked)
        return point->bytes;
    return point->chunk * (size_t)point->ranks * ELEMENT_BYTES[point->element];
}

static double bus_factor(const struct point *point)
{
    double factor = OPERATIONS[point->kind].bus_factor, ranks = point->ranks;
    if (factor == 0)
        return 1;
    return ranks > 1 ? factor * (ranks - 1) / ranks : factor;
}

/* ---- data: small whole numbers, exact in both types and in any order of sums (bfloat16: to 64 ranks) ---- */

enum { PERIOD = 7 };

static float pattern(size_t i, int rank) { return (float)((i + (size_t)rank) % PERIOD); }

/* The sums of one period over all ranks. */
static void sums(float *sum, int ranks)
{
    for (size_t i = 0; i < PERIOD; i++) {
        sum[i] = 0;
        for (int rank = 0; rank < ranks; rank++)
            sum[i] += pattern(i, rank);
    }
}

static void put(void *data, enum element element, size_t i, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (element == FLOAT32)
        ((float *)data)[i] = value;
    else
        ((uint16_t *)data)[i] = (uint16_t)(bits >> 16);
}

static float get(const void *data, enum element element, size_t i)
{
    if (element == FLOAT32)
        return ((const float *)data)[i];
    uint32_t bits = (uint32_t)((const uint16_t *)data)[i] << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Whether an operation reads what it writes, so that its input lies in the output buffer. */
static int reads_output(const struct point *point)
{
    return point->kind == ALL_REDUCE_IN_PLACE || (point->kind == BROADCAST && point->rank == 0);
}

static void fill(const struct point *point, void *send, void *recv)
{
    size_t chunks = point->chunk * (size_t)point->ranks, total = chunks > point->count ? chunks : point->count;
    for (size_t i = 0; i < total; i++) {
        put(send, point->element, i, pattern(i, point->rank));
        put(recv, point->element, i, reads_output(point) ? pattern(i, point->rank) : -1);
    }
}

/* The input alone, as `fill` leaves it. */
static inline void write_input(const struct point *point, void *send, void *recv)
{
    size_t chunks = point->chunk * (size_t)point->ranks, total = chunks > point->count ? chunks : point->count;
    void *input = reads_output(point) ? recv : send;
    for (size_t i = 0; i < total; i++)
        put(input, point->element, i, pattern(i, point->rank));
}

static int is_sum(const struct point *point, const void *recv, size_t first, size_t count)
{
    float sum[PERIOD];
    sums(sum, point->ranks);
    for (size_t i = 0; i < count; i++)
        if (get(recv, point->element, i) != sum[(first + i) % PERIOD])
            return 0;
    return 1;
}

/* Whether `recv[at..at + count]` is `rank`'s input from element `first` on. */
static int is_input(const struct point *point, const void *recv, size_t at, size_t count, int rank, size_t first)
{
    for (size_t i = 0; i < count; i++)
        if (get(recv, point->element, at + i) != pattern(first + i, rank))
            return 0;
    return 1;
}

/* Whether one call, after `fill`, left in `recv` what it ought to. */
static int is_right(const struct point *point, const void *recv)
{
    size_t chunk = point->chunk, mine = (size_t)point->rank * chunk;
    int ok = 1;
    switch (point->kind) {
    case ALL_REDUCE:
    case ALL_REDUCE_IN_PLACE: return is_sum(point, recv, 0, point->count);
    case REDUCE_SCATTER: return is_sum(point, recv, mine, chunk);
    case BROADCAST: return is_input(point, recv, 0, point->count, 0, 0);
    case PING_PONG: return point->rank > 1 || is_input(point, recv, 0, point->count, 1 - point->rank, 0);
    case ALL_GATHER:
        for (int rank = 0; rank < point->ranks; rank++)
            ok &= is_input(point, recv, (size_t)rank * chunk, chunk, rank, 0);
        return ok;
    case ALL_TO_ALL:
        for (int rank = 0; rank < point->ranks; rank++)
            ok &= is_input(point, recv, (size_t)rank * chunk, chunk, rank, mine);
        return ok;
    default: return 1;
    }
}

static inline int is_zero(const struct point *point, const void *recv)
{
    for (size_t i = 0; i < point->count; i++)
        if (get(recv, point->element, i) != 0)
            return 0;
    return 1;
}

#endif
