/* plain.h - what every rank contributes, and plain loops that say what must come of it. */
#ifndef PLAIN_H
#define PLAIN_H

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

static inline void finish(struct ubccl_work *work, enum how how)
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
static inline double value(uint32_t rank, size_t i) { return (double)((i * 5 + (size_t)rank * 3 + i / 7) % 4); }

static inline size_t size_of(int32_t dtype)
{
    size_t size = 0;
    OK(ubccl_dtype_size(dtype, &size));
    return size;
}

static inline double load(const void *buffer, size_t i, int32_t dtype)
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

static inline void store(void *buffer, size_t i, int32_t dtype, double x)
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
static inline void *make(size_t count, int32_t dtype)
{
    void *buffer = malloc(count ? count * size_of(dtype) : 1);
    CHECK(buffer != NULL);
    for (size_t i = 0; i < count; i++)
        store(buffer, i, dtype, UNTOUCHED);
    return buffer;
}

static inline void *at(void *buffer, size_t element, int32_t dtype) { return (char *)buffer + element * size_of(dtype); }

/* Elements `from` and on of what `rank` contributes. */
static inline void contribute(void *buffer, uint32_t rank, size_t from, size_t count, int32_t dtype)
{
    for (size_t i = 0; i < count; i++)
        store(buffer, i, dtype, value(rank, from + i));
}

static inline void expect(void *buffer, uint32_t rank, size_t from, size_t count, int32_t dtype)
{
    for (size_t i = 0; i < count; i++)
        CHECK(load(buffer, i, dtype) == value(rank, from + i));
}

static inline double reduced(uint32_t ranks, size_t i, int32_t op, int32_t dtype)
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

static inline void expect_reduced(void *buffer, uint32_t ranks, size_t from, size_t count, int32_t op, int32_t dtype)
{
    for (size_t i = 0; i < count; i++)
        CHECK(load(buffer, i, dtype) == reduced(ranks, from + i, op, dtype));
}

/* Ranks may be threads. */
static _Thread_local uint32_t me, all;
static _Thread_local struct ubccl_comm *comm;

/* Blocks of which some are empty: rank r's has r * n elements; with gaps they lie two elements apart, backwards. */
struct blocks {
    size_t counts[MOST_RANKS], starts[MOST_RANKS], extent;
};

static inline struct blocks blocks_of(size_t n, int with_gaps)
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

#endif
